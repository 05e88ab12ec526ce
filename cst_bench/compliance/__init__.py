"""Compliance tasks: their files and data, the Inspect tasks built from them, and compliance scores."""
