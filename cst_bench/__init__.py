"""cst-bench: does a model do what its system prompt configures, did it stay capable, can the judge be believed?

Importing this package is cheap; torch, transformers, Inspect and lm-eval are imported where they are used.
"""

__version__ = "0.1.0"
