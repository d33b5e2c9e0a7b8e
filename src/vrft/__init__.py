"""VRFT-Aug: visual reinforcement fine-tuning of vision-language models in medical imaging."""

__version__ = "0.1.0"
