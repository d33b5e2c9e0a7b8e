"""Policies: loading a vision-language model and its processor."""

from vrft.policies.loading import TINY, LoadedPolicy, load_policy, save_policy

__all__ = ["TINY", "LoadedPolicy", "load_policy", "save_policy"]
