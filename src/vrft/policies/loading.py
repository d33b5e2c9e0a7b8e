"""Load a vision-language policy: the embedded one, a directory or a model of the Hugging Face hub, all the same way."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.image_utils import SizeDict

from vrft.boxes import Size
from vrft.errors import PolicyError, first_line
from vrft.policies.families import family_of, processed_size
from vrft.policies.image_cache import ImageCache, default_folder
from vrft.sample import Sample, open_image
from vrft.tasks import TrainableTask
from vrft.tasks.localization import pointing_question

TINY = Path(__file__).parent / "tiny" / "weights"
"""The folder of the embedded policy."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MEDIA_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
"""Tokens of pictures: a policy that writes one breaks its next forward pass."""


@dataclass
class LoadedPolicy:
    """A policy ready for training or decoding."""

    model: PreTrainedModel | PeftModel
    processor: ProcessorMixin
    name: str
    lora: LoraConfig | None = None
    keeps_adapters: bool = False
    """Adapters are saved as they are, for the next stage to go on with; else merged into the weights."""
    cache: ImageCache | None = None
    """Images that were opened before; None where each is opened anew."""

    @property
    def suppressed(self) -> list[int]:
        """Ids of tokens that must never be sampled: those of pictures."""
        tokenizer, config = self.processor.tokenizer, self.model.config
        known = tokenizer.get_vocab()
        ids = {known[token] for token in MEDIA_TOKENS if token in known}
        named = (getattr(config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return sorted(ids | {token for token in named if token is not None})

    def processed_size(self, image_size: Size) -> Size:
        """Width and height of what the processor makes of an image."""
        return processed_size(image_size, self.model.config, self.processor)

    def open(self, sample: Sample) -> tuple[Image.Image, Size]:
        """The image of a sample as it is given to the processor, in RGB, and the size of the original.

        Raises:
            DataError: the file is missing or is no readable image.
        """
        if self.cache is not None:
            return self.cache.open(sample, self.processor, self.model.config)
        image = open_image(sample)
        return image, image.size

    def prompt(self, task: TrainableTask, sample: Sample, size: Size) -> str:
        """What is asked about a sample, whose image has this size; a region is told in the frame of the family."""
        question = sample.question
        if sample.region is not None:
            frame = family_of(self.model.config).frame
            question = pointing_question(question, sample.region, frame, size, self.processed_size(size))
        return task.prompt(question, sample.knowledge.prompt if sample.knowledge else "")

    def messages(self, prompt: str, image: Any) -> list[dict[str, Any]]:
        """The conversation that asks about one picture."""
        content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
        return [{"role": "user", "content": content}]


def quiet_libraries() -> None:
    """Keep bars and notes of transformers off the terminal; errors are told by exceptions."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def place_of(name: str) -> str:
    """The folder or hub name behind the name of a policy in a recipe."""
    return str(TINY) if name == "tiny" else os.path.expanduser(name)


def load_policy(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    lora: LoraConfig | None = None,
    keep_adapters: bool = False,
    base: tuple[str, str | None] | None = None,
    max_pixels: int | None = None,
    image_cache_gb: float = 0.0,
    trust_remote_code: bool = False,
) -> LoadedPolicy:
    """Load a policy and its processor.

    Args:
        name: ``tiny``, a directory, or a name on the hub. A directory may hold whole weights or an adapter.
        revision: of a hub model.
        dtype: a key of ``DTYPES``, or ``auto``: bfloat16 on a GPU, float32 elsewhere.
        lora: adapters to train; the trainer puts them in.
        keep_adapters: train the adapters of a directory on, and save adapters alone; without it they are merged.
        base: name and revision of the model that the adapters of a directory belong to; without it what they say.
        max_pixels: upper bound on the pixels of an image after resizing.
        image_cache_gb: how much of resized images is kept on disk, in 1e9 bytes; 0 keeps none.
        trust_remote_code: run code that comes with the model.

    Raises:
        PolicyError: it cannot be found or loaded, or does not pad on the left.
    """
    path = place_of(name)
    cuda = torch.cuda.is_available()
    chosen = DTYPES.get(dtype, torch.bfloat16 if cuda else torch.float32)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        adapter = Path(path) / "adapter_config.json"
        if adapter.is_file():
            stated = json.loads(adapter.read_text())
            of, at = base or (stated["base_model_name_or_path"], stated.get("revision"))
            weights = {**options, "revision": at}
            whole = AutoModelForImageTextToText.from_pretrained(place_of(of), dtype=chosen, **weights)
            adapted = PeftModel.from_pretrained(whole, path, is_trainable=keep_adapters)
            model = adapted if keep_adapters else adapted.merge_and_unload()
        else:
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=chosen, **options)
        processor = AutoProcessor.from_pretrained(path, padding_side="left", **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(
            f"policy.model {name!r} cannot be loaded: {first_line(error)} Give 'tiny', a directory with a model "
            f"and its processor, or a hub name that this machine can reach."
        ) from None
    if max_pixels is not None:
        bound_pixels(processor, max_pixels)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer(["a", "a a a a"], padding=True).attention_mask[0][0] != 0:
        raise PolicyError(f"policy.model {name!r}: its tokenizer does not pad on the left, which sampling needs.")
    if cuda:
        model = model.to("cuda")
    lora = None if isinstance(model, PeftModel) else lora
    cache = ImageCache(default_folder(), int(image_cache_gb * 1e9)) if image_cache_gb else None
    return LoadedPolicy(model, processor, path, lora, keep_adapters, cache)


def bound_pixels(processor: Any, max_pixels: int) -> None:
    """Set the upper bound on the pixels of an image after resizing."""
    low = min(processor.image_processor.size["shortest_edge"], max_pixels)
    processor.image_processor.size = SizeDict(shortest_edge=low, longest_edge=max_pixels)


def save_policy(policy: LoadedPolicy, path: Path) -> None:
    """Write weights or adapters (safetensors), the configuration, tokenizer and processor."""
    if isinstance(policy.model, PeftModel):
        policy.model.get_base_model().config.save_pretrained(path)
        policy.model.save_pretrained(path, selected_adapters=["default"])  # TRL's "ref" is no part of the policy
    else:
        policy.model.save_pretrained(path)
    policy.processor.save_pretrained(path)
