"""Sequence classifiers as guards: the probability of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cst_bench.checkpoint.classifier_loading import Classifier
from cst_bench.checkpoint.data_tokenizer import DataTokenizer
from cst_bench.errors import UserError
from cst_bench.judging.guard.guard_inputs import GuardInput, GuardModel

if TYPE_CHECKING:
    from torch import Tensor


class ClassifierGuard(GuardModel):
    """Classifier that reads a response, or a prompt and a response as a pair."""

    def __init__(self, classifier: Classifier, pair: bool, verdicts: Sequence[str]) -> None:
        """Check the verdicts against the classifier's labels.

        Raises:
            UserError: they are not exactly its labels.
        """
        if set(verdicts) != set(classifier.labels):
            raise UserError(
                f"the guard's verdicts must be the labels of its checkpoint, {', '.join(classifier.labels)}; "
                f"given: {', '.join(verdicts)}"
            )
        self.model, self.room, self.rows_each = classifier.model, classifier.max_length, 1
        self._classifier = classifier
        self._pair = pair
        self.tokenizer = DataTokenizer(classifier.tokenizer, "")
        self._typed = "token_type_ids" in classifier.tokenizer.model_input_names

    def encode(self, texts: Mapping[str, str]) -> GuardInput:
        """Tokenize as `GuardModel.encode`."""
        if self._pair:
            return GuardInput(*self.tokenizer.encode_data(texts["prompt"], texts["response"]))
        return GuardInput(*self.tokenizer.encode_data(texts["response"]))

    def likelihoods(self, batch: Sequence[GuardInput]) -> list[dict[str, list[float]]]:
        """Score as `GuardModel.likelihoods`; a label has one likelihood."""
        import torch

        model, pad = self.model, self._classifier.tokenizer.pad_token_id
        if model.config.pad_token_id is None and len(batch) > 1:  # some models find the text's end by it
            return [scores for encoded in batch for scores in self.likelihoods([encoded])]
        width = max(len(encoded.ids) for encoded in batch)

        def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
            return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=model.device)

        inputs = {
            "input_ids": padded([encoded.ids for encoded in batch], pad or 0),
            "attention_mask": padded([[1] * len(encoded.ids) for encoded in batch], 0),
        }
        if self._typed:
            inputs["token_type_ids"] = padded([encoded.type_ids for encoded in batch], 0)
        with torch.inference_mode():
            log_probabilities = model(**inputs).logits.float().log_softmax(-1).tolist()
        return [{label: [score] for label, score in zip(self._classifier.labels, row)} for row in log_probabilities]
