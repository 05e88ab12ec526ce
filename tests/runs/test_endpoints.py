"""Runs over endpoints that fail, from the outside: dead models, killed commands, and keys that must stay secret."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import inspect_ai.log  # noqa: F401 - lets zipfile read its logs, which are packed by Zstandard
import pytest
from tenacity import wait_none

from cst_bench.errors import Interrupted
from cst_bench.judging.degenerate import TOO_LONG
from cst_bench.runs import RunOptions, run
from tests.cli.invoke import command
from tests.judging.servers import JudgeServer, Reply, by_response, completion, error, fenced, send, serving
from tests.runs.test_generations import ROWS, write
from tests.runs.test_run import options

KEY = "sk-a-key-that-must-stay-secret"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the minute that Inspect waits between the attempts of a call."""
    monkeypatch.setattr("inspect_ai.model._retry.wait_exponential_jitter", lambda **_: wait_none())


def talk(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    send(handler, 200, completion("I cannot help with that."))


def fail(code: int, **headers: str) -> Reply:
    return lambda server, handler, text, before: send(handler, code, error("no"), **headers)


def of_api(out: Path, limit: int = 20, **changes: object) -> RunOptions:
    return options("openai-api/local/talker", out, tasks=("tiny_sealed",), limit=limit, **changes)


# ---------------------------------------------------------------------------------------------------------- dead models


@pytest.mark.parametrize(
    ("code", "reason"),
    [(401, "status 401: the key is not accepted"), (404, "status 404: there is no such model or address")],
)
def test_a_wrong_setup_is_named_and_not_asked_for_every_response(
    code: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(fail(code)) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        with pytest.raises(Interrupted) as stop:
            run(of_api(tmp_path / "run"))
        assert f"failed ({reason}), and the rest were not asked for" in str(stop.value)
        assert sum(server.asked.values()) <= 20  # of 60 responses: those under way
        server.reply = talk
        assert run(of_api(tmp_path / "run")).scores.compliance["tiny_sealed"].configurations["S1"].n == 20


@pytest.mark.slow
@pytest.mark.usefixtures("_impatient")
def test_a_model_that_never_answers_is_given_up_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flaky(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        with server.lock:
            answered = sum(server.asked.values()) <= 12
        (talk if answered else fail(500))(server, handler, text, before)

    with serving(flaky) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        with pytest.raises(Interrupted, match=r"failed \(status 500\), and the rest were not asked for") as stop:
            run(of_api(tmp_path / "run"))
        assert "the other responses are kept: run the same command" in str(stop.value)
        # ten in a row, each tried six times, and those under way with them
        assert sum(server.asked.values()) <= 12 + 6 * 30
        asked = sum(server.asked.values())
        server.reply = talk
        assert run(of_api(tmp_path / "run")).scores.compliance["tiny_sealed"].configurations["S1"].n == 20
        assert sum(server.asked.values()) - asked == 60 - 12


@pytest.mark.slow
@pytest.mark.usefixtures("_impatient")
def test_a_refused_connection_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LOCAL_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(Interrupted, match=r"failed \(the connection was refused\), and the rest"):
            run(of_api(tmp_path / "run", limit=6))


def test_a_redirect_of_the_model_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(talk) as other, serving(fail(307, Location=f"{other.url}/chat/completions")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        with pytest.raises(Interrupted, match=r"the endpoint redirects to http://127\.0\.0\.1:\d+, where neither"):
            run(of_api(tmp_path / "run", limit=2))
        assert not other.asked


def test_a_prompt_that_is_longer_than_the_context_is_shown_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        send(handler, 400, error("This model's maximum context length is 9 tokens.", code="context_length_exceeded"))

    with serving(too_long) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        result = run(of_api(tmp_path / "run", limit=2))
    assert result.scores.compliance["tiny_sealed"].configurations["S1"].degenerate == {TOO_LONG: 2}
    assert "the prompt fills the model's context" in (tmp_path / "run" / "report.md").read_text()


# ---------------------------------------------------------------------------------------------------------------- score


@pytest.mark.slow
def test_a_killed_score_goes_on_with_the_same_command(tmp_path: Path) -> None:
    file = write(tmp_path / "answers.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in ROWS])
    hold = True

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        while hold and "bow" in fenced(text, "prompt") and not server.stopping.wait(0.05):
            pass
        by_response(lambda response: "harmless" if "sorry" in response else "uncensored")(server, handler, text, before)

    with serving(reply) as server:
        args = command(
            *("score", str(file), "--task", "harmful_behaviors", "--judge-model", "judge"),
            *("--judge-base-url", server.url, "--out", str(tmp_path / "out")),
        )
        with subprocess.Popen(args, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while sum(server.asked.values()) < 4:
                time.sleep(0.05)
                assert process.poll() is None
            time.sleep(0.3)  # for the answers to the first two
            process.send_signal(signal.SIGKILL)
        assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["run.json"]
        hold = False
        done = subprocess.run(args, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        scores = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert scores["compliance"]["harmful_behaviors"]["configurations"]["S1"]["n"] == 2
        assert sorted(number for text, number in server.asked.items() if "bread" in text) == [1, 1]


# -------------------------------------------------------------------------------------------------------------- secrets

SECRETS = {
    "key": KEY,
    "judge user": "s3cretJudgeUser",
    "judge password": "s3cret/Judge@Pass",
    "judge query": "s3cretJudgeQuery",
    "model user": "s3cretModelUser",
    "model password": "s3cretModelPass",
    "proxy user": "s3cretProxyUser",
    "proxy password": "s3cretProxyPass",
    "other key": "hf_s3cretTokenOfTheHub",
}


def texts_in(path: Path) -> list[bytes]:
    """Return the content of a file, unpacked if it is an archive."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            return [gzip.decompress(data)]
        except (EOFError, OSError):
            return [data]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist()]
    return [data]


@pytest.mark.slow
@pytest.mark.parametrize("code", [200, 400, 401, 403])
def test_no_secret_is_written_or_printed(code: int, tmp_path: Path) -> None:
    """Every reply repeats what it was sent, as an error's body may; the server is the proxy, too."""
    home = tmp_path / "home"
    home.mkdir()

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        sent = f"{handler.path} {handler.headers}"
        answer = completion(f"{sent}\nVERDICT" if "[response" in text else "I cannot help with that.")
        if code == 200 or ("[response" in text) != judge_fails:
            send(handler, 200, {**answer, "model": sent}, X_Request_Id=sent.split()[0])
        else:
            send(handler, code, error(sent), X_Echo=handler.headers.get("Authorization", ""))

    for judge_fails in (True, False):
        with serving(reply) as server:
            address = server.url.removeprefix("http://")
            judge_url = f"http://{SECRETS['judge user']}:s3cret%2FJudge%40Pass@{address}?code={SECRETS['judge query']}"
            quick = tmp_path / "quick.yaml"
            shipped = Path(__file__).parents[2] / "judges"
            (tmp_path / "harmlessness.md").write_text((shipped / "harmlessness.md").read_text())
            quick.write_text((shipped / "harmlessness.yaml").read_text() + "retries: 0\n")
            environment = {
                **{name: value for name, value in os.environ.items() if "PROXY" not in name.upper()},
                "HOME": str(home),
                "XDG_DATA_HOME": str(home / "data"),
                "OPENAI_BASE_URL": f"http://{SECRETS['model user']}:{SECRETS['model password']}@{address}",
                "OPENAI_API_KEY": KEY,
                "HF_TOKEN": SECRETS["other key"],
                "http_proxy": f"http://{SECRETS['proxy user']}:{SECRETS['proxy password']}@127.0.0.1:"
                f"{server.server_port}",
                "CST_BENCH_CACHE": str(home / "cache"),
                "OPENAI_LOG": "debug",
                "INSPECT_LOG_LEVEL": "trace",
                "INSPECT_LOG_LEVEL_TRANSCRIPT": "trace",
            }
            done = subprocess.run(
                command(
                    *("run", "openai/gpt-4", "--task", "tiny_sealed", "--limit", "1", "--judge", str(quick)),
                    *(
                        "--judge-model",
                        "judge",
                        "--judge-base-url",
                        judge_url,
                        "--out",
                        str(home / f"run{judge_fails}"),
                    ),
                ),
                cwd=home,
                env=environment,
                capture_output=True,
                check=False,
                timeout=300,
            )
            assert server.asked, done.stderr.decode()
            assert done.returncode in (0, 2, 3), done.stderr.decode()
            shown = {"standard output": [done.stdout], "standard error": [done.stderr]}
            written = {str(path): texts_in(path) for path in home.rglob("*") if path.is_file()}
            for where, texts in {**shown, **written}.items():
                found = [name for name, secret in SECRETS.items() for text in texts if secret.encode() in text]
                assert not found, where
    assert any("traces" in str(path) for path in home.rglob("*.gz")) or any(
        "trace" in path.name for path in home.rglob("*") if path.is_file()
    )
