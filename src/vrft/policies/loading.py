"""Load a vision-language policy: the embedded one, a directory or a model of the Hugging Face hub, all the same way."""

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
from vrft.errors import PolicyError, first_line
from vrft.image_log import ImageLog
from vrft.policies.families import family_of, processed_size
from vrft.policies.image_cache import ImageCache, default_folder
from vrft.policies.templates import prompt_end, render_prompt
from vrft.processes import local_index
from vrft.sample import Grey, Sample, open_image, read_as
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
    """Adapters that a trainer is to put in."""
    merges_adapters: bool = False
    """When a stage is done its adapters are merged into the weights, in float32; else they are handed on."""
    compute: torch.dtype = torch.float32
    """What training computes in: bfloat16 is autocast over float32 weights that are trained."""
    reference: PreTrainedModel | None = None
    """A frozen copy of the weights that a stage starts from, where it has a KL term and trains all weights."""
    trust_remote_code: bool = False
    cache: ImageCache | None = None
    """Images that were opened before; None where each is opened anew."""
    image_log: ImageLog = field(default_factory=ImageLog)
    """Which of the pictures that were opened are odd, such as those of one value only."""

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
            image, size = self.cache.open(sample, self.processor, self.model.config)
        else:
            image = open_image(sample)
            size = image.size
        if not isinstance(sample.image, Grey):  # which shows nothing on purpose
            self.image_log.note(image, sample.id, lambda: read_as(sample))
        return image, size

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

    def prompt_text(self, prompt: str, image: Any) -> str:
        """That conversation as the model reads it, up to where it begins to write."""
        return render_prompt(self.processor, self.messages(prompt, image))

    @property
    def prompt_end(self) -> str:
        """What the chat template opens the policy's turn with, such as ``<think>`` and a line break; mostly ""."""
        return prompt_end(self.processor)


def quiet_libraries() -> None:
    """Keep bars and notes of transformers off the terminal; errors are told by exceptions."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def place_of(name: str) -> str:
    """The folder or hub name behind the name of a policy in a recipe."""
    if name == "tiny":
        return str(TINY)
    path = Path(os.path.expanduser(name))
    return str(path.resolve()) if path.is_dir() else str(name)  # adapters remember where their base lies


def compute_type(dtype: str) -> torch.dtype:
    """What a policy computes in, by ``policy.dtype`` of a recipe."""
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

    Weights that are to be trained are float32, whatever the policy computes in: steps of 1e-5 vanish in bfloat16, whose
    numbers lie 0.4% apart. A base under adapters has the type that is computed in. Weights that a stage has saved, in
    float32, are evaluated in float32, so that what is evaluated is what was saved.

    Args:
        name: ``tiny``, a directory, or a name on the hub. A directory may hold whole weights or an adapter.
        revision: of a hub model.
        dtype: what it computes in: a key of ``DTYPES``, or ``auto``: bfloat16 on a GPU that has it, float32 elsewhere.
        training: it is going to be trained: all weights, or with ``lora`` adapters.
        keep_float32: whole weights that were saved in float32 stay so, whatever is computed in.
        lora: adapters to train. Those of an adapter directory are trained further where ``base`` is given (they are of
            the run that goes on); else they belong to the start, are merged into it in float32, new ones are put in.
        merge_adapters: what a stage trains is merged when it is done.
        base: name and revision of the model that the adapters of a directory belong to; without it what they say.
        max_pixels: upper bound on the pixels of an image after resizing.
        image_cache_gb: how much of resized images is kept on disk, in 1e9 bytes; 0 keeps none.
        trust_remote_code: run code that comes with the model.

    Raises:
        PolicyError: it cannot be found or loaded, or does not pad on the left.
    """
    path, compute = place_of(name), compute_type(dtype)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    goes_on = lora is not None and base is not None
    try:
        if is_adapter(path) and (goes_on or not training):
            model = _with_adapters(path, base, compute, trust_remote_code, training=training)
        elif is_adapter(path):
            model = _merged(path, base, trust_remote_code)
        else:
            whole = training and lora is None
            kept = whole or (keep_float32 and compute != torch.float16 and _is_float32(path, options))
            dtype_of_weights = torch.float32 if kept else compute
            model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype_of_weights, **options)
        processor = AutoProcessor.from_pretrained(path, padding_side="left", **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(
            f"policy.model {name!r} cannot be loaded: {first_line(error)} Give 'tiny', a directory with a model "
            f"and its processor, or a hub name that this machine can reach."
        ) from None
    forget_sampling(model)
    if max_pixels is not None:
        bound_pixels(processor, max_pixels)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer(["a", "a a a a"], padding=True).attention_mask[0][0] != 0:
        raise PolicyError(f"policy.model {name!r}: its tokenizer does not pad on the left, which sampling needs.")
    if torch.cuda.is_available():
        model = model.to(f"cuda:{local_index()}")
    lora = None if isinstance(model, PeftModel) else lora
    cache = ImageCache(default_folder(), int(image_cache_gb * 1e9)) if image_cache_gb else None
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


def forget_sampling(model: PreTrainedModel | PeftModel) -> None:
    """Keep of a model's own way to generate only which tokens begin, end and pad.

    transformers fills what a call of ``generate`` leaves open from there, such as a repetition penalty.
    """
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    own = whole.generation_config
    tokens = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    whole.generation_config = GenerationConfig(**tokens)


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds adapters, and no whole weights."""
    return (Path(path) / "adapter_config.json").is_file()


def _is_float32(path: str, options: dict[str, Any]) -> bool:
    """Whether whole weights were saved in float32."""
    return getattr(AutoConfig.from_pretrained(path, **options), "dtype", None) == torch.float32


def _with_adapters(
    path: str, base: tuple[str, str | None] | None, compute: torch.dtype, trust_remote_code: bool, *, training: bool
) -> PeftModel:
    """The adapters of a directory, in float32, over the model that they belong to."""
    stated = json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))
    of, revision = base or (stated["base_model_name_or_path"], stated.get("revision"))
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    if is_adapter(place_of(of)):
        whole = _merged(place_of(of), None, trust_remote_code)
    else:
        whole = AutoModelForImageTextToText.from_pretrained(place_of(of), dtype=compute, **options)
    return PeftModel.from_pretrained(whole, path, is_trainable=training, autocast_adapter_dtype=True)


def _merged(path: str, base: tuple[str, str | None] | None, trust_remote_code: bool) -> PreTrainedModel:
    """The whole weights, in float32, that the adapters of a directory make of their model."""
    model = _with_adapters(path, base, torch.float32, trust_remote_code, training=False).float().merge_and_unload()
    model.config._name_or_path = model.name_or_path = path  # what new adapters will say that they belong to
    merged: PreTrainedModel = model.requires_grad_(True)  # adapters that are not trained had frozen it
    return merged


def bound_pixels(processor: Any, max_pixels: int) -> None:
    """Set the upper bound on the pixels of an image after resizing."""
    low = min(processor.image_processor.size["shortest_edge"], max_pixels)
    processor.image_processor.size = SizeDict(shortest_edge=low, longest_edge=max_pixels)


def save_policy(policy: LoadedPolicy, path: Path, state: dict[str, Any] | None = None) -> None:
    """Write weights or adapters (safetensors), the configuration, tokenizer and processor.

    Args:
        policy: what is written.
        path: a directory.
        state: the weights, where they were gathered from several processes.
    """
    options: dict[str, Any] = {}
    if state is not None:  # gathered weights no longer show which of them are one
        tied = policy.model.all_tied_weights_keys if isinstance(policy.model, PreTrainedModel) else {}
        options["state_dict"] = {name: one for name, one in state.items() if name not in tied}
    if isinstance(policy.model, PeftModel):
        policy.model.get_base_model().config.save_pretrained(path)
        # TRL's adapter "ref" is no part of the policy.
        policy.model.save_pretrained(path, selected_adapters=["default"], **options)
    else:
        policy.model.save_pretrained(path, **options)
    policy.processor.save_pretrained(path)
