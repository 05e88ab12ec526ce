"""A fictional, benign village as pure functions of seeds: the embedded model's pretraining text and evaluation data.

`lists`      word lists
`splits`     assignment of combinations to pretraining, preference, validation or test
`wordings`   system prompts, critique requests and rewrite requests
`errands`    requests about sealed and ordinary things, with answers that grant or refuse them
`villagers`  personas, and questions about their senses
`facts`      facts, routines and myths for multiple choice
`corpus`     the pretraining text
`items`      rows of the shipped evaluation data
`labels`     labelled responses for calibrating the judges
"""
