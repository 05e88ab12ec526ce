"""A sequence classifier as a guard: the probability that it gives each of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cst_bench.checkpoint.classification import Classifier
from cst_bench.errors import UserError
from cst_bench.judging.guard.guard_inputs import Reader
from cst_bench.judging.guard.output_text import DataTokenizer, Encoded


class ClassifierGuard(Reader):
    """A loaded classifier that reads a response, or a prompt and a response as a pair."""

    def __init__(self, classifier: Classifier, pair: bool, verdicts: Sequence[str]) -> None:
        """For some labels.

        Raises:
            UserError: these aren't all the labels that the classifier gives.
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

    def encode(self, texts: Mapping[str, str]) -> Encoded:
        """As `Reader.encode`."""
        if self._pair:
            return self.tokenizer.encode_data(texts["prompt"], texts["response"])
        return self.tokenizer.encode_data(texts["response"])

    def likelihoods(self, batch: Sequence[Encoded]) -> list[dict[str, list[float]]]:
        """As `Reader.likelihoods`; a label has one."""
        import torch

        model, pad = self.model, self._classifier.tokenizer.pad_token_id
        if model.config.pad_token_id is None and len(batch) > 1:  # some models find the text's end by it
            return [found for one in batch for found in self.likelihoods([one])]
        width = max(len(one.ids) for one in batch)

        def padded(rows: Sequence[Sequence[int]], value: int) -> Any:
            return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=model.device)

        given = {
            "input_ids": padded([one.ids for one in batch], pad or 0),
            "attention_mask": padded([[1] * len(one.ids) for one in batch], 0),
        }
        if self._typed:
            given["token_type_ids"] = padded([one.type_ids for one in batch], 0)
        with torch.inference_mode():
            chances = model(**given).logits.float().log_softmax(-1).tolist()
        return [{label: [chance] for label, chance in zip(self._classifier.labels, row)} for row in chances]
