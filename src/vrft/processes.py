"""The processes of a run, as torchrun or accelerate launch begins them.

Only the first process (rank 0) writes. What is decided from files is decided there and told to the others, so that all
of them do the same. With one process nothing here does anything, and torch is not imported.
"""

import os
import platform
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from vrft.errors import UserError

T = TypeVar("T")

GROUP_TIMEOUT = 7200
"""Seconds that a process waits for the others: one may fetch data or write weights, and rollouts take minutes."""


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


_peers: list[tuple[str, int]] = []
"""Host and process id of every process, by rank, once they have met."""


def join_processes() -> None:
    """Meet the other processes; must be called before anything is told to them."""
    if process_count() > 1 and not _peers:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=GROUP_TIMEOUT))
        _peers.extend(all_of([(platform.node(), os.getpid())]))


def leave_processes() -> None:
    """Part from the other processes when all is done."""
    if _peers:
        import torch

        torch.distributed.destroy_process_group()


def have_met() -> bool:
    return bool(_peers)


def is_first_alive() -> bool:
    """Whether no process before this one lives, as far as this machine can tell; the one that speaks for all."""
    import psutil

    def lives(host: str, pid: int) -> bool:
        if host != platform.node():
            return True
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return not any(lives(*peer) for peer in _peers[: process_index()])


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    words = str(error).lower()
    return (
        process_count() > 1
        and isinstance(error, RuntimeError)
        and any(sign in words for sign in ("gloo", "nccl", "connection closed by peer", "connection reset", "socket"))
    )


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
