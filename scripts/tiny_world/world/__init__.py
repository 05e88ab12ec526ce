"""A fictional, benign village, as pure functions of seeds: what the embedded model is taught and examined on.

`lists`      how word lists are written
`splits`  which combination belongs to pretraining, preference, validation or test
`wordings`   system prompts, critique requests and rewrite requests
`errands`    requests about sealed and ordinary things, and how they are granted or refused
`villagers`  personas, and questions about what they taste, hear and see
`facts`      facts, routines and myths, asked for in multiple choice
`corpus`     the pretraining text
`items`      the rows of the shipped evaluation data
"""
