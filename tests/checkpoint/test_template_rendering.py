"""Chat templates are programs by strangers: they render as transformers does it, in bounded time, memory and space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cst_bench.checkpoint.template_rendering import TemplateError, TemplateRenderer, render_chat
from tests.checkpoints import CHATML, FAMILIES, family_tokenizer
from tests.cli.invoke import invoke

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello “é” <|im_end|> {{ 1 }}"}]

HOSTILE = {
    "{{ 'x' * 10**7 }}": "writes 10,000,000 characters",
    "{{ 'x' * 10**12 }}": "too much memory",
    "{{ 'x'.center(10**12) }}": "too much memory",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "calls itself without end",
    "{{ 1 // 0 }}": "by zero",
    "{{ messages[7].content.x }}": "no element 7",
    "{{ raise_exception('no system role') }}": "no system role",
    "{% for n in range(10**9) %}{% endfor %}": "Range too big",
    "{{ '\\ud800' }}": "surrogates not allowed",
    "{% if": "unexpected",
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    """A renderer that is shared, so that each test shows that the ones before left it working."""
    renderer = TemplateRenderer()
    yield renderer
    renderer.close()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_a_template_renders_as_transformers_renders_it(family: str, generation_prompt: bool) -> None:
    tokenizer = family_tokenizer(family)
    messages = MESSAGES[1:] if family == "gemma" else MESSAGES
    assert render_chat(tokenizer, messages, generation_prompt=generation_prompt) == tokenizer.apply_chat_template(
        messages, add_generation_prompt=generation_prompt, tokenize=False
    )


@pytest.mark.parametrize(("template", "reason"), HOSTILE.items())
def test_a_hostile_template_is_one_message(renderer: TemplateRenderer, template: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason) as caught:
        renderer.render(template, MESSAGES, {}, generation_prompt=True)
    assert "\n" not in str(caught.value)
    assert renderer.render("{{ messages[0].content }}", MESSAGES, {}, generation_prompt=True) == "Be brief."


def test_a_template_without_end_is_stopped_and_the_next_one_renders() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    renderer = TemplateRenderer(seconds=0.2)
    with pytest.raises(TemplateError, match=r"takes more than 0\.2 s"):
        renderer.render(endless, MESSAGES, {}, generation_prompt=True)
    with pytest.raises(TemplateError, match=r"takes more than 0\.2 s"):  # a new process was started
        renderer.render(endless, MESSAGES, {}, generation_prompt=True)
    renderer.close()


def test_the_end_of_a_hostile_template_depends_on_the_prompt_and_is_one_message(renderer: TemplateRenderer) -> None:
    template = "{% if 'bomb' in messages[1].content %}{{ 'x' * 10**12 }}{% endif %}ok"
    assert renderer.render(template, MESSAGES, {}, generation_prompt=True) == "ok"
    with pytest.raises(TemplateError, match="too much memory"):
        renderer.render(template, [MESSAGES[0], {"role": "user", "content": "bomb"}], {}, generation_prompt=True)


def test_long_messages_render_whole(renderer: TemplateRenderer) -> None:
    long = [{"role": "user", "content": "word " * 400_000}]
    text = renderer.render(CHATML, long, {}, generation_prompt=False)
    assert text == f"<|im_start|>user\n{long[0]['content']}<|im_end|>\n"


@pytest.mark.parametrize("template", ["{{ 'x' * 10**7 }}", "{{ 1 // 0 }}"])
def test_the_gate_refuses_a_hostile_template(
    template: str,
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "hostile.jinja").write_text(template)
    done = invoke(capsys, monkeypatch, "doctor", str(llama), "--chat-template", str(tmp_path / "hostile.jinja"))
    assert done.status == 2
    assert "--chat-template FILE.jinja" in done.err
    assert "Traceback" not in done.err
