"""VRFT-Aug: visual reinforcement fine-tuning of vision-language models in medical imaging."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the libraries read it: nothing leaves the machine

__version__ = "0.1.0"
