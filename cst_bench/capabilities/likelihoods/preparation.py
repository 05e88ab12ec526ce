"""Makes lm-eval's preparation fast: templates compiled once, each distinct text encoded once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_TOGETHER = 1024
"""Texts encoded at a time."""


@contextmanager
def compiled_templates() -> Iterator[None]:
    """While inside, lm-eval compiles each of its tasks' templates once, where it does so at every rendering."""
    import lm_eval.utils as lm_eval_utils

    original = lm_eval_utils.apply_template
    compiled = lru_cache(maxsize=None)(lm_eval_utils.env.from_string)

    def apply_template(template: str, doc: dict[str, Any]) -> str:
        return compiled(template).render(**doc)  # type: ignore[no-any-return]

    lm_eval_utils.apply_template = apply_template
    try:
        yield
    finally:
        lm_eval_utils.apply_template = original


def texts_of(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The distinct texts that lm-eval encodes for (context, continuation) pairs, empty contexts aside."""
    texts: dict[str, None] = {}
    for context, continuation in pairs:
        if context:
            texts[context.rstrip()] = None
            texts[context + continuation] = None
    return [text for text in texts if text]


class EncodedTexts:
    """Token ids by text, packed: tens of thousands of long contexts as Python lists would take gigabytes."""

    def __init__(self, ids: dict[str, array[int]]) -> None:
        self._ids = ids
        self.get = lru_cache(maxsize=8)(self._get)
        """The ids of a text, None if it wasn't encoded. Requests about one context get the same list."""

    def _get(self, text: str) -> list[int] | None:
        found = self._ids.get(text)
        return None if found is None else found.tolist()


def encode_all(tokenizer: Any, texts: list[str], **special: Any) -> dict[str, array[int]]:
    """Encodes texts together, as `tokenizer.encode(text, **special)` would one by one."""
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
        for text, one in zip(block, backend.encode_batch_fast(block, **together)):
            encoded[text] = array("l", one.ids)
    return encoded
