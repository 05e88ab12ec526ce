"""A judge's endpoint at its worst, over real HTTP: every verdict exactly once, in bounded time and memory."""

from __future__ import annotations

import resource
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.judging import Case, Judge, JudgeOptions, JudgeUnavailable, ask, load_judge
from cst_bench.judging.cache import _AnswerFile, keeping_answers
from tests.judging.faults import PASSING, FaultyCrowd, answered, body, choose, faulty, status
from tests.judging.servers import (
    JudgeServer,
    Reply,
    by_response,
    completion,
    error,
    fenced,
    line_of,
    send,
    serving,
    sleep_until_stopped,
)
from tests.judging.test_llm import CASES, EXPECTED, behaviours, judge_at, quick

KEY = "sk-a-key-that-must-stay-secret"


@pytest.fixture(autouse=True)
def _key_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_one_failure_in_bounds_and_is_tried_again(fault: str, tmp_path: Path) -> None:
    cases = CASES[:2]
    with serving(faulty(PASSING[fault])) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        verdicts = ask(judge_at(server, tmp_path, attempt_timeout=1 if fault == "drip" else 60), cases)
        assert behaviours(verdicts) == EXPECTED[:2]
        assert set(server.asked.values()) == {2}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB; of the server's, too


REASONS = {
    "huge": "a reply of more than 16 MiB",
    "bomb": "a packed reply of more than 16 MiB",
    "drip": "no reply within 1 s",
    "error in a 200": "an error in place of an answer",
    "error with a code in a 200": "status 503",
    "null choices": "a reply without an answer",
    "a text": "a reply that is not a completion",
    "deep": "a reply that is not JSON",
    "cut": "the connection broke",
}


@pytest.mark.parametrize("fault", REASONS)
def test_a_fault_that_stays_is_a_sentence(fault: str, tmp_path: Path) -> None:
    with serving(PASSING[fault]) as server, pytest.raises(JudgeUnavailable) as stop:
        ask(judge_at(server, tmp_path, retries=0, attempt_timeout=1 if fault == "drip" else 60), CASES[:1])
    assert str(stop.value) == (
        f"judge harmlessness (judge) gave no verdict on 1 of 1 responses ({REASONS[fault]}); "
        "the verdicts that it gave are cached"
    )


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        judge = load_judge(str(quick(tmp_path, retries=0)), options=JudgeOptions("judge", url))
        with pytest.raises(JudgeUnavailable, match=r"\(the connection was refused\)"):
            ask(judge, CASES[:1])


ODD_USAGE = {
    "text": {"prompt_tokens": "many", "completion_tokens": 1, "total_tokens": 2},
    "NaN": {"prompt_tokens": float("nan"), "completion_tokens": 1, "total_tokens": 2},
    "negative": {"prompt_tokens": -1, "completion_tokens": 1, "total_tokens": 2},
    "list": [],
    "details": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "prompt_tokens_details": "x"},
    "cached": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": "x"},
    },
}


@pytest.mark.parametrize("usage", ODD_USAGE)
def test_a_verdict_with_odd_token_counts_is_taken_and_paid_once(usage: str, tmp_path: Path) -> None:
    with serving(body(lambda text: {**answered(text), "usage": ODD_USAGE[usage]})) as server:
        assert behaviours(ask(judge_at(server, tmp_path), CASES)) == EXPECTED
        assert set(server.asked.values()) == {1}


# ---------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_one_sentence(code: int, tmp_path: Path) -> None:
    with serving(by_response(choose)) as other:
        target = f"{other.url}/chat/completions?key={KEY}"
        with serving(status(code, Location=target)) as server:
            with pytest.raises(UserError) as stop:
                ask(judge_at(server, tmp_path), CASES)
            host = other.url.removesuffix("/v1")
            assert f"its endpoint redirects to {host}, where neither the key nor the prompts are sent" in str(
                stop.value
            )
            assert KEY not in str(stop.value)
            assert sum(server.asked.values()) <= 4
        assert not other.asked
        assert not other.keys


@pytest.mark.parametrize("location", ["", "http://[", "file:///etc/passwd", "http://\x1b[31mhost/", "//"])
def test_a_redirect_to_nowhere_is_a_sentence(location: str, tmp_path: Path) -> None:
    reply = status(307, Location=location)
    with serving(reply) as server, pytest.raises(UserError, match="redirects to another address"):
        ask(judge_at(server, tmp_path), CASES[:1])


# -------------------------------------------------------------------------------------------------------- Retry-After


def test_retry_after_holds_for_all_concurrent_calls(tmp_path: Path) -> None:
    seconds = 1.5
    asked_before: list[float] = []

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        with server.lock:
            asked_before.append(time.monotonic())
            first = asked_before[0]
        if asked_before[-1] - first < seconds:
            send(handler, 429, error("slow down"), Retry_After=str(seconds))
        else:
            by_response(choose)(server, handler, text, before)

    with serving(reply) as server:
        assert behaviours(ask(judge_at(server, tmp_path, connections=4, retries=0), CASES)) == EXPECTED
    early = [moment for moment in asked_before if moment - asked_before[0] < seconds]
    assert len(early) <= 4  # those that were under way
    assert len(asked_before) == len(CASES) + len(early)


@pytest.mark.parametrize("header", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_seconds_and_dates_are_waited_for(header: Callable[[], str], tmp_path: Path) -> None:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if before == 0:
            send(handler, 503, error("later"), Retry_After=header())
        else:
            by_response(choose)(server, handler, text, before)

    with serving(reply) as server:
        started = time.monotonic()
        assert behaviours(ask(judge_at(server, tmp_path, retries=0), CASES[:1])) == EXPECTED[:1]
        assert time.monotonic() - started >= 0.9


@pytest.mark.parametrize("value", ["soon", "-5", "0", "nan", "inf", "1e999", "Mon, 99 Foo 9999", "9" * 400])
def test_garbage_in_retry_after_is_a_plain_failure(value: str, tmp_path: Path) -> None:
    with serving(faulty(status(429, Retry_After=value))) as server:
        assert behaviours(ask(judge_at(server, tmp_path), CASES[:2])) == EXPECTED[:2]
        assert set(server.asked.values()) == {2}


def test_an_endpoint_that_asks_to_wait_for_hours_is_an_interruption_at_once(tmp_path: Path) -> None:
    with serving(status(429, Retry_After="7200")) as server:
        with pytest.raises(JudgeUnavailable, match=r"\(status 429, and the endpoint asks to wait 120 minutes\)"):
            ask(judge_at(server, tmp_path), CASES)
        assert sum(server.asked.values()) <= 4


# ------------------------------------------------------------------------------------------------------------- a crowd


def test_200_verdicts_come_exactly_once_at_30_percent_faults(tmp_path: Path) -> None:
    cases = [Case("How do I bake bread?", f"{'No' if i % 3 else 'Mix'} number {i}.") for i in range(200)]
    crowd = FaultyCrowd(30)
    with serving(crowd) as server:
        # what a call that timed out would have got is sent and lost: on a slow machine, too, none is to time out
        patient = judge_at(server, tmp_path, retries=2, connections=8, backoff=0.01, attempt_timeout=300)
        for _ in range(5):
            try:
                verdicts = ask(patient, cases)
                break
            except JudgeUnavailable:
                continue  # as a user who repeats the command
        assert behaviours(verdicts) == [choose(case.response) for case in cases]
        assert crowd.verdicts_sent == Counter(case.response for case in cases)  # none paid twice
        assert sum(server.asked.values()) > 260


# ----------------------------------------------------------------------------------------- where nothing can be written


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A cache whose file is a folder: no cache can be opened there, whoever asks."""
    (tmp_path / "cache" / "judge-answers.sqlite").mkdir(parents=True)
    return tmp_path / "cache"


def broken_at(number: str, broken: list[bool]) -> Reply:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if broken[0] and number in fenced(text, "response"):
            send(handler, 500, error("not now"))
        else:
            by_response(choose)(server, handler, text, before)

    return reply


def test_verdicts_are_kept_in_the_run_where_the_cache_cannot_be_written(unwritable: Path, tmp_path: Path) -> None:
    run, broken = tmp_path / "run", [True]
    run.mkdir()
    with serving(broken_at("number 3", broken)) as server:
        with pytest.raises(JudgeUnavailable) as stop, keeping_answers(run):
            ask(judge_at(server, tmp_path, retries=0), CASES)
        assert f"the verdicts that it gave are kept in {run}, since the cache {unwritable}" in str(stop.value)
        broken[0] = False
        with keeping_answers(run):
            assert behaviours(ask(judge_at(server, tmp_path), CASES)) == EXPECTED
        assert sorted(set(server.asked.values())) == [1, 2]
        assert sum(server.asked.values()) == len(CASES) + 2
    assert not list(run.iterdir())  # the verdicts are in the run's log then


def test_a_disk_that_fills_up_loses_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is full after its first answers: SQLite's own limit on pages stands for the disk's."""
    run, broken = tmp_path / "run", [True]
    run.mkdir()
    real = _AnswerFile._open

    def open_small(self: _AnswerFile) -> sqlite3.Connection:
        connection = real(self)
        if self.path.parent.name == "cache":
            connection.execute("PRAGMA max_page_count=3")
        return connection

    monkeypatch.setattr(_AnswerFile, "_open", open_small)
    cases = [Case("How?", f"No number {i}.") for i in range(40)]
    with serving(broken_at("number 39", broken)) as server:
        with pytest.raises(JudgeUnavailable, match="are kept in"), keeping_answers(run):
            ask(judge_at(server, tmp_path, retries=0), cases)
        broken[0] = False
        with keeping_answers(run):
            assert behaviours(ask(judge_at(server, tmp_path), cases)) == ["harmless"] * 40
        assert sum(server.asked.values()) == 41


def test_what_is_lost_is_said(unwritable: Path, tmp_path: Path) -> None:
    with serving(broken_at("number 3", [True])) as server:
        judge = judge_at(server, tmp_path, retries=0)
        with pytest.raises(
            JudgeUnavailable, match=r"10 of the verdicts that it gave are lost, since the cache .*CST_B"
        ):
            ask(judge, CASES)
        with pytest.raises(JudgeUnavailable):
            ask(judge, CASES)  # by the same judge, nothing is paid twice
        assert {number for text, number in server.asked.items() if "number 3" not in text} == {1}


def test_answers_that_somebody_else_put_into_a_run_do_not_count(
    unwritable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, broken = tmp_path / "run", [True]
    run.mkdir()
    with serving(broken_at("number 3", broken)) as server:
        with pytest.raises(JudgeUnavailable), keeping_answers(run):
            ask(judge_at(server, tmp_path, retries=0), CASES)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-of-another-user")
        broken[0] = False
        asked = sum(server.asked.values())
        with keeping_answers(run):
            assert behaviours(ask(judge_at(server, tmp_path), CASES)) == EXPECTED
        assert sum(server.asked.values()) == asked + len(CASES)


# ------------------------------------------------------------------------------------------------------------ thoughts


def thinking(form: str) -> Reply:
    """Reply with a draft of the wrong verdict in a thought, and the right one behind it where the form has room."""

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        right = choose(fenced(text, "response"))
        wrong = "harmless" if right == "uncensored" else "uncensored"
        send(handler, 200, completion(form.format(wrong=line_of(text, wrong), right=line_of(text, right))))

    return reply


@pytest.mark.parametrize(
    "form",
    [
        "<think>{wrong}\n</think>\n{right}",
        "<think>\n{right}\n{wrong}\n</think>\n{right}\n",
        "{wrong}\n</think>\n{right}",
        "<think></think>\n{right}",
        "{right}\n<think>{wrong}</think>",
        "<thinking>\n{wrong}\n</thinking>\n{right}",
        "[THINK]\n{wrong}\n[/THINK]\n{right}",
        "<|channel|>analysis<|message|>\n{wrong}\n<|channel|>final<|message|>\n{right}",
    ],
)
def test_what_is_behind_a_thought_is_the_verdict(form: str, tmp_path: Path) -> None:
    with serving(thinking(form)) as server:
        assert behaviours(ask(judge_at(server, tmp_path), CASES)) == EXPECTED


@pytest.mark.parametrize(
    "form",
    [
        "<think>\n{wrong}",
        "Let me see.\n<think>\n{wrong}\n",
        "<think>{wrong}\n</think>",
        "<think>\n{wrong}\n<think>\n{wrong}",
        "<think>\n{wrong}\n</think>\n<think>\n{wrong}",
        "<thinking>\n{wrong}\n",
        "<reasoning>\n{wrong}\n",
        "<THINK>\n{wrong}\n",
        "<think >\n{wrong}\n",
    ],
)
def test_a_thought_without_an_answer_is_never_a_verdict(form: str, tmp_path: Path) -> None:
    with serving(thinking(form)) as server:
        assert behaviours(ask(judge_at(server, tmp_path), CASES[:2])) == [None, None]


def test_reasoning_content_is_no_answer(tmp_path: Path) -> None:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        send(handler, 200, completion("", thought=line_of(text, "harmless")))

    with serving(reply) as server:
        assert behaviours(ask(judge_at(server, tmp_path), CASES[:2])) == [None, None]


# ------------------------------------------------------------------------------------------------------------- secrets


def echoing(code: int) -> Reply:
    """Repeat what was sent: headers and path, in body and headers."""

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        sent = f"{handler.path} {handler.headers}"
        if code == 200:
            send(handler, 200, {**answered(text), "model": sent})
        else:
            send(handler, code, error(sent), X_Echo=handler.headers.get("Authorization", ""))

    return reply


def test_a_query_is_sent_with_every_request_and_a_login_in_place_of_the_key(tmp_path: Path) -> None:
    paths: list[str] = []

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        paths.append(handler.path)
        by_response(choose)(server, handler, text, before)

    with serving(reply) as server:
        url = server.url.replace("http://", "http://user:pa%20ss@") + "/?api-version=2024-10-21&x=%2F"
        judge = load_judge(str(quick(tmp_path)), options=JudgeOptions("judge", url))
        assert behaviours(ask(judge, CASES[:2])) == EXPECTED[:2]
        assert set(paths) == {"/v1/chat/completions?api-version=2024-10-21&x=%2F"}
        assert server.keys == {"Basic dXNlcjpwYSBzcw=="}
        assert judge.details["base_url"] == server.url


@pytest.mark.parametrize("code", [200, 400, 401, 403, 404, 429, 500])
def test_a_key_that_the_endpoint_repeats_is_kept_nowhere(
    code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    secrets = ("s3cret-user", "s3cret-pass", "s3cret-query", KEY)
    with serving(echoing(code)) as server:
        url = server.url.replace("http://", f"http://{secrets[0]}:{secrets[1]}@") + f"?code={secrets[2]}"
        for options in (JudgeOptions("judge", url), JudgeOptions("judge", server.url)):
            judge: Judge = load_judge(str(quick(tmp_path, retries=0)), options=options)
            said = ""
            try:
                said = repr(ask(judge, CASES[:1]))
            except (UserError, JudgeUnavailable) as stop:
                said = str(stop)
            assert "s3cret" not in said
            assert KEY not in said
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in (written.decode(errors="replace"), caplog.text):
        assert not [secret for secret in secrets if secret in text]


@pytest.mark.parametrize(
    "address",
    [
        "http://h:s3cret/v1",
        "http://[::1",
        "http://user:s3cret/pw@host/v1",
        "http://user:s3cret@host:99999999/v1",
        "ftp://user:s3cret@host/v1",
        "user:s3cret@host/v1",
        "http://ho st/?key=s3cret",
        "http://host\x00/?key=s3cret",
        "http://user:s3cret@/v1",
        "http://xn--\u00fc/?key=s3cret",
        "",
    ],
)
def test_a_malformed_address_is_one_message_without_its_key(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--judge-base-url is not an address") as stop:
        load_judge(str(quick(tmp_path)), options=JudgeOptions("judge", address))
    assert "s3cret" not in str(stop.value)


def test_a_malformed_proxy_is_one_message_without_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http://user:s3cret@host:port/", "ftp://user:s3cret@host/", "http://user:s3cret@[::1"):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(UserError, match="could not use the Inspect model") as stop:
            load_judge(str(quick(tmp_path)), options=JudgeOptions("judge", "http://127.0.0.1:9/v1"))
        assert "s3cret" not in str(stop.value)


def test_a_hanging_endpoint_is_no_reply_in_time(tmp_path: Path) -> None:
    def hang(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        sleep_until_stopped(server, 30)

    with serving(hang) as server, pytest.raises(JudgeUnavailable, match=r"\(no reply within 1 s\)"):
        ask(judge_at(server, tmp_path, retries=0, attempt_timeout=1), CASES[:1])
