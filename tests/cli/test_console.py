"""Progress on a console: a bar on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console

from cst_bench.cli.console import ConsoleProgress, rate_text


def output(*, terminal: bool, interval: float, steps: int = 4) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with ConsoleProgress(console, interval=interval).stage("Task: responses", 4) as count:
        for _ in range(steps):
            count(1)
    return file.getvalue().splitlines()


def test_without_a_terminal_lines_give_the_rate_and_the_time_left() -> None:
    lines = output(terminal=False, interval=0)
    assert [re.sub(r", .*", "", line) for line in lines[:-1]] == [f"Task: responses: {n} of 4" for n in (1, 2, 3)]
    assert all(re.search(r", [\d,.]+/s, about 0:00:0\d left$", line) for line in lines[:-1])
    assert lines[-1].startswith("Task: responses: done")


def test_without_a_terminal_short_work_is_one_line() -> None:
    assert len(output(terminal=False, interval=60)) == 1


def test_on_a_terminal_a_bar_shows_the_count() -> None:
    assert "4/4" in "".join(output(terminal=True, interval=60))


def test_a_rate_has_the_unit_that_can_be_read() -> None:
    assert [rate_text(rate) for rate in (76_400.0, 123.4, 2.5, 0.5, 0.01)] == [
        *("76,400/s", "123/s", "2.5/s"),
        *("30/min", "0.6/min"),
    ]
