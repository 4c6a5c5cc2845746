"""From the command to the first picture: where the seconds go."""

from __future__ import annotations

import logging
import time

import psutil

log = logging.getLogger(__name__)


class StartUp:
    """seconds: by step, in the order in which steps were first passed.

    They begin with the process; of a run that is part of another job (`part`) with itself.
    """

    def __init__(self, *, part: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._latest = time.time() if part else psutil.Process().create_time()
        self._ended = False
        if not part:
            self.passed("imports")

    def passed(self, step: str) -> None:
        """All that has passed since the step before belongs to this one."""
        if self._ended:
            return
        now = time.time()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._latest, 3)
        self._latest = now

    def end(self, step: str, last: str, last_s: float) -> None:
        """The last two: `last` took last_s of what has passed. What comes later is work."""
        if not self._ended:
            self.passed(step)
            self._ended = True
            last_s = round(min(last_s, self.seconds[step]), 3)
            self.seconds[step] = round(self.seconds[step] - last_s, 3)
            self.seconds[last] = last_s
            steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in self.seconds.items())
            log.info("first pictures after %.1f s: %s", sum(self.seconds.values()), steps)
