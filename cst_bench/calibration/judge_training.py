"""Training a local judge: a folder with `judge.yaml`, `model.skops`, and a card that says what it was trained on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cst_bench.calibration.calibration import agreement_with, short
from cst_bench.calibration.fitting import Fit, FitOptions, fit
from cst_bench.calibration.labels import Labelled, LabelSet
from cst_bench.errors import UserError
from cst_bench.files import prompt_hash, write_bytes, write_json, write_text
from cst_bench.judging import NEITHER, JudgeOptions, ask
from cst_bench.judging.trained import ClassifierFile, ClassifierJudge, dump_text_classifier, make
from cst_bench.statistics.classification_metrics import by_cluster, with_intervals
from cst_bench.workfolder import package_versions

PACKAGES = ("cst-bench", "numpy", "scikit-learn", "scipy", "skops")
MODEL, CARD = "model.skops", "card.json"
_LEAST = 10
"""Prompts that each behaviour must have."""


@dataclass(frozen=True)
class TrainOptions:
    """What can be chosen of a training."""

    name: str = "trained"
    fit: FitOptions = field(default_factory=FitOptions)


def train(labels: LabelSet, out: Path, options: TrainOptions | None = None) -> dict[str, Any]:
    """Trains a judge on labelled responses, writes its folder, and returns its training card.

    The macro F1 on the card is cross-validated: each response is judged by a model that saw no response to its prompt.

    Args:
        labels: At least ten prompts of each behaviour.
        out: Where to write; must be new or hold a judge that was trained before.
        options: Name, seed and regularisation.

    Raises:
        UserError: too few behaviours or prompts, or the folder holds something else.
    """
    options = options or TrainOptions()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "judge.yaml").is_file())):
        raise UserError(f"{out} holds something that is no trained judge: name another folder with --out")
    rows, dropped = _rows(labels)
    classes = _classes(rows, options.fit.folds)
    found = fit(rows, classes, options.fit)
    file, path = _write(out, dump_text_classifier(found.model), rows, classes, options)
    card = _card(make(file, path, JudgeOptions()), labels, rows, dropped, found, options)
    write_json(out / CARD, card)
    return card


def _rows(labels: LabelSet) -> tuple[list[Labelled], Counter[str]]:
    """The responses to learn from, each once, and how many were passed over why."""
    dropped: Counter[str] = Counter()
    said: dict[str, set[str]] = {}
    for row in labels.rows:
        said.setdefault(row.key, set()).add(row.behaviour)
    rows: dict[str, Labelled] = {}
    for row in labels.rows:
        if not row.case.response.strip():
            dropped["empty"] += 1
        elif len(said[row.key]) > 1:
            dropped["labelled differently"] += 1
        elif row.key in rows:
            dropped["twice"] += 1
        else:
            rows[row.key] = row
    return list(rows.values()), dropped


def _classes(rows: Sequence[Labelled], folds: int) -> list[str]:
    """The behaviours in alphabetical order, `neither` last."""
    prompts: dict[str, set[str]] = {}
    for row in rows:
        prompts.setdefault(row.behaviour, set()).add(prompt_hash(row.case.prompt))
    behaviours = sorted(prompts, key=lambda name: (name == NEITHER, name))
    if len(behaviours) < 2:
        raise UserError(f"the labels name one behaviour ({', '.join(behaviours)}): a judge tells two or more apart")
    fewest = min(behaviours, key=lambda name: len(prompts[name]))
    if len(prompts[fewest]) < max(_LEAST, folds):
        raise UserError(
            f"{fewest} is shown for {len(prompts[fewest])} prompts, and at least {max(_LEAST, folds)} are needed to "
            "train and to check the judge on prompts that it has not seen"
        )
    return behaviours


def _write(
    out: Path,
    model: bytes,
    rows: Sequence[Labelled],
    classes: list[str],
    options: TrainOptions,
) -> tuple[ClassifierFile, Path]:
    """The model's file first: a judge file names a model that is there."""
    behaviours = [name for name in classes if name != NEITHER]
    who = agreement_with(sorted({row.by for row in rows}))
    file = ClassifierFile(
        name=options.name,
        version=1,
        kind="classifier",
        description=f"Trained on {len(rows)} responses labelled {', '.join(classes)}, after {who}.",
        behaviours=behaviours,
        classes=classes,
        model=MODEL,
        sha256=hashlib.sha256(model).hexdigest(),
        features=options.fit.features,
    )
    path = out / "judge.yaml"
    write_bytes(out / MODEL, model)
    content = file.model_dump(mode="json", exclude={"changelog"})
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
    return file, path


def _card(
    judge: ClassifierJudge,
    labels: LabelSet,
    rows: Sequence[Labelled],
    dropped: Counter[str],
    found: Fit,
    options: TrainOptions,
) -> dict[str, Any]:
    classes = judge.classes
    pairs = list(zip(rows, (classes[at] for at in found.held_out.argmax(axis=1)), strict=True))
    believed = [pair for pair, doubt in zip(pairs, found.contradicted, strict=True) if not doubt]
    contradicted = Counter(row.behaviour for row, doubt in zip(rows, found.contradicted, strict=True) if doubt)
    given = Counter(row.behaviour for row in rows)
    started = time.monotonic()
    ask(judge, [row.case for row in rows])
    seconds = time.monotonic() - started
    return {
        "schema": 1,
        "judge": {
            "name": judge.name,
            "version": judge.version,
            "kind": judge.kind,
            "sha256": judge.identity,
            "behaviours": list(judge.behaviours),
            **judge.details,
        },
        "trained_on": {
            "name": labels.name,
            "sha256": labels.sha256,
            "by": labels.by,
            "n": len(rows),
            "prompts": len({prompt_hash(row.case.prompt) for row in rows}),
            "prevalence": {name: given[name] / len(rows) for name in classes},
            "passed_over": dict(sorted(dropped.items())),
            "contradicted": {
                "declining": None if found.declining is None else classes[found.declining],
                "labelled": dict(sorted(contradicted.items())),
                "learnt_as_declining": int(found.relabelled.sum()),
                "left_out": int((found.contradicted & ~found.relabelled).sum()),
            },
            "keys_sha256": sorted(short(row.key) for row in labels.rows),
        },
        "cross_validation": {
            "folds": options.fit.folds,
            "agreement_with": agreement_with(labels.by),
            **_agreement(believed, judge, options.fit.seed),
            "with_those_contradicted": _agreement(pairs, judge, options.fit.seed),
        },
        "settings": {
            "seed": options.fit.seed,
            "penalty": options.fit.penalty,
            "features": judge.settings.model_dump(mode="json"),
        },
        "seconds": round(seconds, 3),
        "per_second": round(len(rows) / seconds, 1),
        "packages": package_versions(PACKAGES),
    }


def _agreement(pairs: Sequence[tuple[Labelled, str]], judge: ClassifierJudge, seed: int) -> dict[str, Any]:
    """Macro F1 and MCC of verdicts on responses that the judge had not seen, resampled by prompt."""
    counts = by_cluster(
        [row.behaviour for row, _ in pairs],
        [said for _, said in pairs],
        judge.behaviours,
        [prompt_hash(row.case.prompt) for row, _ in pairs],
    )
    found = with_intervals(counts, judge.behaviours, seed=seed)
    return {"n": len(pairs), "macro_f1": found["macro_f1"], "mcc": found["mcc"]}
