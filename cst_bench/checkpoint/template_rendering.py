"""Render chat templates, which are programs by strangers, with bounds on time, memory and output.

Jinja's sandbox keeps a template away from files and Python, but not from endless loops or `'x' * 10**10`, and no
thread can be stopped from outside. So a process of its own renders, with the very function that transformers uses; it
is started once, and again after a template that it did not survive.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 10.0
"""Most time for one conversation, which takes a millisecond: it is long for a template, whatever else runs."""
_WORKER = Path(__file__).with_name("template_worker.py")


class TemplateError(UserError):
    """A chat template that cannot render a conversation."""

    def __init__(self, reason: str, checkpoint: str = "a checkpoint") -> None:
        """Make the error for a reason; `checkpoint` names whose template it is."""
        super().__init__(f"the chat template of {checkpoint} failed: {reason}")
        self.reason = reason


class TemplateRenderer:
    """The process that renders, and how to talk to it. Any thread may call it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Make a renderer; the process is started by the first call.

        Args:
            seconds: Most time for one conversation.
        """
        self._seconds = seconds
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def render(
        self,
        template: str,
        messages: Sequence[Mapping[str, str]],
        variables: Mapping[str, object],
        *,
        generation_prompt: bool,
    ) -> str:
        """Render a conversation.

        Args:
            template: The chat template.
            messages: The conversation.
            variables: Further variables of the template, as JSON values.
            generation_prompt: Open the assistant's turn at the end.

        Raises:
            TemplateError: the template refuses the conversation, has a fault, or takes too long or too much.
        """
        request = {
            "template": template,
            "messages": [dict(message) for message in messages],
            "variables": dict(variables),
            "generation_prompt": generation_prompt,
        }
        with self._lock:
            answer = self._ask(json.dumps(request))
        if answer is None:
            raise TemplateError(f"it was stopped: it takes more than {self._seconds:g} s, or too much memory")
        if "error" in answer:
            raise TemplateError(answer["error"])
        return answer["text"]

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, request: str) -> dict[str, str] | None:
        """Return the answer to a request; None if the process ended without one."""
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:  # an interrupt leaves an answer that nobody has read
            self.close()
            raise
        if not line.endswith("\n"):
            self.close()
            return None
        answer: dict[str, str] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603  (the project's own script)
            [sys.executable, "-P", str(_WORKER), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C is for this process, whose end ends the other one
        )


@lru_cache
def _renderer(process: int) -> TemplateRenderer:
    """Return the renderer of a process: a forked one must not talk over its parent's pipes."""
    renderer = TemplateRenderer()
    atexit.register(renderer.close)
    return renderer


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    generation_prompt: bool,
    **variables: object,
) -> str:
    """Return what a tokenizer's chat template makes of a conversation, as its `apply_chat_template` does.

    A tokenizer with an `apply_chat_template` of its own, which is code and no template, is called itself.

    Raises:
        TemplateError: the template refuses the conversation, has a fault, or takes too long or too much.
    """
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=generation_prompt,
            tokenize=False,
            **variables,
        )
        return text
    known = {**tokenizer.special_tokens_map, **variables}
    try:
        template = tokenizer.get_chat_template()
        return _renderer(os.getpid()).render(template, messages, known, generation_prompt=generation_prompt)
    except TemplateError as error:
        raise TemplateError(error.reason, tokenizer.name_or_path) from None
    except ValueError as error:
        raise TemplateError(" ".join(str(error).split()), tokenizer.name_or_path) from None
