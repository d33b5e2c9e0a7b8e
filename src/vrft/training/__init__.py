"""Training: thin layers over TRL's trainers."""

from vrft.training.memory import PeakMemory
from vrft.training.rft import train_rft
from vrft.training.sft import train_sft
from vrft.training.validation import Validation

__all__ = ["PeakMemory", "Validation", "train_rft", "train_sft"]
