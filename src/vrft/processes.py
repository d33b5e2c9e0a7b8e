"""The processes of a run, as torchrun or accelerate launch starts them.

Only the first process (rank 0) writes files. It also makes all decisions that depend on files, and broadcasts them, so
that all processes do the same. With a single process these functions do nothing, and torch is not imported.
"""

import os
import platform
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from vrft.errors import UserError

T = TypeVar("T")

GROUP_TIMEOUT = 7200
"""Seconds that a process waits for the others, which may download data, write weights or sample for minutes."""


class StoppedElsewhere(UserError):
    """Another process of the run has failed, and reports the reason."""


def process_index() -> int:
    """The rank of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def process_count() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_index() -> int:
    """The rank among the processes of this machine, from 0: the index of the GPU of this process."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """Whether this is the first process."""
    return process_index() == 0


_peers: list[tuple[str, int]] = []
"""Host and process id of every process, by rank, after ``join_processes``."""


def join_processes() -> None:
    """Connect to the other processes; must be called before any broadcast."""
    if process_count() > 1 and not _peers:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=GROUP_TIMEOUT))
        _peers.extend(all_of([(platform.node(), os.getpid())]))


def leave_processes() -> None:
    """Disconnect from the other processes at the end of the run."""
    if _peers:
        import torch

        torch.distributed.destroy_process_group()


def have_joined() -> bool:
    """Whether the processes are connected."""
    return bool(_peers)


def is_first_alive() -> bool:
    """Whether all processes of lower rank on this machine have ended, so that this process reports for the run."""
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
    """Whether an error means that another process has ended."""
    words = str(error).lower()
    return (
        process_count() > 1
        and isinstance(error, RuntimeError)
        and any(sign in words for sign in ("gloo", "nccl", "connection closed by peer", "connection reset", "socket"))
    )


def wait_for_all() -> None:
    """Wait until every process has reached this line."""
    if process_count() > 1:
        from accelerate.utils import wait_for_everyone

        wait_for_everyone()


def from_main(work: Callable[[], T]) -> T:
    """Call a function in the first process, and broadcast its result.

    Args:
        work: the function; its result can be pickled.

    Raises:
        UserError: the function raised it in the first process; the others raise ``StoppedElsewhere``.
    """
    if process_count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    message: list[Any] = [None, False]
    error: UserError | None = None
    if is_main():
        try:
            message[0] = work()
        except UserError as caught:
            message[1], error = True, caught
    broadcast_object_list(message, from_process=0)
    if error is not None:
        raise error
    if message[1]:
        raise StoppedElsewhere("the first process has failed.")
    result: T = message[0]
    return result


def all_of(own: Iterable[T]) -> list[T]:
    """The items of all processes in the order of their ranks; every process gets all of them."""
    if process_count() == 1:
        return list(own)
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object(list(own))
    return gathered
