"""The architecture, tokenizer and processor of the embedded policy: Qwen2.5-VL's own classes, small."""

from collections.abc import Iterator

import torch
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
from vrft.policies.tiny.lessons import TRAINING, WORDS, lesson

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
"""Qwen's own special tokens."""

PIECES = ("<think>", "</think>", "<answer>", "</answer>", '[{"bbox_2d":[', "]}]", "x1,y1,x2,y2")
"""Pieces of one token each that decoding keeps: they are the envelope that a reward reads."""

VOCABULARY = 1536
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
    """Texts that the byte pairs are learnt from: lessons, and words that users' questions hold."""
    for index in range(20_000):
        made = lesson(TRAINING, 1, index)
        yield f"user\n{made.prompt}\nassistant\n{made.completion}"
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
    texts = (text for text in _corpus())
    core.train_from_iterator(texts, trainer)
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
    """The processor: every picture becomes about ``PIXELS`` x ``PIXELS`` pixels (16 image tokens)."""
    pixels = {"shortest_edge": PIXELS * PIXELS, "longest_edge": PIXELS * PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels, patch_size=14, merge_size=2, temporal_patch_size=2),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 128, layers: int = 4, vision_width: int = 96
) -> Qwen2_5_VLConfig:
    """The configuration: ``width`` of the text layers (a multiple of 32), ``vision_width`` of the vision tower."""
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
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
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


def build_model(config: Qwen2_5_VLConfig, *, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised policy: deviations of 1 / sqrt(inputs), which small widths need to learn quickly."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    patches = model.model.visual.patch_embed.proj.weight
    torch.nn.init.normal_(patches, std=patches[0].numel() ** -0.5)
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    model.generation_config.do_sample = False
    return model
