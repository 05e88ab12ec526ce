"""Training of a local judge: a folder with `judge.yaml`, `model.skops`, and a card of its training data."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cst_bench.calibration.card_making import agreement_with, estimates_by_prompt
from cst_bench.calibration.fitting import Fit, FitOptions, fit
from cst_bench.calibration.labels import Labelled, LabelSet
from cst_bench.calibration.training_card import (
    ContradictedLabels,
    CrossValidation,
    HeldOutMetrics,
    JudgeTrainingCard,
    TrainingLabels,
    short,
)
from cst_bench.errors import UserError
from cst_bench.files import prompt_hash, write_bytes, write_text
from cst_bench.judging import RESERVED, JudgeOptions, ask
from cst_bench.judging.card import CardJudge
from cst_bench.judging.trained import ClassifierFile, ClassifierJudge, dump_text_classifier, make
from cst_bench.workfolder import package_versions

PACKAGES = ("cst-bench", "numpy", "scikit-learn", "scipy", "skops")
MODEL = "model.skops"
_LEAST = 10
"""Minimum number of prompts of each behaviour."""


@dataclass(frozen=True)
class JudgeTrainOptions:
    """Options of training a judge."""

    name: str = "trained"
    fit: FitOptions = field(default_factory=FitOptions)


def train(labels: LabelSet, out: Path, options: JudgeTrainOptions | None = None) -> JudgeTrainingCard:
    """Train a judge on labelled responses, write its folder, and return its training card.

    The macro F1 on the card is cross-validated: each response is judged by a model that saw no response to its prompt.

    Args:
        labels: At least ten prompts of each behaviour.
        out: Folder for the judge; must be new or hold a trained judge.
        options: Name, seed and regularisation.

    Raises:
        UserError: too few behaviours or prompts, or the folder holds something else.
    """
    options = options or JudgeTrainOptions()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "judge.yaml").is_file())):
        raise UserError(f"{out} holds files and is not a trained judge: give another folder with --out")
    rows, dropped = _rows(labels)
    classes = _classes(rows, options.fit.folds)
    fitted = fit(rows, classes, options.fit)
    file, path = _write(out, dump_text_classifier(fitted.model), rows, classes, options)
    card = _card(make(file, path, JudgeOptions()), labels, rows, dropped, fitted, options)
    card.write(out)
    return card


def _rows(labels: LabelSet) -> tuple[list[Labelled], Counter[str]]:
    """Return the responses to learn from, each once, and the number left out by reason."""
    dropped: Counter[str] = Counter()
    behaviours: dict[str, set[str]] = {}
    for row in labels.rows:
        behaviours.setdefault(row.key, set()).add(row.behaviour)
    rows: dict[str, Labelled] = {}
    for row in labels.rows:
        if not row.case.response.strip():
            dropped["empty"] += 1
        elif len(behaviours[row.key]) > 1:
            dropped["labelled differently"] += 1
        elif row.key in rows:
            dropped["twice"] += 1
        else:
            rows[row.key] = row
    return list(rows.values()), dropped


def _classes(rows: Sequence[Labelled], folds: int) -> list[str]:
    """Return the behaviours in alphabetical order, reserved ones last."""
    prompts: dict[str, set[str]] = {}
    for row in rows:
        prompts.setdefault(row.behaviour, set()).add(prompt_hash(row.case.prompt))
    behaviours = sorted(prompts, key=lambda name: (name in RESERVED, name))
    if len(behaviours) < 2:
        raise UserError(
            f"the labels have one behaviour only ({', '.join(behaviours)}): a judge distinguishes two or more"
        )
    fewest = min(behaviours, key=lambda name: len(prompts[name]))
    if len(prompts[fewest]) < max(_LEAST, folds):
        raise UserError(
            f"{fewest} is the label for {len(prompts[fewest])} prompts, but at least {max(_LEAST, folds)} are needed "
            "to train the judge and to check it on unseen prompts"
        )
    return behaviours


def _write(
    out: Path,
    model: bytes,
    rows: Sequence[Labelled],
    classes: list[str],
    options: JudgeTrainOptions,
) -> tuple[ClassifierFile, Path]:
    """Write the model, then the judge file, which names a model that exists."""
    behaviours = [name for name in classes if name not in RESERVED]
    source = agreement_with(sorted({row.by for row in rows}))
    file = ClassifierFile(
        name=options.name,
        version=1,
        kind="classifier",
        description=f"Trained on {len(rows)} responses labelled {', '.join(classes)}, after {source}.",
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
    fitted: Fit,
    options: JudgeTrainOptions,
) -> JudgeTrainingCard:
    classes = judge.classes
    pairs = list(zip(rows, (classes[at] for at in fitted.held_out.argmax(axis=1)), strict=True))
    believed = [pair for pair, doubt in zip(pairs, fitted.contradicted, strict=True) if not doubt]
    contradicted = Counter(row.behaviour for row, doubt in zip(rows, fitted.contradicted, strict=True) if doubt)
    prevalence = Counter(row.behaviour for row in rows)
    started = time.monotonic()
    ask(judge, [row.case for row in rows])
    seconds = time.monotonic() - started
    return JudgeTrainingCard(
        judge=CardJudge.describe(judge),
        trained_on=TrainingLabels(
            name=labels.name,
            sha256=labels.sha256,
            by=tuple(labels.by),
            n=len(rows),
            prompts=len({prompt_hash(row.case.prompt) for row in rows}),
            prevalence={name: prevalence[name] / len(rows) for name in classes},
            left_out=dict(sorted(dropped.items())),
            contradicted=ContradictedLabels(
                declining=None if fitted.declining is None else classes[fitted.declining],
                labelled=dict(sorted(contradicted.items())),
                learnt_as_declining=int(fitted.relabelled.sum()),
                left_out=int((fitted.contradicted & ~fitted.relabelled).sum()),
            ),
            keys_sha256=tuple(sorted(short(row.key) for row in labels.rows)),
        ),
        cross_validation=CrossValidation(
            folds=options.fit.folds,
            agreement_with=agreement_with(labels.by),
            without_contradicted=_held_out_metrics(believed, judge, options.fit.seed),
            with_contradicted=_held_out_metrics(pairs, judge, options.fit.seed),
        ),
        seed=options.fit.seed,
        penalty=options.fit.penalty,
        features=judge.settings.model_dump(mode="json"),
        seconds=round(seconds, 3),
        per_second=round(len(rows) / seconds, 1),
        packages=package_versions(PACKAGES),
    )


def _held_out_metrics(pairs: Sequence[tuple[Labelled, str]], judge: ClassifierJudge, seed: int) -> HeldOutMetrics:
    """Return metrics of verdicts on responses that the judge had not seen, resampled by prompt."""
    estimates = estimates_by_prompt(pairs, judge.behaviours, seed)
    return HeldOutMetrics(n=len(pairs), macro_f1=estimates["macro_f1"], mcc=estimates["mcc"])
