"""How much memory was used at most, on whatever device there is."""

import os
import resource
from pathlib import Path

import torch


class PeakMemory:
    """The most memory that was used since this object was made: of the GPU where there is one, else of the process."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif os.access("/proc/self/clear_refs", os.W_OK):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: start the high-water mark anew

    def peak_mb(self) -> float:
        """The peak in MB (2**20 bytes)."""
        if torch.cuda.is_available():
            return round(torch.cuda.max_memory_allocated() / 2**20, 1)
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM"):
                    return round(int(line.split()[1]) / 1024, 1)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
