"""DPO on packed batches: chosen and rejected share one prompt, without padding, with TRL's numbers.

`unsupported` says beforehand whether a model and its settings can be packed, as far as that is known. The trainer
checks the rest on the longest rows, and raises `CannotPack`.
"""

from cst_bench.tuning.packed.packed_trainer import PackedDPOTrainer, TokenizedDPOTrainer
from cst_bench.tuning.packed.packing_support import CannotPack, unsupported
from cst_bench.tuning.packed.reference_cache import ReferenceCache

__all__ = ["CannotPack", "PackedDPOTrainer", "ReferenceCache", "TokenizedDPOTrainer", "unsupported"]
