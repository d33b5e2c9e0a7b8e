"""The architecture, tokenizer and processor of the embedded policy: Qwen2.5-VL's own classes, small."""

import math
from collections.abc import Iterator

import torch
from curriculum import TRAINING, WORDS, make_example
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.tokenization_utils_base import AddedToken

from vrft.data.phantom import PIXELS

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""Qwen's own special tokens."""

PIECES = ("<think>", "</think>", "<answer>", "</answer>", '[{"bbox_2d":[', "]}]", "x1,y1,x2,y2")
"""Texts of a single token that decoding keeps: the envelope that a reward reads."""

VOCABULARY = 1536
ROPE_THETA = 1e6
NUMBERS = 225
"""0 to 224 are one token each: pixels, counts and grades."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def _corpus() -> Iterator[str]:
    """The texts that the byte pairs are learnt from: examples, and words of users' questions."""
    for index in range(20_000):
        example = make_example(TRAINING, 1, index)
        yield f"user\n{example.prompt}\nassistant\n{example.completion}"
    yield from (f"{form(word)}\n" for word in WORDS for form in (str.lower, str.capitalize) for _ in range(40))
    yield from (f" {word}" for word in WORDS for _ in range(40))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer: byte-level BPE, so any text can be written, with whole numbers and envelope tags."""
    core = Tokenizer(models.BPE(byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(PIECES) - NUMBERS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = [*PIECES, *map(str, range(NUMBERS))]
    core.train_from_iterator(_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL], special_tokens=True)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in pieces])
    return tokenizer


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """The processor: every image becomes about ``PIXELS`` x ``PIXELS`` pixels (16 image tokens)."""
    pixels = {"shortest_edge": PIXELS * PIXELS, "longest_edge": PIXELS * PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 128, layers: int = 4, vision_width: int = 128
) -> Qwen2_5_VLConfig:
    """The configuration of given sizes.

    Args:
        tokenizer: whose ids are named in it.
        width: of the text layers, a multiple of 64 from 128 up.
        layers: text layers, 2 or more.
        vision_width: of the vision tower, a multiple of 16.

    Raises:
        ValueError: a size is none of these.
    """
    if width < 128 or width % 64 or layers < 2 or vision_width < 16 or vision_width % 16:
        raise ValueError("width must be a multiple of 64 from 128 up, layers 2 or more, vision_width a multiple of 16")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("im_end", "endoftext")}
    vision_ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in [
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        ]
    }
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": max(1, width // 64),
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096,
            "initializer_range": width**-0.5,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": ids["im_end"],
            "pad_token_id": ids["endoftext"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": vision_width,
            "intermediate_size": 256 * vision_width // 96,
            "num_heads": 4,
            "out_hidden_size": width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1, 2],
            "initializer_range": vision_width**-0.5,
        },
        tie_word_embeddings=True,
        eos_token_id=ids["im_end"],
        pad_token_id=ids["endoftext"],
        **vision_ids,
    )


def build_model(
    config: Qwen2_5_VLConfig, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised policy: deviations of 1 / sqrt(inputs), which small widths need to learn quickly.

    Numbers start in their order (``order_numbers``) and two layers as a circuit that copies (``wire_copying``);
    everything is trained from there.
    """
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    order_numbers(model, tokenizer)
    wire_copying(model, tokenizer)
    patches = model.model.visual.patch_embed.proj.weight
    torch.nn.init.normal_(patches, std=patches[0].numel() ** -0.5)
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    model.generation_config.do_sample = False
    return model


@torch.no_grad()
def order_numbers(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the numbers' embeddings as waves of 12 periods, 4 to 256, over a random part: near numbers are alike.

    Then a coordinate that is nearly right is nearly right in all of them, and a box trains 41 as well as 40; among
    unrelated embeddings each of the 113 pixels would have to be learnt alone.
    """
    embedding = model.model.language_model.embed_tokens.weight
    numbers = torch.arange(NUMBERS, dtype=torch.float32)[:, None]
    angles = 2 * math.pi * numbers / torch.logspace(math.log10(256), math.log10(4), 12)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1) / 12**0.5  # rows of length 1, like the embeddings
    basis = torch.linalg.qr(torch.randn(embedding.shape[1], waves.shape[1]))[0].T
    ids = tokenizer.convert_tokens_to_ids([str(number) for number in range(NUMBERS)])
    embedding[ids] = 0.8 * waves @ basis + 0.6 * embedding[ids]


@torch.no_grad()
def wire_copying(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the first two text layers as an induction circuit: the token that followed before follows again.

    To read a card, attention has to find a word in the prompt and copy the word behind it (Olsson et al., arXiv
    2209.11895), which a small model learns last. In layer 0, a head attends to the previous token and another to the
    token before that (constant keys; the phase of the rotary embedding does the rest), and each writes its token into
    a subspace of its own. In layer 1, a head attends where the previous token is the present token, and another where
    the token two before is the previous token; both write the token that they find. Content is compared in the
    slowly rotating dimensions only. All other outputs start small, so that the circuit dominates.
    """
    text = model.model.language_model
    config = text.config
    width, heads = config.hidden_size, config.num_attention_heads
    size, share = width // heads, heads // config.num_key_value_heads
    basis = torch.linalg.qr(torch.randn(width, width))[0].T
    code, before, two_before = basis[:size], basis[size : 2 * size], basis[2 * size : 3 * size]
    pieces, embedding = tokenizer.get_vocab(), text.embed_tokens.weight
    for piece, index in pieces.items():
        if piece.startswith("Ġ") and piece[1:] in pieces:  # a word is nearly the same with a space before it
            embedding[index] = 0.8 * embedding[pieces[piece[1:]]] + 0.6 * embedding[index]
    embedding -= embedding @ before.T @ before + embedding @ two_before.T @ two_before
    for layer in text.layers:
        layer.mlp.down_proj.weight *= 0.03
        layer.self_attn.o_proj.weight *= 0.03

    rates = ROPE_THETA ** (-torch.arange(size // 2) / (size // 2))  # radians a position
    strength = (12 * size**0.5) ** 0.5

    def turned(tokens: int) -> torch.Tensor:
        """A query that finds constant keys ``tokens`` back."""
        return strength * torch.cat([torch.cos(rates * tokens), -torch.sin(rates * tokens)])

    first, second = text.layers[0].self_attn, text.layers[1].self_attn
    first.k_proj.weight[:size] = 0
    first.k_proj.bias[:size] = turned(0)
    first.v_proj.weight[:size], first.v_proj.bias[:size] = code, 0
    for head, place in enumerate((before, two_before)):
        rows = slice(head * size, (head + 1) * size)
        first.q_proj.weight[rows], first.q_proj.bias[rows] = 0, turned(head + 1)
        first.o_proj.weight[:, rows] = 0.0625 * place.T

    slow = [pair for pair in range(size // 2) if rates[pair] < 0.006]
    slow += [pair + size // 2 for pair in slow]
    for group, (wanted, found) in enumerate(((code, before), (before, two_before))):
        mix = torch.linalg.qr(torch.randn(size, len(slow)))[0].T
        keys, queries = (slice(first * size, (first + 1) * size) for first in (group, group * share))
        for projection, part, reads, scale in (
            (second.k_proj, keys, found, 1.0),
            (second.q_proj, queries, wanted, 4.0),
        ):
            weight = torch.zeros(size, width)
            weight[slow] = scale * mix @ reads
            projection.weight[part], projection.bias[part] = weight, 0
        second.v_proj.weight[keys], second.v_proj.bias[keys] = code, 0
        second.o_proj.weight[:, queries] = 0.6 * code.T
