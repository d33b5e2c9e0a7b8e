"""Training: thin layers over TRL's trainers."""

from vrft.training.rft import train_rft
from vrft.training.sft import train_sft

__all__ = ["train_rft", "train_sft"]
