from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_chat
from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.checkpoint.gate import _PREFIX, Check, require, run_gate
from cst_bench.checkpoint.options import SystemAs
from cst_bench.checkpoint.thoughts import find_think_tokens
from cst_bench.errors import GateError
from tests.checkpoints import CHATML, TokenizerKind, make_tokenizer

CHATML_TOKENS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")

LLAMA_3 = """\
{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + \
'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

# thinks: the answer is preceded by an empty thought, which the generation prompt doesn't write
QWEN_3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

QWEN_25 = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

# puts the system prompt into the last message, if that is the user's: an answer after it makes it vanish
MISTRAL_03 = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}"""

SOLAR = """\
{% for message in messages %}{% if message['role'] == 'system' %}{% if message['content']%}\
{{'### System:\n' + message['content']+'\n\n'}}{% endif %}{% elif message['role'] == 'user' %}\
{{'### User:\n' + message['content']+'\n\n'}}{% elif message['role'] == 'assistant' %}\
{{'### Assistant:\n'  + message['content']}}{% endif %}\
{% if loop.last and add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}{% endfor %}"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

# without a generation prompt it ends the whole text, which is not how a prompt begins
PHI_3 = """\
{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}\
{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}\
{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

# an answer stands in a channel of its own: special tokens before it, another one after it
HARMONY = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' -}}
{%- else -%}
{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""


def chat_with(
    template: str | None,
    *,
    specials: Sequence[str] = CHATML_TOKENS,
    eos: str = "<|im_end|>",
    bos: str | None = "<s>",
    stops: Sequence[str] | None = None,
    system_as: SystemAs = "system",
    **tokenizer: Any,
) -> Chat:
    made = make_tokenizer(specials, template=template, eos=eos, bos=bos, **tokenizer)
    ids = made.convert_tokens_to_ids([eos] if stops is None else list(stops))
    return Chat(made, frozenset(ids), system_as)


def check(chat: Chat, name: str) -> Check:
    """Return the check of that name, after checking that `require` reports it if it failed."""
    checks = run_gate(chat)
    result = next(check for check in checks if check.name == name)
    if result.state == "failed":
        assert result.fix
        with pytest.raises(GateError, match="the chat template of this-model would make every score wrong") as raised:
            require(checks, "this-model")
        assert result.detail in str(raised.value)
        assert result.fix in str(raised.value)
    return result


def states(chat: Chat) -> dict[str, str]:
    return {check.name: check.state for check in run_gate(chat) if check.state != "ok"}


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gemma", "gpt_neox", "mamba", "adapter"])
def test_sound_templates_pass(loaded: dict[str, Checkpoint], name: str) -> None:
    checks = run_gate(loaded[name].chat)
    plain_turns = name == "gpt_neox"  # "User:" and "Assistant:" are no tokens
    assert [check.state for check in checks] == ["ok"] * 6 + ["warning" if plain_turns else "ok"]
    require(checks, name)


REAL = {
    "llama-3": chat_with(
        LLAMA_3,
        specials=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        plain_text_bos=True,
    ),
    "qwen-2.5": chat_with(QWEN_25, specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), bos=None),
    "qwen-3": chat_with(
        QWEN_3,
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos=None,
        not_special=("<think>", "</think>"),
    ),
    "smollm-2": chat_with(CHATML, specials=("<|im_start|>", "<|im_end|>"), bos="<|im_start|>"),
    "chatml, turn tokens not special": chat_with(
        CHATML, specials=("<s>", "</s>"), eos="</s>", stops=["</s>", "<|im_end|>"], not_special=("<|im_end|>",)
    ),
    "zephyr": chat_with(ZEPHYR, specials=("<unk>", "<s>", "</s>"), eos="</s>", kind="pieces"),
    "phi-3": chat_with(
        PHI_3,
        specials=("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        eos="<|endoftext|>",
        stops=["<|endoftext|>", "<|end|>"],
    ),
    "llama-2": chat_with(LLAMA_2, specials=("<unk>", "<s>", "</s>"), eos="</s>", kind="pieces", plain_text_bos=True),
    "gpt-oss": chat_with(
        HARMONY,
        specials=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|endoftext|>"),
        bos=None,
        eos="<|return|>",
    ),
    "mistral-v0.3, system prompt before the user's text": chat_with(
        MISTRAL_03,
        specials=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        eos="</s>",
        kind="pieces",
        plain_text_bos=True,
        system_as="user-prefix",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_templates_of_well_known_models_pass(name: str) -> None:
    warned = {"qwen-3": "assistant turn", "gpt-oss": "assistant turn", "llama-2": "control tokens"}.get(name)
    assert states(REAL[name]) == ({warned: "warning"} if warned else {})


@pytest.mark.parametrize(("name", "thought"), [("qwen-3", "<think>"), ("gpt-oss", "<|channel|>final<|message|>")])
def test_a_thought_before_the_answer_is_a_warning(name: str, thought: str) -> None:
    assert thought in check(REAL[name], "assistant turn").detail


@pytest.mark.parametrize("name", REAL)
def test_markers_of_thoughts_are_found_in_well_known_templates_that_have_them(name: str) -> None:
    found = find_think_tokens(REAL[name].tokenizer)
    known = {"qwen-3": "<think>", "gpt-oss": "<|channel|>analysis<|message|>"}
    assert (found and found.open) == known.get(name)
    if found is not None:
        marked = replace(REAL[name], think_tokens=found)
        assert check(marked, "thoughts").state == "ok"
        assert states(marked) == states(REAL[name])


def test_gpt_oss_thinks_in_channels() -> None:
    chat = replace(REAL["gpt-oss"], think_tokens=find_think_tokens(REAL["gpt-oss"].tokenizer))
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    answer = "<|channel|>final<|message|>It is blue."
    for text, thoughts in ((thought + answer, 1), (answer, 0)):
        split = chat.response(chat.tokenizer(text, add_special_tokens=False)["input_ids"])
        assert (split.answer, len(split.thoughts), split.unfinished) == ("It is blue.", thoughts, False)
    assert chat.response(chat.tokenizer(thought, add_special_tokens=False)["input_ids"]).unfinished


def test_a_template_that_reads_the_clock_is_a_warning() -> None:
    """Llama 3.2's writes today's date, where the renderer has a clock; 3.1's writes always the same."""
    today = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    assert states(chat_with(today)) == {"date": "warning"}
    assert "from day to day" in check(chat_with(today), "date").detail


def test_mistral_v03_trains_without_the_system_prompt_that_it_is_evaluated_with() -> None:
    chat = chat_with(MISTRAL_03, specials=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), eos="</s>", kind="pieces")
    result = check(chat, "training prefix")
    assert result.state == "failed"
    assert "--system-as user-prefix" in result.fix


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_solar_ends_no_turn_which_is_a_warning(kind: TokenizerKind) -> None:
    chat = chat_with(SOLAR, specials=("<unk>", "<s>", "</s>"), eos="</s>", kind=kind)
    result = check(chat, "end of turn")
    assert states(chat) == {"end of turn": "warning", "control tokens": "warning"}
    assert "'</s>'" in result.detail
    require(run_gate(chat), "solar")


def test_two_bos_fail() -> None:
    result = check(chat_with("{{ bos_token }}{{ bos_token }}" + CHATML), "BOS")
    assert result.state == "failed"
    assert "2 BOS tokens (<s>)" in result.detail


def test_a_bos_for_each_message_fails() -> None:
    assert check(chat_with(CHATML.replace("%}<|im_start|>{{", "%}<s><|im_start|>{{", 1)), "BOS").state == "failed"


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>"])
def test_two_bos_at_the_start_fail_even_where_bos_is_also_a_turn_token(token: str) -> None:
    specials = ("<|im_start|>", "<|im_end|>")
    start = "{{ bos_token }}" if token == "<|im_start|>" else "{{ bos_token }}{{ bos_token }}"
    assert check(chat_with(start + CHATML, specials=specials, bos=token), "BOS").state == "failed"


def test_no_bos_is_a_warning_where_plain_text_gets_one() -> None:
    result = check(chat_with(CHATML, plain_text_bos=True), "BOS")
    assert result.state == "warning"
    assert "leaves out <s>" in result.detail


def test_a_dropped_system_role_fails_and_user_prefix_cures_it() -> None:
    drops = "{% for message in messages %}{% if message['role'] != 'system' %}" + CHATML.partition("%}")[2]
    drops = drops.replace("{% endfor %}", "{% endif %}{% endfor %}", 1)
    result = check(chat_with(drops), "system prompt")
    assert result.state == "failed"
    assert result.detail == "the template drops the system prompt"
    assert "--system-as user-prefix" in result.fix
    assert states(chat_with(drops, system_as="user-prefix")) == {}


def test_a_refused_system_role_fails_and_user_prefix_cures_it(folders: dict[str, Path]) -> None:
    files = find_checkpoint(CheckpointOptions(name=str(folders["gemma"])))
    result = check(load_chat(files), "chat template")
    assert result.state == "failed"
    assert "System role not supported" in result.detail
    assert "--system-as user-prefix" in result.fix
    cured = find_checkpoint(CheckpointOptions(name=str(folders["gemma"]), system_as="user-prefix"))
    assert states(load_chat(cured)) == {}


def test_no_chat_template_fails_and_a_file_cures_it(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("llama")
    (folder / "chat_template.jinja").unlink()
    result = check(load_chat(find_checkpoint(CheckpointOptions(name=str(folder)))), "chat template")
    assert result.detail == "the tokenizer has no chat template"
    assert "--chat-template" in result.fix
    (tmp_path / "mine.jinja").write_text(CHATML)
    cured = CheckpointOptions(name=str(folder), chat_template=str(tmp_path / "mine.jinja"))
    assert states(load_chat(find_checkpoint(cured))) == {}


@pytest.mark.parametrize("template", ["{% for message in messages %}{{ message.content }}", "{{ mesages[0].content }}"])
def test_a_template_that_cannot_be_rendered_fails_and_is_not_sent_to_user_prefix(template: str) -> None:
    result = check(chat_with(template), "chat template")
    assert result.state == "failed"
    assert "user-prefix" not in result.fix
    assert "--chat-template" in result.fix


def test_a_template_that_renders_nothing_fails() -> None:
    for bos in ("<s>", "<|im_end|>", None):
        assert states(chat_with("{# nothing #}", bos=bos))["system prompt"] == "failed"


def test_a_template_with_a_system_prompt_of_its_own_fails() -> None:
    stubborn = "<|im_start|>system\nYou are brief.<|im_end|>\n" + CHATML.replace(
        "in messages %}", "in messages if message['role'] != 'system' %}"
    )
    assert check(chat_with(stubborn), "system prompt").state == "failed"


def test_a_template_that_cuts_the_system_prompt_short_fails() -> None:
    assert check(chat_with(CHATML.replace("['content']", "['content'][:20]")), "system prompt").state == "failed"


def test_a_template_that_drops_the_answer_fails() -> None:
    mute = CHATML.replace("in messages %}", "in messages if message['role'] != 'assistant' %}")
    assert check(chat_with(mute), "end of turn").detail == "the template drops the answer"


def test_a_generation_prompt_that_changes_what_is_before_it_fails() -> None:
    assert check(chat_with("{% if add_generation_prompt %}Answer.\n{% endif %}" + CHATML), _PREFIX).state == "failed"


def test_an_end_of_turn_that_is_no_token_is_a_warning() -> None:
    """ChatML put on a tokenizer that was never given its tokens: nothing stops at `<|im_end|>`."""
    result = check(chat_with(CHATML, specials=("<s>", "</s>"), eos="</s>"), "end of turn")
    assert result.state == "warning"
    assert result.detail == "the template writes '<|im_end|>', which is not a single token; generation relies on '</s>'"


def test_a_template_that_needs_a_system_prompt_is_not_sent_to_user_prefix() -> None:
    needs = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('No system prompt') }}{% endif %}" + CHATML
    result = check(chat_with(needs.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")), _PREFIX)
    assert result.state == "failed"
    assert "user-prefix" not in result.fix


def test_generation_past_the_end_of_turn_fails_and_a_stop_token_cures_it(copy_of: Callable[[str], Path]) -> None:
    """Llama 3's first release: its generation config stopped at the end of text only."""
    folder = copy_of("gemma")
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    options = CheckpointOptions(name=str(folder), system_as="user-prefix")
    result = check(load_chat(find_checkpoint(options)), "end of turn")
    assert result.state == "failed"
    assert result.fix == "pass --stop-token '<end_of_turn>'"
    cured = CheckpointOptions(name=str(folder), system_as="user-prefix", stop_token=("<end_of_turn>",))
    assert states(load_chat(find_checkpoint(cured))) == {}


@pytest.mark.parametrize("special", [True, False])
def test_an_end_of_turn_that_is_only_an_added_token_is_seen(special: bool) -> None:
    """Llama 3 and Phi 3 list theirs as added tokens, not among the tokenizer's special tokens by name."""
    from tokenizers import AddedToken

    chat = chat_with(PHI_3, specials=("<s>", "<|endoftext|>"), eos="<|endoftext|>")
    chat.tokenizer._tokenizer.add_tokens([AddedToken("<|end|>", special=special, normalized=False)])
    result = check(chat, "end of turn")
    assert result.state == "failed"
    assert result.fix == "pass --stop-token '<|end|>'"


def test_no_stop_token_at_all_fails() -> None:
    chat = chat_with(SOLAR, specials=("<s>", "</s>"), eos="</s>", stops=[])
    assert check(chat, "end of turn").state == "failed"


def test_a_training_prefix_unlike_the_evaluation_prefix_fails() -> None:
    thinks = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    result = check(chat_with(thinks), "training prefix")
    assert result.state == "failed"
    assert "differs from the evaluation prefix at token" in result.detail
    assert "user-prefix" not in result.fix


def test_a_turn_opened_twice_by_the_generation_prompt_fails() -> None:
    twice = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<|im_start|>assistant\n")
    result = check(chat_with(twice), "assistant turn")
    assert result.detail == "opened twice"


def test_a_turn_opened_after_the_user_and_again_by_the_generation_prompt_fails() -> None:
    opens = CHATML.replace("{% endfor %}", "{% endfor %}<|im_start|>assistant\n", 1)
    result = check(chat_with(opens), "assistant turn")
    assert result.detail == "opened twice"


def test_a_turn_that_is_never_opened_fails() -> None:
    result = check(chat_with(CHATML.partition("{% if add_generation_prompt %}")[0]), "assistant turn")
    assert result.state == "failed"
    assert "never opened" in result.detail
    assert "<|im_start|>assistant" in result.detail


def test_user_prefix_keeps_the_system_prompt_even_without_a_user_turn() -> None:
    chat = chat_with(CHATML, system_as="user-prefix")
    system = {"role": "system", "content": "Be brief."}
    assert chat.arranged([system]) == [{"role": "user", "content": "Be brief."}]
    assert chat.arranged(conversation("Be brief.", "Hi")) == [{"role": "user", "content": "Be brief.\n\nHi"}]
    answer = {"role": "assistant", "content": "Hi"}
    assert chat.arranged([system, answer]) == [{"role": "user", "content": "Be brief."}, answer]
    assert chat.arranged(conversation(None, "Hi")) == conversation(None, "Hi")
