"""Training: thin layers over TRL's trainers."""

from vrft.training.memory import PeakMemory
from vrft.training.rft import train_rft
from vrft.training.sft import train_sft

__all__ = ["PeakMemory", "train_rft", "train_sft"]
