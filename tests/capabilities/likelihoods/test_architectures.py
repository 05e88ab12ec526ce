"""Every causal architecture of the installed transformers is scored and generated with as by lm-eval and `generate`.

Architectures come from transformers' own mapping: one that a new release adds is tested without a change here, and
needs one only if the common small settings do not fit it. `benchmarks/architectures.py` writes the table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.architectures import (
    NOT_GENERATED,
    NOT_SCORED,
    TOLERANCE,
    generation,
    report,
    scoring,
    stock_responses,
    stock_scores,
    sweep,
)
from benchmarks.small_models import NOT_BUILT, architectures, small_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PUBLISHED = Path(__file__).parents[3] / "reports" / "benchmarks"
FAULTS_OF_GENERATION = {"xlm": "it takes no mask that is wider than its input"}
"""Architecture whose responses differ from those of `generate` when decoded together → why. Remove what is mended."""
REASONS = (
    "it has layers other than full and sliding attention",
    "its attention implementation cannot be replaced",
    "its attention uses attention_mask",
    "its forward takes no .*",
    r"its log-likelihoods differ by up to \S+ a token when documents share a pass, and by \S+ between .*",
    r"its rope depends on the batch beyond \d+ tokens",
    r"\d+ of its \d+ layers call the registered attention",
    r"\d+ of its \d+ sliding layers tell attention their window",
)
"""Reasons for which an architecture may be left to lm-eval's own method, as regular expressions."""


@pytest.fixture(scope="module", params=[label for label in architectures() if label not in NOT_BUILT])
def built(request: pytest.FixtureRequest) -> tuple[str, PreTrainedModel]:
    return request.param, small_model(request.param)


@pytest.mark.slow
def test_log_likelihoods_are_those_of_stock(built: tuple[str, PreTrainedModel]) -> None:
    label, model = built
    if label in NOT_SCORED:
        with pytest.raises(Exception, match=re.escape(NOT_SCORED[label])):
            stock_scores(model)
        return
    result = scoring(model, stock_scores(model))
    reason = result.fallback_reason
    assert reason is None or any(re.fullmatch(known, reason) for known in REASONS), reason
    assert result.max_abs_diff < TOLERANCE
    assert result.greedy_mismatches == 0


@pytest.mark.slow
def test_responses_are_those_of_generate(built: tuple[str, PreTrainedModel], request: pytest.FixtureRequest) -> None:
    label, model = built
    if label in FAULTS_OF_GENERATION:
        request.applymarker(pytest.mark.xfail(strict=False, reason=FAULTS_OF_GENERATION[label]))
    if label in NOT_GENERATED:
        with pytest.raises(Exception, match=re.escape(NOT_GENERATED[label])):
            stock_responses(model)
        return
    assert generation(model, stock_responses(model)).different == 0


@pytest.mark.slow
@pytest.mark.parametrize("label", NOT_BUILT)
def test_what_is_not_built_still_fails(label: str) -> None:
    with pytest.raises(Exception, match=re.escape(NOT_BUILT[label])):
        small_model(label)


def test_exceptions_name_architectures() -> None:
    known = set(architectures())
    for table in (NOT_BUILT, NOT_SCORED, NOT_GENERATED, FAULTS_OF_GENERATION):
        assert set(table) <= known


def test_the_table_has_a_row_for_each_architecture() -> None:
    text = report({"transformers": "5", "rows": [sweep("llama"), sweep("mamba"), sweep("dbrx")]})
    assert re.search(r"^\| llama \| packed \| \S+ \| 0 \| rows \| 0 of 8 \|$", text, re.MULTILINE)
    assert re.search(r"^\| mamba \| stock: .* \| 0 \| generate \| 0 of 8 \|$", text, re.MULTILINE)
    assert re.search(r"^\| dbrx \| AttributeError: ", text, re.MULTILINE)


def test_the_published_table_shows_the_published_figures() -> None:
    figures = json.loads((PUBLISHED / "architectures.json").read_text(encoding="utf-8"))
    assert report(figures) == (PUBLISHED / "architectures.md").read_text(encoding="utf-8")
    swept = [row for row in figures["rows"] if "max_abs_diff" in row.get("scoring", {})]
    assert len(swept) > 150
    assert all(row["scoring"]["max_abs_diff"] < TOLERANCE for row in swept)
    assert not any(row["scoring"]["greedy_mismatches"] for row in swept)
