"""Makes lm-eval's preparation fast: templates compiled once, each distinct text encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


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


def encode_all(tokenizer: Any, texts: list[str], **special: Any) -> dict[str, list[int]]:
    """Encodes texts together, as `tokenizer.encode(text, **special)` would one by one."""
    if not texts:
        return {}
    single = tokenizer.encode(texts[0], **special)  # first, for it also turns off padding and truncation
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        encoded = backend.encode_batch_fast(texts, **{"add_special_tokens": True, **special})
        if encoded[0].ids == single:
            return {text: one.ids for text, one in zip(texts, encoded)}
    return {text: tokenizer.encode(text, **special) for text in texts}
