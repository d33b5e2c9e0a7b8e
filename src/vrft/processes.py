"""The processes of a run, as torchrun or accelerate launch begins them.

Only the first process (rank 0) writes. What is decided from files is decided there and told to the others, so that all
of them do the same. With one process nothing here does anything, and torch is not imported.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from vrft.errors import UserError

T = TypeVar("T")


class StoppedElsewhere(UserError):
    """Another process of the run has failed and says why."""


def process_index() -> int:
    """The rank of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def process_count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_index() -> int:
    """The rank among the processes of this machine, which is the GPU that is this one's."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    return process_index() == 0


def join_processes() -> None:
    """Meet the other processes; must be called before anything else here."""
    if process_count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def wait_for_all() -> None:
    """Go on when every process is here."""
    if process_count() > 1:
        from accelerate.utils import wait_for_everyone

        wait_for_everyone()


def from_main(work: Callable[[], T]) -> T:
    """Do something in the first process, and give its result to all.

    Args:
        work: what is done; its result can be pickled.

    Raises:
        UserError: the first process failed with it; the others raise ``StoppedElsewhere``.
    """
    if process_count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    told: list[Any] = [None, False]
    error: UserError | None = None
    if is_main():
        try:
            told = [work(), False]
        except UserError as one:
            told, error = [None, True], one
    broadcast_object_list(told, from_process=0)
    if error is not None:
        raise error
    if told[1]:
        raise StoppedElsewhere("the first process has failed.")
    result: T = told[0]
    return result


def all_of(own: Iterable[T]) -> list[T]:
    """What every process has, those of the first before those of the second; in every process."""
    if process_count() == 1:
        return list(own)
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object(list(own))
    return gathered
