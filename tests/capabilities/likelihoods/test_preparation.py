"""Templates compiled once and texts encoded once change nothing but the time it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from benchmarks.comparison import compare
from cst_bench.capabilities.likelihoods import compiled_templates
from cst_bench.capabilities.likelihoods.preparation import EncodedTexts, encode_all, texts_of
from tests.checkpoints import family_tokenizer


def test_templates_are_compiled_once_and_lm_eval_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.utils as lm_eval_utils

    compilations: list[object] = []
    compiling, applying = SandboxedEnvironment.from_string, lm_eval_utils.apply_template

    def from_string(self: SandboxedEnvironment, template: str) -> object:
        compilations.append(template)
        return compiling(self, template)

    monkeypatch.setattr(SandboxedEnvironment, "from_string", from_string)
    with compiled_templates():
        rendered = [
            lm_eval_utils.apply_template("{{a}}-{{b | regex_replace('x', 'y')}}\n", {"a": i, "b": "x"}) for i in (1, 2)
        ]
    assert rendered == ["1-y\n", "2-y\n"]
    assert len(compilations) == 1
    assert lm_eval_utils.apply_template is applying


def test_templates_can_only_read() -> None:
    import lm_eval.utils as lm_eval_utils

    with pytest.raises(SecurityError), compiled_templates():
        lm_eval_utils.apply_template("{{ a.__class__.__mro__[1].__subclasses__() }}", {"a": "x"})


def test_lm_eval_is_left_as_it_was_after_an_error() -> None:
    import lm_eval.utils as lm_eval_utils

    applying = lm_eval_utils.apply_template
    with pytest.raises(KeyError), compiled_templates():
        raise KeyError
    assert lm_eval_utils.apply_template is applying


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma"])
@pytest.mark.parametrize("special", [{}, {"add_special_tokens": True}, {"add_special_tokens": False}])
def test_texts_are_encoded_together_as_they_are_alone(family: str, special: dict[str, bool]) -> None:
    tokenizer = family_tokenizer(family)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["a", "longer than the other"], padding=True, truncation=True, max_length=3)  # changes its settings
    texts = ["What colour is the harbour?", "Hello! ", " a\n\nb", "<s>Hello", "ö 水"]
    encoded = EncodedTexts(encode_all(tokenizer, texts, **special))
    assert [encoded.get(text) for text in texts] == [tokenizer.encode(text, **special) for text in texts]
    assert encoded.get("another") is None


def test_each_distinct_text_is_encoded_once() -> None:
    pairs = [("Name a bird. ", "gull"), ("Name a bird. ", "swan"), ("Name a bird.", " gull"), ("", "alone")]
    assert texts_of(pairs) == ["Name a bird.", "Name a bird. gull", "Name a bird. swan"]


@pytest.mark.slow
def test_lm_evals_command_line_knows_the_model(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cst_bench.capabilities.likelihoods.__main__ import main

    (tmp_path / "boats.jsonl").write_text(
        '{"question": "Name a bird.", "choices": ["gull", "boat"], "answer": 0}\n' * 3
    )
    (tmp_path / "boats.yaml").write_text(
        f"task: boats\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/boats.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: choices\n"
        "doc_to_target: answer\nmetric_list: [{metric: acc}]\n"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    arguments = (
        f"run --model cst-hf --model_args pretrained={llama} --device cpu --tasks boats --include_path {tmp_path}"
    )
    monkeypatch.setattr("sys.argv", ["lm-eval", *arguments.split()])
    main()
    printed = capsys.readouterr().out
    assert "cst-hf" in printed
    assert "|boats|" in printed


def test_comparison_counts_flips_by_question() -> None:
    ours = [(-1.0, True), (-2.0, False), (-3.0, False), (-1.0, False)]
    theirs = [(-1.5, True), (-1.0, True), (-3.0, False), (-1.0, False)]
    result = compare(ours, theirs, [2, 2])
    assert (result.max_abs_diff, result.greedy_mismatches, result.flip_rate) == (1.0, 1, 0.5)
    assert compare(ours, theirs).flip_rate is None
    with pytest.raises(ValueError, match="4 with 4"):
        compare(ours, theirs, [3])
