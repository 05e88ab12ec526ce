"""Capabilities measured with lm-eval's own task definitions and metrics, on a checkpoint that is already loaded."""

from cst_bench.capabilities.capability_task import CapabilityTask, load_capability
from cst_bench.capabilities.definition_code import require_no_code
from cst_bench.capabilities.evaluation import SOFTMAX_DTYPE, evaluate_capability
from cst_bench.capabilities.results import CapabilityResult, document_scores, load, save
from cst_bench.capabilities.scoring_cost import ScoringCost, estimate_scoring

__all__ = [
    "SOFTMAX_DTYPE",
    "CapabilityResult",
    "CapabilityTask",
    "ScoringCost",
    "document_scores",
    "estimate_scoring",
    "evaluate_capability",
    "load",
    "load_capability",
    "require_no_code",
    "save",
]
