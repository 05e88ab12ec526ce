"""Write a checkpoint of any kind as one folder: safetensors, config and tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp

from cst_bench.checkpoint.checkpoint_files import TRAINING, CheckpointFiles, find_checkpoint, read_json
from cst_bench.checkpoint.loading import Checkpoint, load_chat, load_weights
from cst_bench.checkpoint.options import CheckpointOptions, resolve
from cst_bench.errors import UserError
from cst_bench.files import file_digest, write_json


def convert(options: CheckpointOptions, out: Path) -> Path:
    """Write a GGUF file, or an adapter merged into its base, as a whole model; return its folder.

    Args:
        options: Checkpoint to read, and how. The folder gets its chat template and its stop tokens.
        out: Folder to write; nothing is left there if writing fails.

    Raises:
        UserError: the folder exists and is not empty, or the checkpoint could not be loaded or is not one model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: give the path of a new folder")
    if resolve(options.name).kind == "inspect":
        raise UserError(f"{options.name} is an Inspect model name: it has no weights to convert")
    if options.load_in_4bit:
        raise UserError("--load-in-4bit: not possible here, since the folder gets unquantized weights")
    files = find_checkpoint(options)
    if files.adapter is not None and files.identity.merged is None:
        raise UserError(f"{files.adapter}: this adapter is not merged into its base, so it is not one model to write")
    checkpoint = load_weights(files, load_chat(files))
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        save_whole(checkpoint, work)
        _write_training(files, work)
        work.chmod(0o755)  # mkdtemp's is the user's only
        if out.is_dir():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return out


def save_whole(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a loaded model that is one model (no adapter apart) with its tokenizer and stop tokens into a folder."""
    stops = sorted(checkpoint.chat.stop_ids)
    checkpoint.model.generation_config.eos_token_id = stops if len(stops) > 1 else stops[0] if stops else None
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)


def _write_training(files: CheckpointFiles, folder: Path) -> None:
    """Copy the description of the training, with the hash of the new weights."""
    source = (files.adapter or files.folder) / TRAINING
    if files.identity.training is not None:
        write_json(
            folder / TRAINING, {**read_json(source), "weights_sha256": file_digest(folder.glob("*.safetensors"))}
        )
