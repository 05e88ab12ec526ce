"""Held-out verdicts of the local judge, in the form that a calibration reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cst_bench.calibration.training_card import read_held_out
from cst_bench.judging import Judge, Verdict
from cst_bench.judging.encoder import EncoderJudge


def held_out_verdicts(judge: Judge, judge_file: Path) -> Mapping[str, Verdict]:
    """Return short hash → verdict of a training that had left the response out; empty for judges without them.

    Raises:
        UserError: as `read_held_out`.
    """
    if not isinstance(judge, EncoderJudge) or (record := read_held_out(judge_file)) is None:
        return {}
    return {key: judge.verdict(value) for key, value in record.log_odds.items()}
