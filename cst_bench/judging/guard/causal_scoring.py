"""Causal checkpoints as guards: the exact likelihood that a checkpoint writes each verdict after the input.

The likelihood of a verdict is the product over its tokens, not normalised by length: normalised, it would not be a
probability, and a verdict of many certain tokens would beat a short one. Divided by the sum over the verdicts, it is
the probability of each verdict, given that the checkpoint writes one of them. If a verdict is a prefix of another, the
end-of-turn token is appended to it, which alone distinguishes the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cst_bench.checkpoint import Checkpoint
from cst_bench.checkpoint.data_tokenizer import DataTokenizer, InputPart
from cst_bench.checkpoint.inspection import base_model, has_prompt_learning
from cst_bench.errors import UserError
from cst_bench.judging.guard.guard_inputs import GuardInput, GuardModel, InputLayout, fill_layout

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = tuple[int, ...]


class CausalGuard(GuardModel):
    """Causal checkpoint, and the verdicts that it chooses from."""

    def __init__(self, checkpoint: Checkpoint, layout: InputLayout, prefix: str, verdicts: Sequence[str]) -> None:
        """Tokenize the verdicts.

        Args:
            checkpoint: Not a prompt-learning adapter.
            layout: Layout of the input.
            prefix: Text that the guard is assumed to have written already.
            verdicts: Texts that it may continue with.

        Raises:
            UserError: the verdicts cannot be distinguished from each other, or from the text before them.
        """
        if has_prompt_learning(checkpoint.model):
            raise UserError(f"{checkpoint.label}: an adapter of learned prompts cannot be a guard")
        self.model = checkpoint.model
        self._layout = [*layout, InputPart(prefix)]
        text = "".join(part.text for part in self._layout if not part.is_data)
        self.tokenizer = DataTokenizer(checkpoint.tokenizer, f"{text}{checkpoint.tokenizer.chat_template or ''}")
        self._bos = _leading_bos(checkpoint.tokenizer)
        continuations = {verdict: self._continuation(verdict) for verdict in verdicts}
        self.sequences = _distinguish(continuations, sorted(checkpoint.chat.stop_ids))
        """Verdict → token sequences that spell it."""
        sequences = [ids for alternatives in self.sequences.values() for ids in alternatives]
        self.room = checkpoint.context_length - (max(map(len, sequences)) - 1)
        self._scorer = SequenceScorer(checkpoint.model, sequences)
        self.rows_each = len(self._scorer.branches)

    def encode(self, texts: Mapping[str, str]) -> GuardInput:
        """Tokenize as `GuardModel.encode`."""
        ids = self.tokenizer.encode(fill_layout(self._layout, texts))
        if self._bos is not None and ids[:1] != [self._bos]:
            ids = [self._bos, *ids]
        return GuardInput(ids, [0] * len(ids))

    def likelihoods(self, batch: Sequence[GuardInput]) -> list[dict[str, list[float]]]:
        """Score as `GuardModel.likelihoods`; a verdict has one spelling, or one for each end-of-turn token."""
        return [
            {verdict: [scores[ids] for ids in alternatives] for verdict, alternatives in self.sequences.items()}
            for scores in self._scorer.score([encoded.ids for encoded in batch])
        ]

    def _continuation(self, verdict: str) -> Ids:
        """Return the tokens of a verdict after the format's last text."""
        tail: list[InputPart] = []
        for part in reversed(self._layout):
            if part.is_data:
                break
            tail.insert(0, part)
        before = self.tokenizer.encode(tail)
        whole = self.tokenizer.encode([*tail, InputPart(verdict)])
        if not before or whole[: len(before)] != before or len(whole) == len(before):
            raise UserError(
                f"the verdict {verdict!r} runs into the text before it, {''.join(part.text for part in tail)[-20:]!r}: "
                "the input must end in text of the template or the prefix, and a space between the two belongs to the "
                "verdict"
            )
        return tuple(whole[len(before) :])


def _leading_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS token id if the tokenizer puts it before plain text, else None."""
    bos: int | None = tokenizer.bos_token_id
    return bos if tokenizer("")["input_ids"][:1] == [bos] else None


def _distinguish(continuations: Mapping[str, Ids], ends: Sequence[int]) -> dict[str, list[Ids]]:
    """Return the sequences of each verdict, none of which is a prefix of another verdict's."""
    sequences: dict[str, list[Ids]] = {}
    for verdict, ids in continuations.items():
        longer = [name for name, other in continuations.items() if name != verdict and other[: len(ids)] == ids]
        same = [name for name in longer if continuations[name] == ids]
        if same or (longer and not ends):
            raise UserError(
                f"the verdicts {verdict!r} and {longer[0]!r} cannot be distinguished in the tokens of this guard"
            )
        sequences[verdict] = [(*ids, end) for end in ends] if longer else [ids]
    return sequences


class SequenceScorer:
    """Log-likelihoods of a fixed set of continuations after many inputs.

    Rows are padded on the right, where a causal model doesn't see it. A prefix that continuations share is computed
    once, and logits are computed only where they are needed.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Ids]) -> None:
        """Prepare the continuations for a causal LM in eval mode."""
        self._model = model
        self._sequences = sequences
        prefixes = sorted({ids[:-1] for ids in sequences}, key=len, reverse=True)
        self.branches: list[Ids] = []
        """Tokens that the model reads after an input, a row for each."""
        for prefix in prefixes:
            if not any(branch[: len(prefix)] == prefix for branch in self.branches):
                self.branches.append(prefix)
        self._sparse = "logits_to_keep" in inspect.signature(base_model(model).forward).parameters

    def score(self, inputs: Sequence[Sequence[int]]) -> list[dict[Ids, float]]:
        """Return the log-likelihood of every sequence after each input."""
        import torch

        rows = [(*ids, *branch) for ids in inputs for branch in self.branches]
        width = max(map(len, rows))
        device = self._model.device
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        starts = [len(ids) - 1 for ids in inputs for _ in self.branches]
        depth = max(map(len, self.branches)) + 1
        at = torch.tensor([[min(start + step, width - 1) for step in range(depth)] for start in starts], device=device)
        kept, where = torch.unique(at, return_inverse=True)
        with torch.inference_mode():
            if self._sparse:
                output = self._model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=kept)
            else:
                output = self._model(input_ids=tokens, attention_mask=mask, use_cache=False)
                where = at
            logits = output.logits[torch.arange(len(rows), device=device)[:, None], where]
            log_probabilities = logits.float().log_softmax(-1)  # [rows, depth, vocabulary]
            each = len(self.branches)
            return [self._sums(log_probabilities[index * each : (index + 1) * each]) for index in range(len(inputs))]

    def _sums(self, log_probabilities: Tensor) -> dict[Ids, float]:
        """Return each sequence's log-likelihood, given [branches, depth, vocabulary] after one input."""
        sums = {}
        for ids in self._sequences:
            row = next(index for index, branch in enumerate(self.branches) if branch[: len(ids) - 1] == ids[:-1])
            sums[ids] = sum(float(log_probabilities[row, step, token]) for step, token in enumerate(ids))
        return sums
