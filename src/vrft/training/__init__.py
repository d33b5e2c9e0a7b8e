"""Training: thin layers over TRL's trainers."""

from vrft.training.memory import PeakMemory
from vrft.training.rft import train_rft
from vrft.training.sft import train_sft
from vrft.training.trainer_arguments import check_processes
from vrft.training.validation import Validation

__all__ = ["PeakMemory", "Validation", "check_processes", "train_rft", "train_sft"]
