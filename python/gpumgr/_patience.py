"""How long, and how often, something that broke off is tried again."""

from __future__ import annotations

import time
from typing import Optional

from ._steps import Steps, Wait, seconds_left

_PAUSE_FIRST_S = 0.01
_PAUSE_MOST_S = 1.0


class Patience:
    """Begins when something broke off; pauses grow from 10 ms to 1 s."""

    def __init__(self, limit: float) -> None:
        self._ends = time.monotonic() + limit
        self._pause = _PAUSE_FIRST_S
        self._pause_ends: Optional[float] = None  # of one that is not over

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends

    def got_an_answer(self) -> None:
        """It was there for a moment: the next pauses are short again."""
        self._pause = _PAUSE_FIRST_S

    def pause(self) -> Steps[None]:
        """One that is broken off is not begun anew: who waits for less than a pause at a time gets to its end, too."""
        if self._pause_ends is None:
            self._pause_ends = time.monotonic() + self._pause
        yield Wait(-1, 0, seconds_left(self._pause_ends))
        self._pause_ends = None
        self._pause = min(self._pause * 2, _PAUSE_MOST_S)
