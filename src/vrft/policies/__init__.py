"""Policies: loading a vision-language model and its processor, and decoding."""

from vrft.policies.decoding import decode, model_inputs, token_probabilities
from vrft.policies.families import frame_of
from vrft.policies.loading import TINY, LoadedPolicy, load_policy, place_of, quiet_libraries, save_policy
from vrft.policies.pixels import processed_once
from vrft.policies.templates import check_envelope

__all__ = [
    "TINY",
    "LoadedPolicy",
    "check_envelope",
    "decode",
    "frame_of",
    "load_policy",
    "model_inputs",
    "place_of",
    "processed_once",
    "quiet_libraries",
    "save_policy",
    "token_probabilities",
]
