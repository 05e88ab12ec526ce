"""The paper's chain from end to end: self-critique, pairs, DPO and CST, runs, and tables beside the published ones."""

from cst_bench.reproduce.plan import Reproduction, load_reproduction
from cst_bench.reproduce.reproduce import ReproduceOptions, ReproduceResult, reproduce
from cst_bench.reproduce.tables import footnotes

__all__ = ["ReproduceOptions", "ReproduceResult", "Reproduction", "footnotes", "load_reproduction", "reproduce"]
