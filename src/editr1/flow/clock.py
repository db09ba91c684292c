"""Seconds per phase of an iteration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up wall time by name.

    >>> clock = Clock()
    >>> with clock.phase("sample"):
    ...     pass
    >>> sorted(clock.read())
    ['seconds/sample', 'seconds/total']
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the block's time under `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def read(self) -> dict[str, float]:
        """Seconds so far, with `seconds/total` since the clock was made."""
        return {f"seconds/{name}": value for name, value in self._seconds.items()} | {"seconds/total": time.perf_counter() - self._start}
