"""GGUF files as checkpoints. They are written with llama.cpp's own writer from small checkpoints."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, convert, find_checkpoint, load_checkpoint, resolve
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.errors import UserError
from tests.checkpoints import PROMPTS, make_adapter, make_checkpoint, make_gguf

IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "model", "qwen2")


@pytest.fixture(scope="module")
def file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny-f32.gguf", source)


def load(path: Path, **options: Any) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(str(path), **options))


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = checkpoint.model(input_ids=IDS).logits
    return output


def failure(path: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        load_checkpoint(CheckpointOptions(str(path), **options))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_gguf_file_is_the_checkpoint_that_it_was_made_from(file: Path, source: Path) -> None:
    ours, theirs = load(file), load(source)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    assert ours.chat.stop_ids <= theirs.chat.stop_ids
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    for prompt in PROMPTS:
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        assert ours.chat.prompt_ids(messages) == theirs.chat.prompt_ids(messages)
    require(run_gate(ours.chat), "tiny")
    assert ours.context_length == theirs.context_length
    assert find_checkpoint(ours.options).parameter_count == find_checkpoint(theirs.options).parameter_count


def test_its_identity_is_the_file(file: Path, source: Path, tmp_path: Path) -> None:
    identity = find_checkpoint(CheckpointOptions(str(file))).identity
    assert (identity.label, identity.kind, identity.architecture) == ("tiny-f32", "local", "Qwen2ForCausalLM")
    assert identity.quantization == "GGUF ALL_F32"
    (tmp_path / "tiny-f32.gguf").write_bytes(file.read_bytes())
    (tmp_path / "notes.json").write_text("{}")  # what lies beside it does not matter
    assert find_checkpoint(CheckpointOptions(str(tmp_path / "tiny-f32.gguf"))).identity == identity
    other = make_gguf(tmp_path / "other.gguf", source, quantized=True)
    changed = find_checkpoint(CheckpointOptions(str(other))).identity
    assert changed.weights_sha256 != identity.weights_sha256
    assert changed.quantization == "GGUF Q8_0"


def test_quantized_weights_become_plain_ones(source: Path, tmp_path: Path) -> None:
    checkpoint = load(make_gguf(tmp_path / "q8.gguf", source, quantized=True), dtype="bfloat16")
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {torch.bfloat16}
    assert getattr(checkpoint.model.config, "quantization_config", None) is None
    exact = logits(load(source))
    assert 0 < (logits(checkpoint).float() - exact).abs().max() < 0.2 * exact.abs().max()


def test_a_folder_with_one_gguf_file_is_that_file(file: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(file.read_bytes())
    files = find_checkpoint(CheckpointOptions(str(tmp_path)))
    assert files.path == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(file.read_bytes())
    assert failure(tmp_path) == f"{tmp_path} has 2 GGUF files, such as a.gguf: give the path of one"
    (source / "also.gguf").write_bytes(b"")
    try:
        assert find_checkpoint(CheckpointOptions(str(source))).gguf is None
    finally:
        (source / "also.gguf").unlink()


def test_a_gguf_file_on_the_hub_has_a_name_with_a_colon() -> None:
    for name in ("hf/org/name:model.q4.gguf", "org/name:model.q4.gguf"):
        found = resolve(name)
        assert (found.kind, found.name, found.gguf) == ("hub", "org/name", "model.q4.gguf")
    assert "could not load it from the Hub" in failure("hf/org/name:model.q4.gguf")


def test_an_adapter_on_a_gguf_base(file: Path, source: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", source, base_name=str(file))
    on_file, on_folder = load(adapter), load(adapter, base=str(source))
    torch.testing.assert_close(logits(on_file), logits(on_folder), atol=1e-4, rtol=1e-4)
    assert (on_file.identity.base, on_file.identity.merged) == ("tiny-f32", "float32")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "could not read this GGUF file: "),
        (lambda content: content[:700], "could not read this GGUF file: "),
        (lambda content: b"nonsense" + content[8:], "could not read this GGUF file: GGUF magic invalid"),
    ],
)
def test_a_damaged_file_is_one_message(
    damage: Callable[[bytes], bytes], reason: str, file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(file.read_bytes()))
    assert failure(path).startswith(f"{path}: {reason}")


def test_an_architecture_that_transformers_cannot_read_is_one_message(source: Path, tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "other.gguf", source, architecture="rwkv7")
    assert failure(path).startswith(f"{path}: could not read this GGUF file: GGUF model with architecture rwkv7 is not")


def test_a_gguf_file_is_quantized_already(file: Path) -> None:
    assert failure(file, load_in_4bit=True) == f"{file} is quantized already: --load-in-4bit is for safetensors"


def test_another_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(UserError, match=re.escape("model.bin' is a file: give the folder that holds config.json")):
        resolve(str(tmp_path / "model.bin"))


def test_convert_writes_the_same_model_in_safetensors(file: Path, tmp_path: Path) -> None:
    folder = convert(CheckpointOptions(str(file)), tmp_path / "new" / "model")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    ours, theirs = load(folder), load(file)
    assert torch.equal(logits(ours), logits(theirs))
    assert ours.chat.stop_ids == theirs.chat.stop_ids
    messages: list[Any] = [{"role": "user", "content": PROMPTS[2]}]
    assert ours.chat.prompt_ids(messages) == theirs.chat.prompt_ids(messages)
    with pytest.raises(UserError, match="exists already: give the path of a new folder"):
        convert(CheckpointOptions(str(file)), folder)


def test_convert_merges_an_adapter(source: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", source)
    folder = convert(CheckpointOptions(str(adapter), stop_token=("!",)), tmp_path / "model")
    assert torch.equal(logits(load(folder)), logits(load(adapter)))
    assert load(folder).tokenizer.convert_tokens_to_ids("!") in load(folder).chat.stop_ids


def test_convert_refuses_what_is_not_one_model(source: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", source)
    for options, reason in (
        (CheckpointOptions("mockllm/model"), "it has no weights to convert"),
        (CheckpointOptions(str(source), load_in_4bit=True), "--load-in-4bit: not possible here"),
        (CheckpointOptions(str(adapter), merge=False), "not merged into its base"),
    ):
        with pytest.raises(UserError, match=reason):
            convert(options, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def header(*fields: bytes, tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(fields)) + b"".join(fields)


def array_field(element: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<Q1sII", 1, b"k", 9, element) + struct.pack("<Q", count) + data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(array_field(0, 2**40)), "the arrays of its header have more than"),
        (header(array_field(0, 2**20, b"ab")), "its header promises"),
        (header(array_field(8, 2**20)), "its header promises"),
        (header(array_field(9, 1, struct.pack("<IQ", 9, 1) * 5000)), "recursion"),
        (header(struct.pack("<Q", 2**62)), "its header promises"),
        (header(tensors=2**60), "its header promises"),
        (header(array_field(0, 0), array_field(0, 0)), "Duplicate"),
    ],
)
def test_a_header_that_promises_more_than_the_file_has_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    message = failure(path)
    assert said in message
    assert "could not read this GGUF file" in message
