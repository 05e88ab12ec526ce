from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_checkpoint, loading
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.errors import UserError
from cst_bench.progress import Silent
from cst_bench.record import CheckpointIdentity
from tests.checkpoints import FAMILIES, make_adapter, make_checkpoint


def failure(**options: Any) -> str:
    """Return the message with which loading fails."""
    with pytest.raises(UserError) as raised:
        load_checkpoint(CheckpointOptions(**options))
    message = str(raised.value)
    assert "\n" not in message
    return message


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def differing(first: CheckpointIdentity, second: CheckpointIdentity) -> set[str]:
    """Return the fields in which two identities differ."""
    theirs = dict(second)
    return {name for name, value in first if value != theirs[name]}


def without_tensor(path: Path, part: str) -> str:
    """Remove the first tensor of that name from a safetensors file."""
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if part in name)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("architecture", FAMILIES)
def test_each_architecture_loads(loaded: dict[str, Checkpoint], architecture: str) -> None:
    checkpoint = loaded[architecture]
    assert checkpoint.label == architecture
    assert not checkpoint.model.training
    assert checkpoint.model.dtype == torch.float32
    assert checkpoint.device == torch.device("cpu")
    assert checkpoint.identity.kind == "local"
    assert str(checkpoint.identity.architecture).lower().startswith(architecture.replace("_", ""))
    family = FAMILIES[architecture]
    stops = checkpoint.tokenizer.convert_tokens_to_ids([family.eos, *family.stops])
    assert checkpoint.chat.stop_ids == frozenset(stops)


def test_the_context_length_is_the_configs(loaded: dict[str, Checkpoint]) -> None:
    assert loaded["llama"].context_length == loaded["adapter"].context_length == 512


def test_a_model_without_positions_has_the_tokenizers_length(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mamba")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(CheckpointOptions(name=str(folder))).context_length == 2**20
    change_json(folder / "tokenizer_config.json", model_max_length=300)
    assert load_checkpoint(CheckpointOptions(name=str(folder))).context_length == 300


def test_the_dtype_can_be_chosen(folders: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(CheckpointOptions(name=str(folders["llama"]), dtype="bfloat16"))
    assert checkpoint.model.dtype == torch.bfloat16


def test_an_adapter_loads_on_the_base_that_its_config_names(loaded: dict[str, Checkpoint]) -> None:
    checkpoint = loaded["adapter"]
    assert checkpoint.identity.kind == "adapter"
    assert checkpoint.identity.base == "llama"
    assert checkpoint.identity.weights_sha256 == loaded["llama"].identity.weights_sha256
    assert checkpoint.identity.adapter_sha256
    assert checkpoint.chat.stop_ids == loaded["llama"].chat.stop_ids


def test_an_adapter_takes_another_base(folders: dict[str, Path], tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", folders["llama"], base_name="org/not-here")
    assert "could not find the adapter's base: unknown checkpoint 'org/not-here'" in failure(name=str(adapter))
    checkpoint = load_checkpoint(CheckpointOptions(name=str(adapter), base=str(folders["llama"])))
    assert checkpoint.identity.base == "llama"


def test_an_adapters_base_may_stand_beside_it(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["llama"], tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", folders["llama"], base_name="../base")
    assert find_checkpoint(CheckpointOptions(name=str(adapter))).folder.resolve() == tmp_path / "base"


def test_an_adapters_base_is_the_hubs_even_where_inspect_has_a_provider_of_that_name(
    copy_of: Callable[[str], Path],
) -> None:
    adapter = copy_of("adapter")
    change_json(adapter / "adapter_config.json", base_model_name_or_path="google/gemma-2-2b-it")
    assert "could not load it from the Hub" in failure(name=str(adapter))


def test_a_revision_in_an_adapters_config_is_no_matter_for_a_local_base(copy_of: Callable[[str], Path]) -> None:
    adapter = copy_of("adapter")
    change_json(adapter / "adapter_config.json", revision="main")
    assert find_checkpoint(CheckpointOptions(name=str(adapter))).identity.base == "llama"


def test_an_adapter_on_an_adapter_is_refused(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["adapter"]), base=str(folders["adapter"]))
    assert f"its base {folders['adapter']} is also an adapter" in message


def test_an_adapter_without_a_base_says_how_to_give_one(copy_of: Callable[[str], Path]) -> None:
    adapter = copy_of("adapter")
    change_json(adapter / "adapter_config.json", base_model_name_or_path=None)
    assert "names no base: name it with --base" in failure(name=str(adapter))


def test_a_base_is_for_adapters_only(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["qwen2"]), base=str(folders["llama"]))
    assert message.startswith("--base is for adapters")


def test_an_adapters_tokenizer_goes_before_its_bases(copy_of: Callable[[str], Path], folders: dict[str, Path]) -> None:
    adapter = copy_of("adapter")
    for path in folders["llama"].glob("*token*"):
        shutil.copy(path, adapter)
    (adapter / "chat_template.jinja").write_text("{{ 'its own' }}")
    assert load_checkpoint(CheckpointOptions(name=str(adapter))).tokenizer.chat_template == "{{ 'its own' }}"


def test_an_adapter_of_another_architecture_is_refused(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["adapter"]), base=str(folders["gpt_neox"]))
    assert str(folders["adapter"]) in message


def test_an_adapter_that_lacks_a_weight_is_refused(copy_of: Callable[[str], Path]) -> None:
    adapter = copy_of("adapter")
    name = without_tensor(adapter / "adapter_model.safetensors", "lora_B")
    message = failure(name=str(adapter))
    assert message.startswith(f"{adapter}: 1 of the weights")
    assert name in message


def test_the_identity_changes_with_the_weights(tmp_path: Path) -> None:
    options = [CheckpointOptions(name=str(make_checkpoint(tmp_path / str(s) / "m", seed=s))) for s in (1, 2)]
    first, second = (find_checkpoint(each).identity for each in options)
    assert differing(first, second) == {"weights_sha256"}
    make_checkpoint(tmp_path / "again" / "m", seed=1)
    assert find_checkpoint(CheckpointOptions(name=str(tmp_path / "again" / "m"))).identity == first


def test_the_identity_changes_with_the_adapter(folders: dict[str, Path], tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(seed) / "a", folders["llama"], seed=seed) for seed in (1, 2)]
    first, second = (find_checkpoint(CheckpointOptions(name=str(adapter))).identity for adapter in adapters)
    assert differing(first, second) == {"adapter_sha256"}


def test_the_identity_changes_with_what_changes_the_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}")
    changes: list[tuple[str, dict[str, Any]]] = [
        ("system_as", {"system_as": "user-prefix"}),
        ("stop_token", {"stop_token": ("a",)}),
        ("chat_template_sha256", {"chat_template": str(tmp_path / "mine.jinja")}),
        ("dtype", {"dtype": "bfloat16"}),
    ]
    plain = find_checkpoint(CheckpointOptions(name=str(folders["llama"]))).identity
    for key, change in changes:
        identity = find_checkpoint(CheckpointOptions(name=str(folders["llama"]), **change)).identity
        assert differing(plain, identity) == {key}


def test_a_stop_token_joins_the_checkpoints_own(folders: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(CheckpointOptions(name=str(folders["llama"]), stop_token=("<|begin|>",)))
    assert checkpoint.chat.stop_ids == {0, 2}


def test_stops_come_from_the_config_where_there_is_no_generation_config(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("gemma")
    (folder / "generation_config.json").unlink()
    change_json(folder / "config.json", eos_token_id=[1, 5])
    assert load_checkpoint(CheckpointOptions(name=str(folder))).chat.stop_ids == {1, 5}


# --- bad input: one UserError that says what is wrong, which file, what to do


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    assert failure(name=str(tmp_path)).startswith(f"{tmp_path}: no config.json")


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"\xff" * 64 + data, lambda data: b"", lambda data: data[:4]],
    ids=["cut off", "header garbage", "empty", "header cut off"],
)
def test_corrupt_weights(damage: Callable[[bytes], bytes], copy_of: Callable[[str], Path]) -> None:
    path = copy_of("llama") / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    message = failure(name=str(path.parent))
    assert message.startswith(f"{path}: corrupt or truncated safetensors file")
    assert "fetch it again" in message


def test_weights_in_a_pickle_only(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = failure(name=str(folder))
    assert "pytorch_model.bin is a pickle" in message
    assert "convert it to safetensors" in message


def to_pickle(folder: Path, name: str, *, scale: float = 1.0) -> None:
    """Replace a folder's safetensors file by a pickle of that name, beside a safetensors file that nothing reads."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    torch.save({key: value * scale for key, value in tensors.items()}, folder / name)
    path.rename(folder / "decoy.safetensors")


def test_an_adapters_pickle_beside_a_safetensors_file(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("adapter")
    to_pickle(folder, "adapter_model.bin")
    message = failure(name=str(folder))
    assert message.startswith(f"{folder}: no adapter_model.safetensors")
    assert "adapter_model.bin is a pickle" in message
    assert "weights_only" not in message


def test_a_pickle_that_the_config_names(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    to_pickle(folder, "pytorch_model.bin")
    change_json(folder / "config.json", transformers_weights="pytorch_model.bin")
    assert failure(name=str(folder)).startswith(f"{folder / 'config.json'}: weights in 'pytorch_model.bin'")
    (folder / "sub").mkdir()
    shutil.copy(folder / "decoy.safetensors", folder / "sub" / "model.safetensors")
    change_json(folder / "config.json", transformers_weights="sub/model.safetensors")
    assert "'sub/model.safetensors'" in failure(name=str(folder))


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "sub/model.safetensors", "../model.safetensors", 7])
def test_shards_that_are_not_safetensors_files_of_the_folder(shard: object, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    to_pickle(folder, "pytorch_model.bin")
    names = load_file(folder / "decoy.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert failure(name=str(folder)).startswith(f"{folder / 'model.safetensors.index.json'}: weights in {shard!r}")


def test_no_weights(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    (folder / "model.safetensors").unlink()
    assert failure(name=str(folder)) == f"{folder}: no .safetensors weights"


def test_a_missing_weight(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    name = without_tensor(folder / "model.safetensors", "q_proj")
    message = failure(name=str(folder))
    assert message.startswith(f"{folder}: 1 of the weights")
    assert name in message


def test_weights_of_another_shape_than_the_config_says(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    change_json(folder / "config.json", intermediate_size=48)
    name = "model.layers.0.mlp.down_proj.weight"
    assert failure(name=str(folder)) == f"{folder}: {name} has shape [32, 64] in the files and [32, 48] in the config"


def test_a_tokenizer_with_tokens_that_the_model_has_not(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama")
    for path in copy_of("llama").glob("*token*"):
        shutil.copy(path, folder)
    load_checkpoint(CheckpointOptions(name=str(folder)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<|{number}|>" for number in range(20)])
    tokenizer.save_pretrained(folder)
    load_checkpoint(CheckpointOptions(name=str(folder)))  # one that no prompt has, such as a pad token, does no harm
    (folder / "chat_template.jinja").write_text("<|19|>{{ messages[0].content }}")
    message = failure(name=str(folder))
    assert message.startswith(
        f"{folder}: the tokenizer has '<|19|>' as token 409, but the model in {folder} has only 400"
    )


def test_a_missing_shard(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {name: f"model-0000{1 + (names.index(name) > 5)}-of-00002.safetensors" for name in names}
    save_file(
        {name: tensors[name] for name in names[:6]}, folder / "model-00001-of-00002.safetensors", {"format": "pt"}
    )
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = failure(name=str(folder))
    assert "model-00002-of-00002.safetensors" in message


@pytest.mark.parametrize("text", ["{", "", "[]", "\xff"], ids=["cut off", "empty", "a list", "not UTF-8"])
@pytest.mark.parametrize("file", ["config.json", "adapter_config.json"])
def test_a_config_that_is_not_json(text: str, file: str, copy_of: Callable[[str], Path]) -> None:
    path = copy_of("llama" if file == "config.json" else "adapter") / file
    path.write_text(text, encoding="latin-1")
    assert failure(name=str(path.parent)).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"], ids=lambda name: name
)
@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_other_files_that_are_broken(file: str, text: str, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    (folder / file).write_text(text)
    if text == "{}" and file != "tokenizer.json":
        load_checkpoint(CheckpointOptions(name=str(folder)))
    else:
        assert failure(name=str(folder)).startswith(f"{folder}: could not load this checkpoint: ")


def test_no_tokenizer(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert failure(name=str(folder)).startswith(f"{folder}: could not load this checkpoint: ")


def test_a_tokenizer_file_that_is_json_but_no_tokenizer(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    change_json(folder / "tokenizer.json", model={"type": "Abacus"})
    assert failure(name=str(folder)).startswith(f"{folder}: could not load this checkpoint: ")


@pytest.mark.parametrize("eos", ["</s>", ["a"], {"a": 1}], ids=str)
def test_stop_tokens_that_are_no_numbers(eos: object, copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    change_json(folder / "generation_config.json", eos_token_id=eos)
    assert failure(name=str(folder)).startswith(f"{folder}: ")


@pytest.mark.parametrize("words", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory"])
def test_too_little_memory(words: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: what `transformers` raises while it reads the weights."""

    def raises(*_: object, **__: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", raises)
    message = failure(name=str(folders["llama"]))
    assert message == f"{folders['llama']}: not enough memory to load it; try --dtype bfloat16 or --load-in-4bit"


@pytest.mark.parametrize(
    "change",
    [{"model_type": "flux_capacitor"}, {"model_type": None}, {"num_hidden_layers": "two"}, {"model_type": "t5"}],
)
def test_a_config_that_transformers_does_not_take(change: dict[str, object], copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llama")
    change_json(folder / "config.json", **change)
    assert failure(name=str(folder)).startswith(f"{folder}: could not load this checkpoint: ")


def test_code_of_its_own_is_not_run_unasked(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("llama")
    marker = tmp_path / "ran"
    code = (
        f"open({str(marker)!r}, 'w')\nfrom transformers import LlamaConfig as MyConfig, LlamaForCausalLM as MyModel\n"
    )
    (folder / "mine.py").write_text(code)
    names = {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}
    change_json(folder / "config.json", model_type="mine", auto_map=names)
    assert "it contains code of its own, which runs only with --trust-remote-code" in failure(name=str(folder))
    assert not marker.exists()


def test_a_revision_of_a_local_folder(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["llama"]), revision="main")
    assert message == f"--revision is for Hub ids; {folders['llama']} is a local folder"


def test_a_stop_token_that_the_tokenizer_does_not_know(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["llama"]), stop_token=("<|eot_id|>",))
    assert message == f"--stop-token '<|eot_id|>': the tokenizer in {folders['llama']} has no such token"


def test_a_chat_template_that_is_not_there(folders: dict[str, Path]) -> None:
    message = failure(name=str(folders["llama"]), chat_template="nowhere.jinja")
    assert message == "--chat-template: file not found: nowhere.jinja"


def test_a_chat_template_that_is_not_text(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "x.jinja").write_bytes(b"\xff\xfe")
    message = failure(name=str(folders["llama"]), chat_template=str(tmp_path / "x.jinja"))
    assert message.startswith(f"{tmp_path / 'x.jinja'}: not UTF-8 text")


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "cpu:x", "meta"])
def test_a_device_that_cannot_be_used(folders: dict[str, Path], device: str) -> None:
    assert failure(name=str(folders["llama"]), device=device).startswith(f"--device {device!r} is not available: ")


def test_four_bits_without_bitsandbytes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    message = failure(name=str(folders["llama"]), load_in_4bit=True)
    assert message == "--load-in-4bit needs bitsandbytes: pip install 'cst-bench[4bit]'"


@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_hub_id_that_cannot_be_reached(revision: str | None) -> None:
    """The tests run with HF_HUB_OFFLINE=1."""
    at = " at revision 'v2'" if revision else ""
    message = failure(name="no-such-org/no-such-model", revision=revision)
    assert message.startswith(
        f"unknown checkpoint 'no-such-org/no-such-model'{at}: no such local folder, and could not load it from the Hub"
    )


def test_an_inspect_model_name_has_no_weights() -> None:
    assert re.search("openai/gpt-4 is an Inspect model name: it has no weights", failure(name="openai/gpt-4"))


class Notes(Silent):
    """Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize(
    ("dtype", "fast", "parameters", "hinted"),
    [
        ("auto", True, 0, True),
        ("float32", True, 0, False),
        ("bfloat16", True, 0, False),
        ("auto", False, 0, False),
        ("auto", True, 10**9, False),
    ],
)
def test_a_large_model_in_float32_says_once_that_bfloat16_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, fast: bool, parameters: int, hinted: bool
) -> None:
    """Fakes what the CPU multiplies fast, and the size from which a model is large."""
    monkeypatch.setattr(loading, "multiplies_bf16", lambda: fast)
    monkeypatch.setattr(loading, "_LARGE", parameters)
    folder = make_checkpoint(tmp_path, "llama")
    notes = Notes()
    model = EvaluatedModel(CheckpointOptions(str(folder), dtype=dtype, device="cpu"), notes)
    for _ in range(2):
        assert model.checkpoint is not None
    assert sum("--dtype bfloat16" in note for note in notes.notes) == hinted
