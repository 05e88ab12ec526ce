"""KL divergence of a checkpoint from the base that it was trained on, at each token of the checkpoint's own responses.

At position t of a response y to a prompt x it is KL(p(. | x, y < t) || q(. | x, y < t)) in nats, where p is the
checkpoint and q its base, computed over the whole vocabulary. It is what reinforcement learning from human feedback
penalises (Stiennon et al. 2020, arXiv 2009.01325, section 3.4) and how far a policy has moved (Gao et al. 2022, arXiv
2210.10760), there estimated from one sampled token at a time; Qi et al. 2024 (arXiv 2406.05946, section 2.3) show it by
position, and that training moves the first tokens most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cst_bench.checkpoint.checkpoint_files import CheckpointFiles, find_checkpoint
from cst_bench.checkpoint.loading import load_config
from cst_bench.checkpoint.options import CheckpointOptions
from cst_bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from cst_bench.checkpoint.chat import Chat
    from cst_bench.checkpoint.engine import GeneratedTokens
    from cst_bench.checkpoint.loading import Checkpoint

AUTO = "auto"
"""Name of the base that an adapter's config or `training.json` names."""
_ROWS = 128
"""Positions whose distributions are held in float32 at a time."""


def find_kl_base(files: CheckpointFiles, name: str) -> CheckpointFiles:
    """Find the base of a checkpoint: the one of this name, or for `auto` the one that the checkpoint was trained on.

    Raises:
        UserError: the base could not be found; for `auto`, the checkpoint does not say what it was trained on, or the
            one of that name has other weights.
    """
    given = files.options
    options = CheckpointOptions(
        dtype=given.dtype,
        device=given.device,
        load_in_4bit=given.load_in_4bit,
        trust_remote_code=given.trust_remote_code,
        system_as=given.system_as,
    )
    if name != AUTO:
        return find_checkpoint(replace(options, name=name))
    training, label = files.identity.training, files.identity.base
    if files.adapter is not None and label is not None:
        base = find_checkpoint(replace(options, name=str(files.path)))
        return replace(base, label=label, identity=base.identity.model_copy(update={"label": label}))
    advice = "name its base with --kl-base CHECKPOINT"
    if training is None:
        raise UserError(
            f"--kl-base auto: {files.path} is neither an adapter nor made by `cst-bench train`, so its base is not "
            f"known: {advice}"
        )
    try:
        base = find_checkpoint(replace(options, name=training.base))
    except UserError as error:
        raise UserError(f"--kl-base auto: could not find the base of {files.path}: {error}; {advice}") from None
    if base.identity.weights_sha256 != training.base_sha256:
        raise UserError(
            f"--kl-base auto: {files.path} was trained on other weights than those of {base.path}, which has the name "
            f"of its base ({training.base}): {advice}"
        )
    return base


def require_same_vocabulary(files: CheckpointFiles, chat: Chat, base: CheckpointFiles, base_chat: Chat) -> None:
    """Check that every token id means the same to a checkpoint and its base. Loads no weights.

    Raises:
        UserError: the tokenizers have other tokens, or the models give probabilities to another number of them.
    """
    vocabularies = [one.tokenizer.get_vocab() for one in (chat, base_chat)]
    rows = [_rows(one) for one in (files, base)]
    if vocabularies[0] == vocabularies[1] and rows[0] == rows[1]:
        return
    sizes = [f"{len(tokens)} tokens in {count} rows" for tokens, count in zip(vocabularies, rows, strict=True)]
    raise UserError(
        f"--kl-base {base.label}: its vocabulary ({sizes[1]}) is not that of {files.label} ({sizes[0]}), and KL "
        "divergence is between distributions over the same tokens: give the base that it was trained on, with the "
        "same tokenizer"
    )


def _rows(files: CheckpointFiles) -> int:
    """Return the number of tokens that a model gives probabilities to, as its config says."""
    return int(load_config(files).get_text_config().vocab_size)


def token_divergences(
    checkpoint: Checkpoint, base: Checkpoint, prompt: Sequence[int], response: GeneratedTokens
) -> list[float]:
    """Return the KL divergence in nats at each token of a response, the one that ended it included.

    Each model reads prompt and response alone, so that no value depends on other rows. The logits are those of the
    weights' own type, the softmax over them is in float32. NaN if the logits of either are.

    Args:
        checkpoint: Model that gave the response.
        base: Model to compare with, of the same vocabulary.
        prompt: Token ids up to and including the opening of the assistant's turn.
        response: Greedy response of `checkpoint`.
    """
    import torch

    ids = torch.tensor([[*prompt, *response.ids]], device=checkpoint.device)
    with torch.inference_mode():
        ours, theirs = (_logits(one.model, ids, response) for one in (checkpoint, base))
        starts = range(0, len(ours), _ROWS)
        parts = [_divergence(ours[at : at + _ROWS], theirs[at : at + _ROWS]) for at in starts]
    return [value for part in parts for value in part.tolist()]


def _logits(model: PreTrainedModel, ids: torch.Tensor, response: GeneratedTokens) -> torch.Tensor:
    """Return the logits that each token of a response was chosen by, shape (tokens, vocabulary)."""
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    # counted from the end: learned tokens of an adapter may stand before the prompt
    return logits[-len(response.ids) - 1 :][: response.generated_tokens]


def _divergence(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return KL(ours || theirs) of logits, shape (tokens, vocabulary) → (tokens,); rounding below 0 is 0."""
    import torch

    log_p, log_q = (logits.float().log_softmax(-1) for logits in (ours, theirs))
    p = log_p.exp()
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q))  # 0 log 0 is 0
    return terms.sum(-1, dtype=torch.float64).clamp(min=0)
