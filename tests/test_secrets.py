"""Keys of the environment and logins in addresses are kept out of messages, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cst_bench.secrets import redact
from tests.cli.invoke import invoke


def test_keys_and_logins_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-a-key")
    monkeypatch.setenv("HF_TOKEN", "hf_a_token")
    monkeypatch.setenv("LONGER_API_KEY", "sk-a-key-that-is-longer")
    monkeypatch.setenv("WEB_TOKEN", "x" * 5000)
    assert redact("x" * 5000) == "[removed]"
    text = "sk-a-key, hf_a_token and sk-a-key-that-is-longer at http://user:pass@host:1/v1 and ftp://a@b@c/"
    assert redact(text) == "[removed], [removed] and [removed] at http://[removed]@host:1/v1 and ftp://[removed]@c/"


def test_other_text_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.setenv("SHORT_KEY", "none")
    text = f"{tmp_path}: none of http://host/a@b?c@d, me@host; see org/name@main"
    assert redact(text) == text


def test_an_error_of_the_command_line_has_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-that-is-secret")
    outcome = invoke(capsys, monkeypatch, "report", "./sk-a-key-that-is-secret\x1b]0;title")
    assert outcome.status == 2
    assert "sk-a-key" not in outcome.err
    assert "\x1b]0;" not in outcome.err
