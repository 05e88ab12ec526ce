"""A causal checkpoint as a guard: how likely it is to write each verdict after the input, exactly, and no other text.

The likelihood of a verdict is the product over its tokens, not normalised by length: normalised, it would be no
probability, and a verdict of many certain tokens would beat a short one. Among the verdicts it is then the probability
of each, given that the checkpoint writes one of them. A verdict whose tokens another goes on from is scored with the
end of the turn behind it, as only that tells the two apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from cst_bench.checkpoint import Checkpoint
from cst_bench.errors import UserError
from cst_bench.judging.guard.guard_inputs import Layout, Reader, filled
from cst_bench.judging.guard.output_text import DataTokenizer, Encoded, Part

Ids = tuple[int, ...]


class CausalGuard(Reader):
    """A loaded checkpoint, and the verdicts that it is asked to choose from."""

    def __init__(self, checkpoint: Checkpoint, layout: Layout, prefix: str, verdicts: Sequence[str]) -> None:
        """Tokenises the verdicts.

        Args:
            checkpoint: An adapter of learned prompts won't do.
            layout: Of the input.
            prefix: What the guard is taken to have written already.
            verdicts: Texts, each of which it may go on with.

        Raises:
            UserError: the verdicts can't be told apart, or can't be told from the text before them.
        """
        if any(adapter.is_prompt_learning for adapter in getattr(checkpoint.model, "peft_config", {}).values()):
            raise UserError(f"{checkpoint.label}: an adapter of learned prompts can't be a guard")
        self.model = checkpoint.model
        self._layout = [*layout, Part(prefix)]
        text = "".join(part.text for part in self._layout if not part.is_data)
        self.tokenizer = DataTokenizer(checkpoint.tokenizer, f"{text}{checkpoint.tokenizer.chat_template or ''}")
        self._bos = _leading_bos(checkpoint.tokenizer)
        spelled = {verdict: self._continuation(verdict) for verdict in verdicts}
        self.sequences = _told_apart(spelled, sorted(checkpoint.chat.stop_ids))
        """The token sequences that spell each verdict."""
        longest = max(len(ids) for found in self.sequences.values() for ids in found)
        self.room = checkpoint.context_length - (longest - 1)
        self._scorer = SequenceScorer(checkpoint.model, [ids for found in self.sequences.values() for ids in found])
        self.rows_each = len(self._scorer.branches)

    def encode(self, texts: Mapping[str, str]) -> Encoded:
        """As `Reader.encode`."""
        ids = self.tokenizer.encode(filled(self._layout, texts))
        if self._bos is not None and ids[:1] != [self._bos]:
            ids = [self._bos, *ids]
        return Encoded(ids, [0] * len(ids))

    def likelihoods(self, batch: Sequence[Encoded]) -> list[dict[str, list[float]]]:
        """As `Reader.likelihoods`; a verdict is spelled in one way, or with each of the ends that a turn can have."""
        return [
            {verdict: [scores[ids] for ids in found] for verdict, found in self.sequences.items()}
            for scores in self._scorer.score([one.ids for one in batch])
        ]

    def _continuation(self, verdict: str) -> Ids:
        """The tokens of a verdict as they follow on the format's last text."""
        tail: list[Part] = []
        for part in reversed(self._layout):
            if part.is_data:
                break
            tail.insert(0, part)
        before = self.tokenizer.encode(tail)
        whole = self.tokenizer.encode([*tail, Part(verdict)])
        if not before or whole[: len(before)] != before or len(whole) == len(before):
            raise UserError(
                f"the verdict {verdict!r} runs into the text before it, {''.join(part.text for part in tail)[-20:]!r}: "
                "the input must end in text of the template or the prefix, and a space between the two belongs to the "
                "verdict"
            )
        return tuple(whole[len(before) :])


def _leading_bos(tokenizer: Any) -> int | None:
    """The token that the tokenizer puts before plain text, if any."""
    around = tokenizer("")["input_ids"]
    return tokenizer.bos_token_id if around[:1] == [tokenizer.bos_token_id] else None


def _told_apart(spelled: Mapping[str, Ids], ends: Sequence[int]) -> dict[str, list[Ids]]:
    """The sequences of each verdict, none of which begins another of them."""
    found: dict[str, list[Ids]] = {}
    for verdict, ids in spelled.items():
        longer = [name for name, other in spelled.items() if name != verdict and other[: len(ids)] == ids]
        same = [name for name in longer if spelled[name] == ids]
        if same or (longer and not ends):
            raise UserError(
                f"the verdicts {verdict!r} and {longer[0]!r} can't be told apart in the tokens of this guard"
            )
        found[verdict] = [(*ids, end) for end in ends] if longer else [ids]
    return found


class SequenceScorer:
    """Log-likelihoods of the same few continuations after many inputs.

    Rows are padded on the right, where a causal model doesn't see it. What the continuations begin with is read once
    for all that begin alike, and logits are computed where they are needed only.
    """

    def __init__(self, model: Any, sequences: Sequence[Ids]) -> None:
        """For a causal LM in eval mode."""
        self._model = model
        self._sequences = sequences
        branches = sorted({ids[:-1] for ids in sequences}, key=len, reverse=True)
        self.branches: list[Ids] = []
        """What the model reads behind an input: a row for each."""
        for branch in branches:
            if not any(kept[: len(branch)] == branch for kept in self.branches):
                self.branches.append(branch)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._sparse = "logits_to_keep" in inspect.signature(base.forward).parameters

    def score(self, inputs: Sequence[Sequence[int]]) -> list[dict[Ids, float]]:
        """The log-likelihood of every sequence after each input."""
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
            chances = logits.float().log_softmax(-1)  # [rows, depth, vocabulary]
            each = len(self.branches)
            return [self._read(chances[index * each : (index + 1) * each]) for index in range(len(inputs))]

    def _read(self, chances: Any) -> dict[Ids, float]:
        """From the log-probabilities [branches, depth, vocabulary] after one input."""
        found = {}
        for ids in self._sequences:
            row = next(index for index, branch in enumerate(self.branches) if branch[: len(ids) - 1] == ids[:-1])
            found[ids] = sum(float(chances[row, step, token]) for step, token in enumerate(ids))
        return found
