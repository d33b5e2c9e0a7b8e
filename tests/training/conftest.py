"""What tests of training share."""

from collections.abc import Callable

import pytest

from vrft.progress import Reporter


class Killing(Reporter):
    """Kills a stage after one of its steps."""

    def __init__(self, after: int) -> None:
        super().__init__(quiet=True)
        self.after = after

    def advance(self, done: int, note: str = "") -> None:
        if done == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def kill_after() -> Callable[[int], Reporter]:
    """The reporter of a stage that is killed after the given step."""
    return Killing
