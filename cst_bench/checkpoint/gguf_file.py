"""GGUF files: found, described, and read through transformers, which turns their blocks into plain weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cst_bench.errors import UserError

SUFFIX = ".gguf"
_MOST_ELEMENTS = 1 << 22
"""Most elements of all arrays in a header: vocabulary, scores and merges of 260,000 tokens are about a million."""


@dataclass(frozen=True)
class GgufFile:
    """Description of the model in a GGUF file."""

    path: Path
    architecture: str
    """Class of the model in transformers."""
    quantization: str
    """`GGUF` and the name of llama.cpp's file type, such as `GGUF Q4_1`."""
    parameter_count: int
    tied: bool
    """Whether input and output embeddings are the same."""


def find_gguf(folder: Path) -> Path | None:
    """Return the only GGUF file of a folder without `config.json`; None if it has none.

    Raises:
        UserError: there are several.
    """
    found = [] if (folder / "config.json").is_file() else sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise UserError(f"{folder} has {len(found)} GGUF files, such as {found[0].name}: give the path of one")
    return found[0] if found else None


def read_gguf(path: Path) -> GgufFile:
    """Read the description of a GGUF file, without its weights.

    Raises:
        UserError: the package gguf is not installed, or this is not a GGUF file of a causal language model that
            transformers can read.
    """
    if find_spec("gguf") is None:
        raise UserError(f"{path}: reading GGUF files needs the package gguf: pip install 'cst-bench[gguf]'")
    import gguf
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    with parsed_once():
        try:
            reader = gguf.GGUFReader(str(path))
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        except Exception as error:  # both parse a stranger's bytes, and raise whatever comes of it
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path}: could not read this GGUF file: {reason}") from error
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if architecture is None:
        raise UserError(f"{path}: {config.model_type} is not a causal language model")
    field = reader.fields.get("general.file_type")
    kind = "" if field is None else gguf.LlamaFileType(int(field.contents())).name.removeprefix("MOSTLY_")
    count = sum(int(tensor.n_elements) for tensor in reader.tensors)
    return GgufFile(path, architecture, f"GGUF {kind}".strip(), count, config.get_text_config().tie_word_embeddings)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Make transformers parse each GGUF file once for config, tokenizer and weights: the vocabulary takes seconds."""
    if find_spec("gguf") is None:
        yield
        return
    import gguf

    original = gguf.GGUFReader
    gguf.GGUFReader = _reader
    try:
        yield
    finally:
        gguf.GGUFReader = original


def _reader(path: str, mode: str = "r") -> Any:
    """Return gguf's reader of a file, the same one as long as the file stays as it is."""
    status = Path(path).stat()
    return _new_reader(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _new_reader(path: str, *_: int) -> Any:
    return _bounded_reader()(path)


@lru_cache(maxsize=1)
def _bounded_reader() -> type[Any]:
    """Return gguf's reader, made to refuse a header that promises more than the file has.

    gguf reads past the end of a file without a fault, element by element: a count in a header of a few bytes would keep
    it busy for good.
    """
    from gguf import GGUFValueType
    from gguf.gguf_reader import GGUFReader

    class BoundedReader(GGUFReader):  # type: ignore[misc]
        _elements = 0

        def _get(self, offset: int, dtype: Any, count: int = 1, **order: Any) -> Any:
            end = offset + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"its header promises {end:,} bytes or more, and it has {len(self.data):,}")
            return super()._get(offset, dtype, count, **order)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == GGUFValueType.ARRAY:
                self._elements += int(self._get(orig_offs + 4, np.uint64)[0])
                if self._elements > _MOST_ELEMENTS:
                    raise ValueError(f"the arrays of its header have more than {_MOST_ELEMENTS:,} elements")
            return super()._get_field_parts(orig_offs, raw_type)

    return BoundedReader
