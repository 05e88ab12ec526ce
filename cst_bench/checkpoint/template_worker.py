"""Program that renders chat templates, in a process of its own: `template_rendering` starts it and talks to it.

A request is a line of JSON on standard input, the answer a line of JSON on standard output: `{"text": …}`, or
`{"error": …}`. A template that renders for too long ends the process. The file imports nothing of `cst_bench`, so that
it can be run by its path.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

MAX_CHARACTERS = 1_000_000
"""Most characters of a rendered text, beside those of the messages."""
MAX_MEMORY = 2 * 2**30
"""Bytes of address space beyond those after start, where the system can limit it."""


def main(seconds: float) -> None:
    """Answer requests until the input ends; exit with status 1 where one takes longer than `seconds`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (kept for the watchdog, which writes a traceback)
    sys.stdout = sys.stderr
    _limit_memory()
    for line in sys.stdin.buffer:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        answer = _answer(render_jinja_template, json.loads(line))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers, flush=True)


def _answer(render: Any, request: dict[str, Any]) -> dict[str, str]:
    given = sum(len(text) for message in request["messages"] for text in message.values())
    try:
        texts, _ = render(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["generation_prompt"],
            **request["variables"],
        )
        texts[0].encode()  # half of a character cannot be tokenized
    except MemoryError:
        return {"error": "it needs too much memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # noqa: BLE001 (a template is a program, which can raise anything)
        return {"error": " ".join(str(error).split())[:1000] or type(error).__name__}
    if len(texts[0]) > MAX_CHARACTERS + 2 * given:
        return {"error": f"it writes {len(texts[0]):,} characters for {given:,}"}
    return {"text": texts[0]}


def _limit_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    try:
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    except (OSError, ValueError):  # macOS has no such limit: the time limit is the only one there
        return


if __name__ == "__main__":
    main(float(sys.argv[1]))
