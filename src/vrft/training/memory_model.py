"""How much memory a policy takes in training and evaluation, counted from its configuration; nothing is run.

Weights that are trained, their gradients, both moments of AdamW and the reference of a KL term are float32: 16 bytes a
weight, 20 with the reference. Where bfloat16 is computed in, autocast keeps one more copy of the weights in it (2
bytes). Under adapters the base has the type that is computed in, is the reference too, and only adapters take 16 bytes.

Activations are counted as in Korthikanti et al. (arXiv 2205.05198, section 4.1), for layers with RMSNorm and a gated
MLP. With b bytes a number, h the width, q and k the widths of queries and of keys repeated to all heads, f the width of
the MLP, and S the length of its row, a layer keeps of each token

    2 norms:    their input in float32, the normalised input, the output    2 h (4 + 2 b)
    attention:  queries and output; keys and values                         b (2 q + 2 k)
    MLP:        gate, its activation, up, their product                     4 b f
    mask:       one number for each token that it may attend to             b S

A vision tower is counted alike, with rotated queries and keys besides (7 h in place of 2 q + 2 k), and its pixels once.
A packed row of a group (``packing.py``) keeps the keys and values of the prompt once more for each completion. No
attention scores are kept: the kernels that torch chooses recompute them. With checkpointing only the input of each
layer is kept (b h), and one layer at a time is whole. A test counts what autograd really keeps.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from vrft.recipe import Lora, RftStage, SftStage
from vrft.training.shared_prefix import cannot_share

TOKENS_TILE, WORDS_TILE, CPU_TILES = 4096, 32768, 8
"""TRL scores tokens in tiles of so many tokens and words of the vocabulary; a CPU holds so many tiles at once."""
MASTER = 4
"""Bytes of a weight that is trained, of its gradient, and of each moment."""
CPU_SLACK = 1.25
"""The C allocator of a CPU keeps freed blocks between used ones; measured with the embedded policy (docs/scale.md)."""
PASSING = ("activations", "KV cache", "update")
"""Parts of the memory that are never there together."""


class Lengths(NamedTuple):
    """Tokens of a prompt with its images, and of a completion; tokens and patches of the images alone; their number."""

    prompt: int
    completion: int
    image: int = 0
    patches: int = 0
    images: int = 1


def peak_of(memory: Mapping[str, float]) -> float:
    """Bytes of all parts; of those in ``PASSING`` only the largest."""
    lasting = sum(size for part, size in memory.items() if part not in PASSING)
    return lasting + max((memory.get(part, 0.0) for part in PASSING), default=0.0)


class MemoryModel:
    """Counts the bytes of a policy in memory.

    Args:
        model: an image-text-to-text model of transformers, whose parameters may be on the ``meta`` device.
        lora: adapters; None where all weights are trained.
        width: bytes of a number that is computed with, 2 or 4.
        on_cpu: whether TRL runs the kernels of a CPU, which score prompts as well.
    """

    def __init__(self, model: Any, lora: Lora | None = None, *, width: int, on_cpu: bool) -> None:
        self.model, self.width, self.on_cpu = model, width, on_cpu
        text, vision = model.config.get_text_config(), model.config.vision_config
        text.allow_global_per_layer_attribute_access = True  # where layers differ, their common values
        heads, wide = text.num_attention_heads, _first(vision, "embed_dim", "hidden_size")
        head = _first(text, "head_dim") or text.hidden_size // heads
        self.layers, self.hidden, self.words = text.num_hidden_layers, text.hidden_size, text.vocab_size
        self.query, self.key = heads * head, _first(text, "num_key_value_heads", "num_attention_heads") * head
        experts = _first(text, "num_experts_per_tok") * _first(text, "moe_intermediate_size")
        self.mlp = experts or text.intermediate_size
        self.vision_layers, self.vision_hidden = vision.num_hidden_layers, wide
        self.vision_mlp = _first(vision, "intermediate_size") or int(wide * vision.mlp_ratio)
        side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
        self.patch_numbers = _first(vision, "in_channels", "num_channels") * side**2
        self.patch_numbers *= _first(vision, "temporal_patch_size") or 1
        self.full, self.parameters = lora is None, sum(one.numel() for one in model.parameters())
        adapted = [
            (name, one)
            for name, one in model.named_modules()
            if lora and isinstance(one, nn.Linear) and any(f".{name}".endswith(f".{end}") for end in lora.targets)
        ]
        self.trained = self.parameters
        if lora:
            self.trained = sum(lora.rank * (one.in_features + one.out_features) for _, one in adapted)
        self.vision_trained = self.full or any("vision" in name or "visual" in name for name, _ in adapted)

    def training(self, stage: RftStage | SftStage, lengths: Lengths) -> dict[str, float]:
        """Bytes of each part at the moment when it is largest, of a stage whose sequences are so long."""
        full, width, rft = self.full, self.width, stage if isinstance(stage, RftStage) else None
        sequences = stage.batch_size if isinstance(stage, SftStage) else stage.prompts_per_step * stage.group_size
        micro = min(stage.micro_batch or sequences, sequences)
        shares = rft and rft.shared_prefix and not cannot_share(self.model, rft.group_size, micro)
        group = rft.group_size if rft and shares else 1
        kept = self.activations(lengths, micro, group, checkpointing=stage.gradient_checkpointing)
        scored = micro * (lengths.completion + lengths.prompt * self.on_cpu // group)
        tile = min(scored, TOKENS_TILE) * min(self.words, WORDS_TILE)
        kept += tile * (CPU_TILES * 4 if self.on_cpu else width) + scored * self.hidden * 4
        kept += self.words * self.hidden * 4 if full else 0  # the gradient of the output matrix
        base = MASTER + (width if width < MASTER else 0) if full else width
        return {
            "weights": self.parameters * base + (0 if full else self.trained * MASTER),
            "gradients": self.trained * MASTER,
            "moments": 2 * self.trained * MASTER,
            "reference": self.parameters * MASTER if rft and rft.kl and full else 0,
            "activations": kept * (CPU_SLACK if self.on_cpu else 1),
            "KV cache": self.cache(lengths, sequences, width) if rft else 0,
            "update": 0 if self.on_cpu else self.trained * MASTER,  # AdamW on a GPU updates all weights at once
        }

    def evaluation(self, lengths: Lengths, sequences: int, *, width: int) -> dict[str, float]:
        """Bytes of weights of ``width`` bytes, and of the cache of sequences that are decoded together."""
        return {"weights": self.parameters * width, "KV cache": self.cache(lengths, sequences, width)}

    def cache(self, lengths: Lengths, sequences: int, width: int) -> float:
        """Bytes of the keys and values of sequences; each has its own, shared prefix or not."""
        return sequences * (lengths.prompt + lengths.completion) * 2 * self.key * self.layers * width

    def activations(self, lengths: Lengths, sequences: int, group: int, *, checkpointing: bool = False) -> float:
        """Bytes that autograd keeps of a pass, without the scores; ``group`` sequences share a prompt and images."""
        width, rows, alone = self.width, sequences // group, lengths.prompt + lengths.completion
        length, keys, mask = alone, alone, alone**2
        if group > 1:
            length, keys = lengths.prompt + group * lengths.completion, lengths.prompt + group * alone
            mask = group * lengths.completion * alone
        tokens, patches = rows * length, rows * lengths.patches * self.vision_trained
        layer = tokens * (2 * self.hidden * (4 + 2 * width) + width * (2 * self.query + 4 * self.mlp))
        layer += rows * width * (2 * self.query * keys + mask)
        vision = 2 * self.vision_hidden * (4 + 2 * width) + width * (7 * self.vision_hidden + 4 * self.vision_mlp)
        pixels = width * patches * self.patch_numbers
        if not checkpointing:
            return self.layers * layer + self.vision_layers * patches * vision + pixels
        inputs = tokens * self.layers * self.hidden + patches * self.vision_layers * self.vision_hidden
        return width * inputs + max(layer, patches * vision) + pixels


def _first(config: Any, *names: str) -> int:
    """The first of some values that a configuration has; 0 without any."""
    return next((value for name in names if (value := getattr(config, name, None))), 0)
