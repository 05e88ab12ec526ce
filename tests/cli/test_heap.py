"""Freed memory is kept where the C library is glibc."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cst_bench.cli.heap import keep_freed_memory

COUNT = """
import resource
import sys
from cst_bench.cli.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return the page faults of 20 tensors of 64 MiB, each freed before the next."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_pages_of_freed_memory_are_taken_again() -> None:
    returned = faults("returned")
    if returned < 100_000:
        pytest.skip("the kernel's pages are large here")
    assert min(faults("kept") for _ in range(3)) < returned / 2  # the kernel may reclaim pages meanwhile


LARGE = """
import resource
from cst_bench.cli.heap import ask_for_large_pages
ask_for_large_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_tensors_lie_in_large_pages_where_the_kernel_gives_them_to_who_asks() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.is_file() or "[madvise]" not in enabled.read_text():
        pytest.skip("the kernel gives large pages to all or to nobody")
    if "[never]" in (enabled.parent / "defrag").read_text():
        pytest.skip("the kernel gives them only where memory is not in pieces")
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    counts = [
        int(subprocess.run([sys.executable, "-c", LARGE], env=env, capture_output=True, text=True, check=True).stdout)
        for env in ({**environment, "THP_MEM_ALLOC_ENABLE": "0"}, environment)
    ]
    if counts[0] < 2**16:
        pytest.skip("the kernel's pages are large here")
    assert counts[1] < counts[0] / 2


RELEASE = """
import os
from cst_bench.cli.heap import keep_freed_memory, release_at
assert keep_freed_memory()
import torch

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

tensors = [torch.ones(2**22) for _ in range(16)]
end = torch.ones(2**22)
del tensors
before = resident()
release_at(8)
kept = resident()
release_at(9)
print(before - kept, kept - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_is_given_back_every_third_step_though_a_tensor_lies_behind_it() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", RELEASE], env=environment, capture_output=True, text=True, check=True)
    kept, released = map(int, done.stdout.split())
    assert abs(kept) < 2**24
    assert released > 12 * 2**24  # of the 16 tensors of 16 MiB


def test_who_sets_glibc_s_own_variables_keeps_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
