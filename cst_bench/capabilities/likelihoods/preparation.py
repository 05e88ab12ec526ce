"""Prepare lm-eval's requests: templates are compiled once, in a sandbox, and each distinct text is encoded once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOGETHER = 1024
"""Texts encoded at a time."""


@contextmanager
def compiled_templates() -> Iterator[None]:
    """Make lm-eval compile each template once while active, instead of at every rendering, and in Jinja's sandbox."""
    import lm_eval.utils as lm_eval_utils
    from jinja2 import BaseLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    original = lm_eval_utils.apply_template
    environment = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(lm_eval_utils.env.filters)
    compiled = lru_cache(maxsize=None)(environment.from_string)

    def apply_template(template: str, doc: dict[str, object]) -> str:
        return compiled(template).render(**doc)

    lm_eval_utils.apply_template = apply_template
    try:
        yield
    finally:
        lm_eval_utils.apply_template = original


def texts_of(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the distinct texts that lm-eval encodes for (context, continuation) pairs with a context."""
    texts: dict[str, None] = {}
    for context, continuation in pairs:
        if context:
            texts[context.rstrip()] = None
            texts[context + continuation] = None
    return [text for text in texts if text]


class EncodedTexts:
    """Token ids by text, in arrays: tens of thousands of long contexts as Python lists would take gigabytes."""

    def __init__(self, ids: dict[str, array[int]]) -> None:
        self._ids = ids
        self.get = lru_cache(maxsize=8)(self._get)
        """Return the ids of a text, None if it was not encoded. Requests with one context get the same list."""

    def _get(self, text: str) -> list[int] | None:
        ids = self._ids.get(text)
        return None if ids is None else ids.tolist()


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: list[str], **special: bool) -> dict[str, array[int]]:
    """Encode texts in batches, with the ids of `tokenizer.encode(text, **special)`."""
    if not texts:
        return {}
    single = tokenizer.encode(texts[0], **special)  # first, for it also turns off padding and truncation
    backend = getattr(tokenizer, "backend_tokenizer", None)
    together = {"add_special_tokens": True, **special}
    if backend is None or backend.encode_batch_fast(texts[:1], **together)[0].ids != single:
        return {text: array("l", tokenizer.encode(text, **special)) for text in texts}
    encoded: dict[str, array[int]] = {}
    for start in range(0, len(texts), _TOGETHER):
        block = texts[start : start + _TOGETHER]
        for text, encoding in zip(block, backend.encode_batch_fast(block, **together)):
            encoded[text] = array("l", encoding.ids)
    return encoded
