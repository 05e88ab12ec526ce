"""The trained judge: a text classifier over TF-IDF and refusal features, stored without pickle."""
