"""Kill every long verb at random moments with SIGKILL, continue it, and compare the bytes of its results.

    python scripts/torture.py [--kills 200] [--seed 0] [--verb run --verb train] [--calls 10000] [--json FILE]

Each verb first runs undisturbed, for its results and its time. Then it is started again and again in a fresh folder,
killed with everything that it started after a random time below that, and continued with the same command, until
enough kills have met it; the last call is left alone. Its files must equal those of the undisturbed one, and nothing
half written may remain. Then a judge's endpoint that fails often is asked for many verdicts (`endpoint_torture.py`):
each must come once and be sent once. Exit status 1 if a verb or a verdict fails that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from endpoint_torture import EndpointResult, torture_endpoint
from rich.console import Console
from rich.table import Table

from cst_bench.files import write_json

CALLS = 4
"""Most kills of one folder before a call is left alone."""
FAULT_PERCENT = 30
"""Share of the requests to the endpoint that a fault answers."""
TIMES = ("seconds", "per_second", "made")
"""Keys of a judge's card that hold when it was made and how long that took."""


@dataclass(frozen=True)
class Case:
    """A verb to kill."""

    arguments: Sequence[str]
    """Its command line, in which `{out}` is the folder of its results and `{shared}` one with what it reads."""
    files: Sequence[str]
    """Results to compare, as patterns below the folder."""
    before: Sequence[Sequence[str]] = ()
    """Commands that make what it reads, run once."""
    prepare: Callable[[Path, Path], None] | None = None
    """Fills a fresh folder, given the shared one, where the verb works in place."""
    temporary: Sequence[str] = ("*.tmp", "*.tmp.*", "*.partial")
    """Patterns of files that must not remain."""


@dataclass
class Result:
    """How a verb stood it."""

    kills: int = 0
    folders: int = 0
    """Folders that were finished after kills."""
    different: list[str] = field(default_factory=list)
    """Files that differ from those of the undisturbed call, or remain half written."""
    failures: list[str] = field(default_factory=list)
    """Last lines of calls that ended with another status than 0."""
    undisturbed: float = 0.0
    """Seconds."""


def copy_run(out: Path, shared: Path) -> None:
    """Make the folder of a run that is to be judged again."""
    shutil.copytree(shared / "run", out, dirs_exist_ok=True)


_RUN = ("run", "--task", "tiny_sealed", "--task", "tiny_arc", "--limit", "60", "--seed", "7")
_PAIRS = ("data", "critique", "tiny", "--task", "tiny_sealed", "--critique", "tiny_harmless", "--limit", "24")
_FORMATS = ("--format", "md", "--format", "html", "--format", "csv", "--format", "json")
_MADE_RUN = (*_RUN, "--out", "{shared}/run")
_MADE_PAIRS = (*_PAIRS, "--out", "{shared}/pairs")
CASES: Mapping[str, Case] = {
    "run": Case((*_RUN, "--out", "{out}"), ("outcomes.json", "scores.json", "report.md")),
    "data critique": Case((*_PAIRS, "--out", "{out}"), ("pairs.jsonl", "README.md")),
    "train": Case(
        ("train", "tiny", "--data", "{shared}/pairs/pairs.jsonl", "--task", "tiny_sealed", "--out", "{out}"),
        ("adapter_model.safetensors", "adapter_config.json", "recipe.yaml"),
        before=[_MADE_PAIRS],
    ),
    "judge RUN": Case(
        ("judge", "{out}", "--judge", "refusal_rules"),
        ("outcomes.json", "scores.json", "report.md"),
        before=[_MADE_RUN],
        prepare=copy_run,
    ),
    "judge calibrate": Case(("judge", "calibrate", "refusal_rules", "--out", "{out}"), ("*.json",)),
    "report": Case(
        ("report", "{shared}/run", *_FORMATS, "--out", "{out}"),
        ("report.*", "plots/*"),
        before=[_MADE_RUN],
    ),
    "reproduce": Case(
        ("reproduce", "tiny", "--limit", "16", "--seed", "11", "--workers", "1", "--out", "{out}"),
        ("tables.json", "report.md"),
    ),
}
"""Verb → how it is tried."""


def command(arguments: Sequence[str], **places: Path) -> list[str]:
    """Return the command line of `cst-bench` with these places filled in."""
    return [sys.executable, "-m", "cst_bench", *(part.format(**places) for part in arguments)]


def call(arguments: Sequence[str], places: Mapping[str, Path], kill_after: float | None) -> tuple[bool, int, str]:
    """Run a command; return whether it was killed, its exit status, and the end of what it printed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command(arguments, **places), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(kill_after)
            killed = False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed = True
        output.seek(0)
        return killed, process.returncode, output.read().decode(errors="replace")[-500:]


def results(out: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """Return the results in a folder, those of cards without times."""
    files = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    return {str(path.relative_to(out)): _content(path) for path in files}


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".json" or not data.startswith(b"{"):
        return data
    return json.dumps(_without_times(json.loads(data)), sort_keys=True).encode()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items() if name not in TIMES}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def torture(case: Case, kills: int, draw: random.Random, work: Path) -> Result:
    """Kill a verb a number of times.

    Args:
        case: The verb.
        kills: Number of kills.
        draw: Random numbers.
        work: Empty folder to work in.
    """
    result, shared = Result(), work / "shared"
    shared.mkdir()
    for arguments in case.before:
        subprocess.run(command(arguments, shared=shared), check=True, capture_output=True)

    def fresh(name: str) -> dict[str, Path]:
        out = work / name
        if case.prepare is not None:
            case.prepare(out, shared)
        return {"out": out, "shared": shared}

    whole = fresh("whole")
    started = time.monotonic()
    _, status, said = call(case.arguments, whole, None)
    result.undisturbed = time.monotonic() - started
    if status != 0:
        result.failures.append(said)
        return result
    expected = results(whole["out"], case.files)
    while result.kills < kills and not result.failures:
        places = fresh(f"killed{result.folders}")
        killed = True
        for _ in range(CALLS):
            if killed and result.kills < kills:
                killed, status, said = call(case.arguments, places, draw.uniform(0.1, result.undisturbed))
                result.kills += killed
        if killed:
            _, status, said = call(case.arguments, places, None)
        if status != 0:
            result.failures.append(said)
            break
        made = results(places["out"], case.files)
        different = [name for name in sorted(expected.keys() | made.keys()) if expected.get(name) != made.get(name)]
        left = [path.name for pattern in case.temporary for path in places["out"].rglob(pattern)]
        result.different += different + left
        result.folders += 1
        shutil.rmtree(places["out"])
    return result


def torture_verbs(verbs: Sequence[str], kills: int, seed: int, console: Console) -> dict[str, Result]:
    """Kill verbs, and print how they stood it."""
    table = Table("Verb", "Kills", "Folders", "Undisturbed, s", "Different", "Failed")
    results_of = {}
    for at, verb in enumerate(verbs):
        share = kills * (at + 1) // len(verbs) - kills * at // len(verbs)
        with tempfile.TemporaryDirectory() as folder:
            result = torture(CASES[verb], share, random.Random(f"{seed} {verb}"), Path(folder))
        results_of[verb] = result
        cells = (result.kills, result.folders, f"{result.undisturbed:.1f}", len(result.different), len(result.failures))
        table.add_row(verb, *map(str, cells))
    console.print(table)
    return results_of


def try_endpoint(calls: int, console: Console) -> EndpointResult:
    """Ask an endpoint that fails often, and print how that went."""
    with tempfile.TemporaryDirectory() as folder:
        result = torture_endpoint(calls, FAULT_PERCENT, Path(folder))
    console.print(
        f"endpoint: {result.calls} verdicts at {result.fault_percent} % faults in {result.requests} requests and "
        f"{result.commands} commands, {result.seconds:.0f} s ({result.processor_seconds:.0f} s of processor time), "
        f"{result.peak_memory_bytes / 1e6:.0f} MB; different: {len(result.different)}, failed: {len(result.failures)}"
    )
    return result


def main() -> None:
    """Try verbs and endpoint, print a table, and end with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills in all, spread over the verbs")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments")
    parser.add_argument("--verb", action="append", choices=list(CASES), help="try only this verb; repeatable")
    parser.add_argument("--calls", type=int, default=10_000, help="verdicts to ask the endpoint for, an even number")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    console = Console()
    tried: dict[str, Result | EndpointResult] = {}
    if options.kills:
        tried |= torture_verbs(options.verb or list(CASES), options.kills, options.seed, console)
    verbs = {verb: asdict(result) for verb, result in tried.items()}
    if options.calls:
        tried["endpoint"] = try_endpoint(options.calls, console)
    for name, result in tried.items():
        for said in (*result.different, *result.failures):
            console.print(f"{name}: {said}", markup=False)
    if options.json is not None:
        endpoint = asdict(tried["endpoint"]) if options.calls else None
        write_json(options.json, {"seed": options.seed, "verbs": verbs, "endpoint": endpoint})
    if any(result.different or result.failures for result in tried.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
