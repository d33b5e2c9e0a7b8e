"""How long work tells what it does: one object that commands hand down, so that no floor below knows a terminal."""

import sys
import time


class Reporter:
    """Plain lines on standard error, a few for each piece of work; ``quiet`` says nothing.

    The command line has a subclass that draws bars on a terminal.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._began, self._label, self._total, self._shown, self._first = 0.0, "", 0, 0.0, 0

    def say(self, text: str) -> None:
        """Tell one thing."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin a piece of work of ``total`` steps, of which ``done`` were done before."""
        self._label, self._total, self._first = label, total, done
        self._began = self._shown = time.monotonic()

    def advance(self, done: int, note: str = "") -> None:
        """Tell that ``done`` steps are done; prints at most every ten seconds, and at the end."""
        now = time.monotonic()
        if now - self._shown < 10 and done < self._total:
            return
        self._shown = now
        left = (now - self._began) / max(1, done - self._first) * (self._total - done)
        self.say(f"{self._label}: {done}/{self._total}, {left:.0f} s left{', ' + note if note else ''}")

    def stop(self) -> None:
        """End the piece of work."""
