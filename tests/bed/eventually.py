"""Waiting on a condition, with a deadline: what tests do in place of sleeping."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

Value = TypeVar("Value")
PAUSE_SECONDS = 0.1  # between looks; a look costs more than that in emulation


def eventually(
    look: Callable[[], Value],
    what: str,
    seconds: float = 60,
    context: Callable[[], str] = lambda: "",
) -> Value:
    """The first true answer of `look`; AssertionError with `what`, the last answer (or failure)
    and `context()` when time is up.

    `look` may fail with an AssertionError, which says what does not hold yet.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = look()
            if answer:
                return answer
            last = repr(answer)
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; last: {last}\n{context()}")
        time.sleep(PAUSE_SECONDS)
