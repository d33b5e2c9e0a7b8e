"""Progress reporting: an object that commands pass down, so that the layers below need no terminal."""

import sys
import time


class Reporter:
    """Plain lines on standard error, a few for each task; nothing if ``quiet``.

    The command line has a subclass that draws bars on a terminal.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._began, self._label, self._total, self._shown, self._first = 0.0, "", 0, 0.0, 0

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin a task of ``total`` steps, of which ``done`` are done already."""
        self._label, self._total, self._first = label, total, done
        self._began = self._shown = time.monotonic()

    def advance(self, done: int, note: str = "") -> None:
        """Report that ``done`` steps are done; prints every ten seconds at most, and at the end."""
        now = time.monotonic()
        if now - self._shown < 10 and done < self._total:
            return
        self._shown = now
        left = (now - self._began) / max(1, done - self._first) * (self._total - done)
        self.say(f"{self._label}: {done}/{self._total}, {left:.0f} s left{', ' + note if note else ''}")

    def stop(self) -> None:
        """End the task."""
