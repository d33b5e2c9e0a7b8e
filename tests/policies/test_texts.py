"""Text generation with a local language model."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from vrft.errors import PolicyError
from vrft.policies import load_policy
from vrft.policies.texts import local_model


def test_it_replies_with_what_follows_the_prompt(tmp_path: Path):
    torch.manual_seed(0)
    tokenizer = load_policy("tiny").processor.tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ask = local_model(str(tmp_path), max_tokens=5)
    reply = ask("What is red?")
    assert reply == ask("What is red?")
    assert "What is red?" not in reply
    assert len(tokenizer(reply).input_ids) <= 8


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(PolicyError, match="cannot be loaded as a language model"):
        local_model("/nowhere")
