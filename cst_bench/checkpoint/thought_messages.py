"""Thoughts in Inspect's messages: `ContentReasoning` beside the answer's text, which is all that a judge is shown."""

from __future__ import annotations

from inspect_ai.model import ChatMessageAssistant, Content, ContentReasoning, ContentText, ModelOutput

from cst_bench.checkpoint.thoughts import CUT_OFF_THOUGHT, ONLY_THOUGHTS, SplitText, ThinkTokens, split_thoughts


def message_content(split: SplitText) -> str | list[Content]:
    """Return a response as the content of a message; only the answer's text if it has no thoughts."""
    if not split.thoughts and not split.unfinished:
        return split.answer
    thoughts = split.thoughts or ("",)
    return [*(ContentReasoning(reasoning=thought) for thought in thoughts), ContentText(text=split.answer)]


def split_output(output: ModelOutput, tokens: ThinkTokens) -> None:
    """Split thoughts off the text of an output that has them in it, as one of an API may."""
    for choice in output.choices:
        message = choice.message
        split = split_thoughts(message.text, tokens)
        if split.answer == message.text:
            continue
        before = [] if isinstance(message.content, str) else [part for part in message.content if part.type != "text"]
        content = message_content(split)
        message.content = [*before, *([ContentText(text=content)] if isinstance(content, str) else content)]
    output.completion = output.choices[0].message.text if output.choices else output.completion


def has_thoughts(message: ChatMessageAssistant) -> bool:
    """Return whether a message has thoughts beside its text."""
    return not isinstance(message.content, str) and any(part.type == "reasoning" for part in message.content)


def missing_answer(output: ModelOutput) -> str | None:
    """Return why an output that has thoughts has no answer; None if it has one, or no thoughts."""
    if not output.choices or output.completion.strip() or not has_thoughts(output.choices[0].message):
        return None
    return CUT_OFF_THOUGHT if output.stop_reason in ("max_tokens", "model_length") else ONLY_THOUGHTS
