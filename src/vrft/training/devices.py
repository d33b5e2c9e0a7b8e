"""Devices that a plan can be made for: what they can do at most, and which share of it a run reaches."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from vrft.errors import UserError


@dataclass(frozen=True)
class Device:
    """A device, its peaks from its maker's data sheet, and what a run makes of them.

    Args:
        flops: dense multiply-adds in bfloat16, two operations each, a second.
        flops32: the same in float32.
        bandwidth: bytes a second to and from memory.
        memory: bytes.
        training: share of ``flops`` in a forward or backward pass over whole sequences.
        decoding: share of ``bandwidth`` in a step that adds one token to each sequence.
        launch: seconds that Python and the launching of kernels take for one layer of one pass.
        overlaps: launching goes on while the device computes, so that the slower of both counts; otherwise their sum.
        held: bytes that a process holds before it has a policy.
        measured: the shares were measured; otherwise they are assumptions.
    """

    name: str
    flops: float
    flops32: float
    bandwidth: float
    memory: float
    training: float = 0.4
    """40%: between the 30% to 50% that training of dense decoders is commonly reported to reach. Not measured here."""
    decoding: float = 0.35
    """The middle of 25% to 50%, for a cache that is copied at every token. Not measured here."""
    launch: float = 0.6e-3
    """About 25 launches a layer of 10 to 25 microseconds in eager PyTorch under ``generate``. Not measured here."""
    overlaps: bool = True
    held: float = 0.8e9
    """A CUDA context with its libraries. Not measured here."""
    measured: bool = False

    def peak(self, width: int) -> float:
        """Operations a second for numbers of ``width`` bytes."""
        return self.flops32 if width == 4 else self.flops

    def together(self, launching: float, computing: float) -> float:
        """The seconds of a pass whose launching and computing take so long."""
        return max(launching, computing) if self.overlaps else launching + computing


GPUS = {
    "h200": Device("h200", 989e12, 67e12, 4.8e12, 141e9),
    "h100": Device("h100", 989e12, 67e12, 3.35e12, 80e9),
    "a100-80": Device("a100-80", 312e12, 19.5e12, 2.04e12, 80e9),
    "a100-40": Device("a100-40", 312e12, 19.5e12, 1.56e12, 40e9),
    "l40s": Device("l40s", 362e12, 91.6e12, 0.864e12, 48e9),
    "rtx4090": Device("rtx4090", 165e12, 82.6e12, 1.008e12, 24e9),
    "a10": Device("a10", 125e12, 31.2e12, 0.6e12, 24e9),
    "t4": Device("t4", 65e12, 8.1e12, 0.32e12, 16e9),  # float16: it has no unit for bfloat16
}
"""Peaks of the SXM variants where there are several, without sparsity."""

CPU_TRAINING, CPU_DECODING, CPU_LAUNCH, CPU_HELD = 0.55, 0.6, 0.6e-3, 1.0e9
"""Of a CPU: chosen by hand so that six shapes of `vrft bench` come out about right on one thread of an x86 server, then
checked on four others (docs/scale.md); what a process holds is the peak of `base` in a short quickstart."""


def measured_cpu() -> Device:
    """This machine's processor: the best of a few matrix products and copies, about a tenth of a second in all."""
    one, other = torch.ones(768, 768), torch.ones(768, 768)
    source, target = torch.ones(2**23), torch.empty(2**23)
    flops = 2 * 768**3 / _fastest(lambda: torch.mm(one, other))
    bandwidth = 2 * source.nbytes / _fastest(lambda: target.copy_(source))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shares = {"training": CPU_TRAINING, "decoding": CPU_DECODING, "launch": CPU_LAUNCH, "held": CPU_HELD}
    return Device("cpu", flops, flops, bandwidth, memory, **shares, overlaps=False, measured=True)


def _fastest(work: Callable[[], object], times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def device_for(name: str | None) -> Device:
    """The device of a name; without one the GPU at hand, else the CPU.

    Raises:
        UserError: it is not known.
    """
    if name is None and torch.cuda.is_available():
        called = torch.cuda.get_device_name().lower().replace(" ", "")
        held = torch.cuda.get_device_properties(0).total_memory
        fit = [one for key, one in GPUS.items() if key.split("-")[0] in called]
        if not fit:
            raise UserError(f"no figures are known of the GPU {called!r}; name one with --on: {', '.join(GPUS)}, cpu.")
        return replace(min(fit, key=lambda one: abs(one.memory - held)), memory=held)
    if name in (None, "cpu"):
        return measured_cpu()
    if name not in GPUS:
        raise UserError(f"--on {name}: no figures are known of it; expected {', '.join(GPUS)} or cpu.")
    return GPUS[name]
