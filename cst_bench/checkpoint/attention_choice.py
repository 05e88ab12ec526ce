"""Exchange of a model's attention function.

`EAGER` rounds elsewhere than SDPA: in low precision, where SDPA may round the same in batches of any size, a model's
results by both show how far rounding alone changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

EAGER = "eager"
"""Name of plain products and a softmax among transformers' attention functions."""


@contextmanager
def attention_swapped(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Switch a model to the attention function of that name, and restore its own at the end."""
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    for config in list(configs.values()):
        for part in config.sub_configs:
            if getattr(config, part, None) is not None:
                configs.setdefault(id(getattr(config, part)), getattr(config, part))
    before = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
