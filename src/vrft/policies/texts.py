"""Text generation with a local language model."""

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from vrft.errors import PolicyError, first_line
from vrft.policies.loading import quiet_libraries


def local_model(name: str, *, max_tokens: int = 4096) -> Callable[[str], str]:
    """Load a causal language model with a chat template; returns a function from a prompt to its greedy reply.

    Args:
        name: a directory, or a name on the hub.
        max_tokens: the largest number of tokens of a reply.

    Raises:
        PolicyError: the model cannot be loaded, or has no chat template.
    """
    quiet_libraries()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(f"--model {name!r} cannot be loaded as a language model: {first_line(error)}") from None
    if tokenizer.chat_template is None:
        raise PolicyError(f"--model {name!r} has no chat template; take an instruction-tuned model.")
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def ask(prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    return ask
