"""The process in which the library's threads live."""

from __future__ import annotations

import os

_owner: int | None = None


def enter() -> None:
    """Says that threads are about to be used. A process that was forked from one in which they run has none of them, and
    would wait for them for ever."""
    global _owner
    if _owner is None:
        _owner = os.getpid()
    elif _owner != os.getpid():
        raise RuntimeError(
            "invaspread's threads do not live in a process that was forked after their first use; expected a process that"
            ' was spawned (multiprocessing.get_context("spawn")), or the first use after the fork'
        )
