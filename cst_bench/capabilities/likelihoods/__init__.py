"""Exact log-likelihoods with shared contexts computed once, as the lm-eval model `cst-hf`.

Importing this package registers the model: `import cst_bench.capabilities.likelihoods`, and then
`simple_evaluate(model="cst-hf", ...)`. lm-eval 0.4 finds no models by entry points, so `python -m
cst_bench.capabilities.likelihoods` is its command line with the model registered.
"""

from cst_bench.capabilities.likelihoods.cst_hf import CstHFLM
from cst_bench.capabilities.likelihoods.preparation import compiled_templates

__all__ = ["CstHFLM", "compiled_templates"]
