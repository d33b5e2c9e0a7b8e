"""Policies: loading a vision-language model and its processor, and decoding."""

from vrft.policies.decoding import decode
from vrft.policies.loading import TINY, LoadedPolicy, load_policy, save_policy

__all__ = ["TINY", "LoadedPolicy", "decode", "load_policy", "save_policy"]
