"""The policy of a recipe or of a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.image_utils import SizeDict

from vrft.errors import PolicyError, RunError, first_line
from vrft.knowledge import Injection
from vrft.policies.families import KNOWN, frame_of, known_config
from vrft.policies.loading import LoadedPolicy, bound_pixels, is_adapter, load_policy, place_of
from vrft.policies.templates import check_envelope, prompt_end
from vrft.recipe import Policy, Recipe, TaskSection
from vrft.runs import RunDirectory
from vrft.sample import Sample
from vrft.tasks.task_sections import LocalizationTask


def frame_for(recipe: Recipe, task: TaskSection) -> str | None:
    """The frame in which the policy of a recipe writes boxes; None where the task has no boxes.

    Raises:
        PolicyError: the policy has no configuration.
    """
    if not isinstance(task, LocalizationTask):
        return None
    section = recipe.policy
    return task.frame or frame_of(
        place_of(section.model), revision=section.revision, trust_remote_code=section.trust_remote_code
    )


def load_for(recipe: Recipe, trained: Path | None, *, training: bool = False) -> LoadedPolicy:
    """Load the policy of the recipe, or the policy that a stage has written to ``trained``.

    Raises:
        PolicyError: it cannot be loaded (``load_policy``).
    """
    section = recipe.policy
    return load_policy(
        str(trained) if trained else section.model,
        revision=None if trained else section.revision,
        dtype=section.dtype,
        training=training,
        keep_float32=trained is not None,
        lora=lora_config(section) if training else None,
        merge_adapters=section.lora is not None and section.lora.between_stages == "merge",
        base=(section.model, section.revision) if trained else None,
        max_pixels=section.max_pixels,
        image_cache_gb=section.image_cache_gb,
        trust_remote_code=section.trust_remote_code,
    )


def policy_without_weights(section: Policy) -> LoadedPolicy:
    """The policy of a recipe with parameters on the ``meta`` device, from files of this machine alone.

    Of a model of ``KNOWN`` whose files are not here, the processor is a stub without a tokenizer (None).

    Raises:
        PolicyError: its configuration or processor is not on this machine, and it is not in ``KNOWN``.
    """
    config, processor = processor_without_weights(section)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=section.trust_remote_code)
    return LoadedPolicy(model, processor, place_of(section.model))


def processor_without_weights(section: Policy) -> tuple[Any, Any]:
    """The configuration and the processor of the policy of a recipe, as ``policy_without_weights`` has them.

    Raises:
        PolicyError: one is not on this machine, and the model is not in ``KNOWN``.
    """
    place = place_of(section.model)
    trusted = {"trust_remote_code": section.trust_remote_code}
    options = {"local_files_only": True, "revision": section.revision, **trusted}
    try:
        config = AutoConfig.from_pretrained(place, **options)
        processor = AutoProcessor.from_pretrained(place, padding_side="left", **options)
    except (OSError, ValueError, KeyError, ImportError):
        if section.model not in KNOWN:
            raise PolicyError(
                f"policy.model {section.model!r}: a plan needs its configuration and its processor, which are not on "
                f"this machine, and a plan downloads nothing. Download them without the weights (hf download "
                f"{section.model} --exclude '*.safetensors'), or give a directory that holds them. Planned without "
                f"any file: {', '.join(KNOWN)}."
            ) from None
        bounds = SizeDict(shortest_edge=56 * 56, longest_edge=16384 * 28 * 28)
        config, processor = known_config(section.model), SimpleNamespace(tokenizer=None)
        processor.image_processor = SimpleNamespace(size=bounds)
    if section.max_pixels is not None:
        bound_pixels(processor, section.max_pixels)
    return config, processor


def weights_are_here(name: str, revision: str | None = None) -> bool:
    """Whether all weights of a policy, and of the base of its adapters, are on this machine as safetensors."""
    place = Path(place_of(name))
    if not place.is_dir():
        try:
            place = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except (OSError, ValueError):
            return False
    if is_adapter(place):
        stated = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        base = weights_are_here(stated["base_model_name_or_path"], stated.get("revision"))
        return base and (place / "adapter_model.safetensors").is_file()
    index = place / "model.safetensors.index.json"
    shards = json.loads(index.read_text())["weight_map"].values() if index.is_file() else ["model.safetensors"]
    return all((place / shard).is_file() for shard in set(shards))


PLAIN_LORA: dict[str, Any] = {
    "bias": "none",
    "lora_bias": False,
    "inference_mode": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "ensure_weight_tying": False,
    **dict.fromkeys(("use_rslora", "use_dora"), False),
    **dict.fromkeys(("modules_to_save", "exclude_modules", "layers_to_transform", "layer_replication")),
    **dict.fromkeys(("trainable_token_indices", "target_parameters", "alora_invocation_tokens", "arrow_config")),
    **dict.fromkeys(("velora_config", "monteclora_config", "kasa_config", "use_bdlora")),
}
"""Plain LoRA: the same rank and scale for all target layers, and no variant."""


def lora_config(section: Policy) -> LoraConfig | None:
    """The LoRA configuration of a recipe, with every option that changes a result; None without adapters."""
    lora = section.lora
    return lora and LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        init_lora_weights=True,  # B is 0, so the policy is unchanged at the start
        revision=section.revision,  # of the base model
        **PLAIN_LORA,
    )


def _pretrained(auto_class: Any, section: Policy, noun: str) -> Any:
    """The tokenizer or processor of the policy of a recipe."""
    options = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    try:
        return auto_class.from_pretrained(place_of(section.model), **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        fault = f"policy.model {section.model!r} has no {noun} that can be read: {first_line(error)}"
        raise PolicyError(fault) from None


def check_budget(recipe: Recipe, injection: Injection, sample: Sample) -> None:
    """Check, before training, that the knowledge in the prompts of all arms fits into ``knowledge.max_tokens``.

    Raises:
        PolicyError: the knowledge takes more tokens of the policy's tokenizer.
    """
    tokenizer = _pretrained(AutoTokenizer, recipe.policy, "tokenizer")
    allowed = recipe.knowledge.max_tokens if recipe.knowledge else 0
    arms = [(arm, training) for arm in recipe.arm_names() for training in (True, False)]
    for prompt in sorted({recipe.condition_of(arm, training=training).prompt for arm, training in arms}):
        known = injection.apply(sample, prompt).knowledge
        tokens = len(tokenizer(known.prompt if known else "").input_ids)
        if tokens > allowed:
            raise PolicyError(
                f"the knowledge in the prompt takes {tokens} tokens ({prompt}), and knowledge.max_tokens is {allowed}; "
                f"name fewer knowledge.attributes, or allow more."
            )


def orders_of(recipe: Recipe) -> list[str]:
    """The orders of the envelope in the prompts of a recipe: those of its arms and of stages on other tasks."""
    orders: dict[str, None] = {}
    for arm in recipe.arm_names():
        if arm != "majority":
            of_stages = [stage.task.envelope for stage in recipe.stages_of(arm) if stage.task is not None]
            orders |= dict.fromkeys([recipe.condition_of(arm).envelope or recipe.task.envelope, *of_stages])
    return list(orders)


def check_envelopes(recipe: Recipe) -> None:
    """Check, before training, that the chat template allows the envelope of every arm.

    Raises:
        PolicyError: the template opens ``<think>``, and the envelope of an arm does not begin with it; or the processor
            is missing, or its chat template cannot be applied.
    """
    orders = [order for order in orders_of(recipe) if order != "think-answer"]
    if not orders:
        return
    end = prompt_end(_pretrained(AutoProcessor, recipe.policy, "processor"))
    for order in orders:
        check_envelope(recipe.policy.model, end, order)


def load_arm(recipe: Recipe, directory: RunDirectory, name: str, seed: int) -> LoadedPolicy:
    """Load the policy of a trained arm, or that of the recipe for an arm without training.

    Raises:
        RunError: the arm is unknown or has no policy, or its training is not done.
    """
    name = recipe.trained_as(name)
    if name not in recipe.arm_names() or name == "majority":
        arms = ", ".join(arm for arm in recipe.arm_names() if arm != "majority")
        raise RunError(f"{directory.path} has no policy of an arm {name!r}; it has {arms}.")
    stages = recipe.stages_of(name)
    if not stages:
        return load_for(recipe, None)
    stage = directory.arm(name, seed).stage(len(stages) - 1, stages[-1].kind)
    if not stage.done.exists():
        seeds = ", ".join(map(str, recipe.seeds))
        raise RunError(
            f"{directory.path}: the training of {name} with seed {seed} is not done (the recipe has seeds {seeds}); "
            f"finish it with vrft run --resume, an ablation with vrft ablate."
        )
    if not stage.policy.exists():
        raise RunError(
            f"{directory.path}: the weights of {name} with seed {seed} were not kept (ablation.keep_policies)."
        )
    return load_for(recipe, stage.policy)
