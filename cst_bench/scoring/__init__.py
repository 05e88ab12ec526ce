"""Exact log-likelihoods with shared contexts computed once, as the lm-eval model `cst-hf`.

Importing this package registers it: `import cst_bench.scoring`, and then `simple_evaluate(model="cst-hf", ...)`. On
the command line, `python -m cst_bench.scoring` is lm-eval's own with the model registered (lm-eval 0.4 finds no models
by entry points).
"""

from cst_bench.scoring.comparison import Comparison, compare
from cst_bench.scoring.model import CstHFLM
from cst_bench.scoring.preparation import compiled_templates

__all__ = ["Comparison", "CstHFLM", "compare", "compiled_templates"]
