"""Exact log-likelihoods with shared contexts computed once, as the lm-eval model `cst-hf`.

Importing this package registers it: `import cst_bench.capabilities.likelihoods`, and then `simple_evaluate(model="cst-hf", ...)`. On
the command line, `python -m cst_bench.capabilities.likelihoods` is lm-eval's own with the model registered (lm-eval 0.4 finds no models
by entry points).
"""

from cst_bench.capabilities.likelihoods.comparison import Comparison, compare
from cst_bench.capabilities.likelihoods.cst_hf import CstHFLM
from cst_bench.capabilities.likelihoods.preparation import compiled_templates

__all__ = ["Comparison", "CstHFLM", "compare", "compiled_templates"]
