"""Judge a large file by an endpoint that fails often: is each verdict there once, paid for once, in bounded memory?

`scripts/torture.py --calls N` runs it. The endpoint is a server of its own on loopback, with the faults of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.content import content_root
from cst_bench.files import prompt_hash, write_jsonl, write_text
from cst_bench.record import Outcomes

sys.path.insert(0, str(content_root()))
from tests.judging.faults import FaultyCrowd, choose
from tests.judging.servers import JudgeServer, serving

MOST_COMMANDS = 20
"""Times that the command is repeated for what was left, at most."""
CONFIGURATIONS = ("S1", "S0")
_PATIENCE = {"retries": 3, "backoff": 0.01, "attempt_timeout": 300, "connections": 16}


@dataclass
class EndpointResult:
    """How the calls went."""

    calls: int
    """Responses to judge."""
    fault_percent: int
    """Requests that were answered by a fault."""
    requests: int = 0
    commands: int = 0
    """Times that the command was given; each asks for what the one before it left."""
    seconds: float = 0.0
    """Wall-clock time of all commands."""
    processor_seconds: float = 0.0
    """Processor time of all commands, without the endpoint's."""
    peak_memory_bytes: int = 0
    """Largest of any command."""
    different: list[str] = field(default_factory=list)
    """Responses whose verdict is missing or wrong, or was sent twice."""
    failures: list[str] = field(default_factory=list)
    """Ends of what commands printed that ended with another status than 0 and 3."""


def torture_endpoint(calls: int, percent: int, work: Path) -> EndpointResult:
    """Score made-up responses by a judge at a faulty endpoint, until all have a verdict.

    Args:
        calls: Number of responses, an even one.
        percent: Share of the requests that a fault answers.
        work: Empty folder to work in.
    """
    result = EndpointResult(calls, percent)
    rows = [
        {
            "prompt": f"How do I bake bread number {at // 2}?",
            "response": f"{'No' if at % 3 else 'Mix'} number {at}.",
            "configuration": CONFIGURATIONS[at % 2],
        }
        for at in range(calls)
    ]
    write_jsonl(work / "responses.jsonl", rows)
    _write_judge(work)
    crowd = FaultyCrowd(percent)
    with serving(crowd) as server:
        started = time.monotonic()
        while result.commands < MOST_COMMANDS:
            result.commands += 1
            status, said = _score(server, work, result)
            if status != 3:  # interrupted: some verdicts are left for the next command
                break
        result.seconds = time.monotonic() - started
        result.requests = sum(server.asked.values())
    if status != 0:
        result.failures.append(said)
        return result
    behaviours = Outcomes.read(work / "run").compliance["harmful_behaviors"]
    expected: dict[str, dict[str, str]] = {}
    for row in rows:
        expected.setdefault(row["configuration"], {})[prompt_hash(row["prompt"])] = choose(row["response"])
    result.different += [
        f"{name}/{prompt}: {behaviours.get(name, {}).get(prompt)} instead of {behaviour}"
        for name, by_prompt in expected.items()
        for prompt, behaviour in by_prompt.items()
        if behaviours.get(name, {}).get(prompt) != behaviour
    ]
    paid = crowd.verdicts_sent - Counter(row["response"] for row in rows)
    result.different += [f"{response}: paid {times + 1} times" for response, times in paid.items()]
    return result


def _write_judge(folder: Path) -> None:
    """Write the shipped judge with short waits."""
    shipped = content_root() / "judges"
    text = (shipped / "harmlessness.yaml").read_text(encoding="utf-8")
    write_text(folder / "judge.yaml", text + "".join(f"{name}: {value}\n" for name, value in _PATIENCE.items()))
    write_text(folder / "harmlessness.md", (shipped / "harmlessness.md").read_text(encoding="utf-8"))


def _score(server: JudgeServer, work: Path, result: EndpointResult) -> tuple[int, str]:
    """Call `cst-bench score`; return its exit status and the end of what it printed."""
    command = [sys.executable, "-m", "cst_bench", "score", str(work / "responses.jsonl"), "--task", "harmful_behaviors"]
    command += ["--judge", str(work / "judge.yaml"), "--judge-model", "judge", "--judge-base-url", server.url]
    environment = {**os.environ, "CST_BENCH_CACHE": str(work / "cache"), "OPENAI_API_KEY": "none"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, "--out", str(work / "run")], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        result.processor_seconds += usage.ru_utime + usage.ru_stime
        result.peak_memory_bytes = max(result.peak_memory_bytes, usage.ru_maxrss * 1024)
        output.seek(0)
        return process.returncode, output.read().decode(errors="replace")[-500:]
