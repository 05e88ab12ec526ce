"""Memory of a training step: keep what is freed between its operations, in large pages."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Parameters of `mallopt(3)`."""
_KEPT = 2**31 - 1
"""Most free bytes at the end of the heap: as many as `mallopt` takes."""
_RELEASED_AFTER = 3
"""Steps after which the free pages are given back: what steps of other lengths left between the tensors adds up, to
twice a step's need in ten steps."""
_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_large_pages() -> None:
    """Let PyTorch ask Linux for pages of 2 MiB for its tensors, where it gives them to who asks.

    Each page that a process first touches costs the kernel about a microsecond, besides clearing it: a tensor of a
    gigabyte is 262,144 of 4 KiB. Call it before PyTorch is imported; who sets THP_MEM_ALLOC_ENABLE keeps that setting.
    """
    with suppress(OSError):
        if "[madvise]" in _LARGE_PAGES.read_text(encoding="utf-8"):
            os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the whole process, from now on; return whether it does.

    A step on a CPU frees and takes the same gigabytes again. glibc returns them to the kernel, which clears each page
    that is taken: a quarter of the time of a step of a model of 135M parameters in bfloat16. One arena serves all
    threads, or the heap would be larger; over many steps it grows all the same, so `release_at` gives it back now and
    then. Who sets one of glibc's `MALLOC_` variables keeps that setting, and other C libraries are left as they are.
    Call it before other threads exist.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT))
    return all(mallopt(name, value) == 1 for name, value in settings)


def release_at(step: int) -> None:
    """Give all free pages back to the kernel after every third step, where `keep_freed_memory` kept them."""
    if step % _RELEASED_AFTER == 0:
        ctypes.CDLL(None).malloc_trim(0)
