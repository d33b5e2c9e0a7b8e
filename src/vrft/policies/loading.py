"""Load a vision-language policy: the embedded policy, a directory, or a model of the Hugging Face hub."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.image_utils import SizeDict

from vrft.boxes import Size
from vrft.caches import cache_folder
from vrft.errors import PolicyError, first_line
from vrft.image_log import ImageLog
from vrft.policies.families import family_of, processed_size
from vrft.policies.image_cache import ImageCache
from vrft.policies.templates import prompt_end, render_prompt
from vrft.processes import local_index
from vrft.sample import Grey, ImageSource, Sample, open_image, read_as
from vrft.tasks import Localization, TrainableTask
from vrft.tasks.localization import pointing_question

TINY = Path(__file__).parent / "tiny" / "weights"
"""The folder of the embedded policy."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MEDIA_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
"""Image tokens: a policy that writes such a token breaks its next forward pass."""


@dataclass
class LoadedPolicy:
    """A policy ready for training or decoding."""

    model: PreTrainedModel | PeftModel
    processor: ProcessorMixin
    name: str
    lora: LoraConfig | None = None
    """Adapters that a trainer adds."""
    merges_adapters: bool = False
    """Whether a stage ends by merging its adapters into the weights, in float32; else the next stage trains them on."""
    compute: torch.dtype = torch.float32
    """The dtype of the computations in training: bfloat16 is autocast over float32 weights."""
    reference: PreTrainedModel | None = None
    """A frozen copy of the weights at the start of a stage, where it has a KL term and trains all weights."""
    trust_remote_code: bool = False
    cache: ImageCache | None = None
    """The cache of resized images; None without a cache."""
    image_log: ImageLog = field(default_factory=ImageLog)
    """Notes on unusual images among those that were opened, such as images of a single value."""
    skips_unreadable: bool = False
    """In training, a sample that cannot be read is noted, and the next that can stands in its place."""

    @property
    def suppressed(self) -> list[int]:
        """Ids of the tokens that must never be sampled: image and video tokens."""
        tokenizer, config = self.processor.tokenizer, self.model.config
        known = tokenizer.get_vocab()
        ids = {known[token] for token in MEDIA_TOKENS if token in known}
        named = (getattr(config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return sorted(ids | {token for token in named if token is not None})

    def processed_size(self, image_size: Size) -> Size:
        """Width and height of an image after the processor's resize."""
        return processed_size(image_size, self.model.config, self.processor)

    def open(self, sample: Sample) -> tuple[tuple[Image.Image, ...], tuple[Size, ...]]:
        """The images of a sample as they are passed to the processor, in RGB, and width and height of each original.

        Raises:
            DataError: a file is missing or is no readable image.
        """
        opened = [self._open(source, sample.id) for source in sample.images]
        return tuple(image for image, _ in opened), tuple(size for _, size in opened)

    def _open(self, source: ImageSource, name: str) -> tuple[Image.Image, Size]:
        if self.cache is not None:
            image, size = self.cache.open(source, self.processor, self.model.config)
        else:
            image = open_image(source)
            size = image.size
        if not isinstance(source, Grey):  # empty on purpose
            self.image_log.note(image, name, lambda: read_as(source))
        return image, size

    def prompt(self, task: TrainableTask, sample: Sample, size: Size) -> str:
        """The text of the prompt for a sample whose first image has this size; a region is in the frame of the family.

        Where there are several images, the prompt says that boxes and the region are in the first.
        """
        question, several = sample.question, len(sample.images) > 1
        if sample.region is not None:
            frame, processed = family_of(self.model.config).frame, self.processed_size(size)
            question = pointing_question(question, sample.region, frame, size, processed, several=several)
        known = sample.knowledge.prompt if sample.knowledge else ""
        if isinstance(task, Localization):
            return task.prompt(question, known, several=several)
        return task.prompt(question, known)

    def messages(self, prompt: str, images: int = 1) -> list[dict[str, Any]]:
        """The conversation with a single turn of the user: a place for each image, and a prompt.

        Several images are numbered: ``Image 1:`` stands before the first.
        """
        content: list[dict[str, Any]] = []
        for number in range(1, images + 1):
            content += [{"type": "text", "text": f"Image {number}: "}] if images > 1 else []
            content.append({"type": "image"})
        return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]

    def prompt_text(self, prompt: str, images: int = 1) -> str:
        """The rendered conversation with so many images, up to the beginning of the policy's turn."""
        return render_prompt(self.processor, self.messages(prompt, images))

    @property
    def prompt_end(self) -> str:
        """The beginning of the policy's turn that the chat template writes: mostly empty, or an open ``<think>``."""
        return prompt_end(self.processor)


def quiet_libraries() -> None:
    """Keep progress bars and warnings of transformers off the terminal."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def place_of(name: str) -> str:
    """The folder or hub name for the name of a policy in a recipe; a path becomes absolute."""
    if name == "tiny":
        return str(TINY)
    path = Path(os.path.expanduser(name))
    return str(path.resolve()) if path.is_dir() else str(name)  # adapters store the path of their base


def compute_dtype(dtype: str) -> torch.dtype:
    """The dtype of computations for ``policy.dtype``: ``auto`` is bfloat16 on a GPU that has it, else float32."""
    if dtype != "auto":
        return DTYPES[dtype]
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def load_policy(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    training: bool = False,
    keep_float32: bool = True,
    lora: LoraConfig | None = None,
    merge_adapters: bool = False,
    base: tuple[str, str | None] | None = None,
    max_pixels: int | None = None,
    image_cache_gb: float = 0.0,
    trust_remote_code: bool = False,
) -> LoadedPolicy:
    """Load a policy and its processor.

    Weights that are trained are float32, whatever the dtype of computations: updates of 1e-5 are lost in bfloat16,
    whose numbers are 0.4% apart. The frozen base of adapters has the dtype of computations. Weights that a stage has
    saved in float32 are evaluated in float32, exactly as saved.

    Args:
        name: ``tiny``, a directory, or a name on the hub. A directory may hold all weights or an adapter.
        revision: the revision of a hub model.
        dtype: the dtype of computations: a key of ``DTYPES``, or ``auto``: bfloat16 on a GPU that has it, else float32.
        training: whether the policy will be trained: all weights, or with ``lora`` adapters.
        keep_float32: whether full weights that were saved in float32 stay float32, whatever ``dtype``.
        lora: adapters to train. The adapters of a directory are trained further where ``base`` is given (they belong to
            the run that goes on); else they are merged into the start in float32, and new adapters are added.
        merge_adapters: whether the trained adapters are merged at the end of a stage.
        base: name and revision of the base of the adapters of a directory; by default as the adapters say.
        max_pixels: upper bound on the pixels of an image after resizing.
        image_cache_gb: the limit of the cache of resized images, in 1e9 bytes; 0 is no cache.
        trust_remote_code: run code that comes with the model.

    Raises:
        PolicyError: the policy cannot be found or loaded, or its tokenizer does not pad on the left.
    """
    path, compute = place_of(name), compute_dtype(dtype)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    continues = lora is not None and base is not None
    try:
        if is_adapter(path) and (continues or not training):
            model = _with_adapters(path, base, compute, trust_remote_code, training=training)
        elif is_adapter(path):
            model = _merged(path, base, trust_remote_code)
        else:
            full_training = training and lora is None
            float32 = full_training or (keep_float32 and compute != torch.float16 and _is_float32(path, options))
            weights_dtype = torch.float32 if float32 else compute
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=weights_dtype, **options)
        processor = AutoProcessor.from_pretrained(path, padding_side="left", **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(
            f"policy.model {name!r} cannot be loaded: {first_line(error)} Give 'tiny', a directory with a model "
            f"and its processor, or a hub name that this machine can reach."
        ) from None
    clear_sampling_defaults(model)
    if max_pixels is not None:
        bound_pixels(processor, max_pixels)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer(["a", "a a a a"], padding=True).attention_mask[0][0] != 0:
        raise PolicyError(f"policy.model {name!r}: its tokenizer does not pad on the left, which sampling needs.")
    if torch.cuda.is_available():
        model = model.to(f"cuda:{local_index()}")
    lora = None if isinstance(model, PeftModel) else lora
    cache = ImageCache(cache_folder(), int(image_cache_gb * 1e9)) if image_cache_gb else None
    return LoadedPolicy(
        model,
        processor,
        path,
        lora=lora,
        merges_adapters=merge_adapters,
        compute=compute,
        trust_remote_code=trust_remote_code,
        cache=cache,
    )


def clear_sampling_defaults(model: PreTrainedModel | PeftModel) -> None:
    """Remove a model's own sampling parameters, and keep its begin, end and padding tokens.

    ``generate`` takes parameters that a call leaves out from there, such as a repetition penalty.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    tokens = {name: getattr(base.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    base.generation_config = GenerationConfig(**tokens)


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds adapters in place of full weights."""
    return (Path(path) / "adapter_config.json").is_file()


def _is_float32(path: str, options: dict[str, Any]) -> bool:
    """Whether full weights were saved in float32."""
    return getattr(AutoConfig.from_pretrained(path, **options), "dtype", None) == torch.float32


def _with_adapters(
    path: str, base: tuple[str, str | None] | None, compute: torch.dtype, trust_remote_code: bool, *, training: bool
) -> PeftModel:
    """The adapters of a directory, in float32, on their base model."""
    stated = json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))
    base_name, revision = base or (stated["base_model_name_or_path"], stated.get("revision"))
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    base_path = place_of(base_name)
    if is_adapter(base_path):
        model = _merged(base_path, None, trust_remote_code)
    else:
        model = AutoModelForImageTextToText.from_pretrained(base_path, dtype=compute, **options)
    return PeftModel.from_pretrained(model, path, is_trainable=training, autocast_adapter_dtype=True)


def _merged(path: str, base: tuple[str, str | None] | None, trust_remote_code: bool) -> PreTrainedModel:
    """The adapters of a directory, merged into their base model in float32."""
    model = _with_adapters(path, base, torch.float32, trust_remote_code, training=False).float().merge_and_unload()
    model.config._name_or_path = model.name_or_path = path  # new adapters store it as the name of their base
    merged: PreTrainedModel = model.requires_grad_(True)  # the adapters had frozen it
    return merged


def bound_pixels(processor: Any, max_pixels: int) -> None:
    """Set the upper bound on the pixels of an image after resizing, in place."""
    low = min(processor.image_processor.size["shortest_edge"], max_pixels)
    processor.image_processor.size = SizeDict(shortest_edge=low, longest_edge=max_pixels)


def save_policy(policy: LoadedPolicy, path: Path, state: dict[str, Any] | None = None) -> None:
    """Write weights or adapters (safetensors), the configuration, tokenizer and processor.

    Args:
        policy: the policy to write.
        path: a directory.
        state: the weights, where they were gathered from several processes.
    """
    options: dict[str, Any] = {}
    if state is not None:  # gathered weights do not show which of them are tied
        tied = policy.model.all_tied_weights_keys if isinstance(policy.model, PreTrainedModel) else {}
        options["state_dict"] = {name: weight for name, weight in state.items() if name not in tied}
    if isinstance(policy.model, PeftModel):
        policy.model.get_base_model().config.save_pretrained(path)
        # TRL's adapter "ref" is no part of the policy.
        policy.model.save_pretrained(path, selected_adapters=["default"], **options)
    else:
        policy.model.save_pretrained(path, **options)
    policy.processor.save_pretrained(path)
