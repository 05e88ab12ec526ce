"""The paper's chain from end to end: self-critique, pairs, DPO and CST, runs, and tables beside the published ones."""

from cst_bench.reproduce.chain import ReproduceOptions, ReproduceResult, reproduce
from cst_bench.reproduce.steps import Reproduction, load_reproduction

__all__ = ["ReproduceOptions", "ReproduceResult", "Reproduction", "load_reproduction", "reproduce"]
