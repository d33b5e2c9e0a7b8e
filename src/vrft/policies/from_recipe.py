"""The policy that a recipe or a run names."""

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
from vrft.recipe import ENVELOPES, Policy, Recipe, TaskSection
from vrft.runs import RunDirectory
from vrft.sample import Sample
from vrft.tasks.task_sections import LocalizationTask


def frame_for(recipe: Recipe, task: TaskSection) -> str | None:
    """The frame that the policy of a recipe speaks, where boxes are asked for."""
    if not isinstance(task, LocalizationTask):
        return None
    section = recipe.policy
    return task.frame or frame_of(
        place_of(section.model), revision=section.revision, trust_remote_code=section.trust_remote_code
    )


def load_for(recipe: Recipe, trained: Path | None, *, training: bool = False) -> LoadedPolicy:
    """The policy of the recipe, or what a stage made of it, to be evaluated or trained."""
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
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, **trusted)
    return LoadedPolicy(model, processor, place)


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
"""Adapters of one rank and scale on the named layers, and no variant of LoRA."""


def lora_config(section: Policy) -> LoraConfig | None:
    """The adapters of a recipe, with every option that decides a result."""
    lora = section.lora
    return lora and LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        init_lora_weights=True,  # B is 0: the policy starts as it is
        revision=section.revision,  # of the model that they belong to
        **PLAIN_LORA,
    )


def check_budget(recipe: Recipe, injection: Injection, sample: Sample) -> None:
    """Make sure that nothing that the arms of a recipe are told is too long for it, before anything is trained.

    Raises:
        PolicyError: it takes more tokens of the policy than the recipe allows.
    """
    section = recipe.policy
    options = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place_of(section.model), **options)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(
            f"policy.model {section.model!r} has no tokenizer that can be read: {first_line(error)}"
        ) from None
    allowed = recipe.knowledge.max_tokens if recipe.knowledge else 0
    for told in sorted(
        {recipe.told(arm, training=training) for arm in recipe.arm_names() for training in (True, False)}
    ):
        known = injection.into(sample, told).knowledge
        taken = len(tokenizer(known.prompt if known else "").input_ids)
        if taken > allowed:
            raise PolicyError(
                f"what the policy is told takes {taken} tokens ({told}), and knowledge.max_tokens is {allowed}; "
                f"name fewer knowledge.attributes, or allow more."
            )


def orders_of(recipe: Recipe) -> list[str]:
    """The orders of the envelope that the arms of a recipe ask a policy for, those of stages on other tasks too."""
    asked: dict[str, None] = {}
    for arm in recipe.arm_names():
        if arm != "majority":
            own = [stage.task.envelope for stage in recipe.stages_of(arm) if stage.task is not None]
            asked |= dict.fromkeys([ENVELOPES.get(arm, recipe.task.envelope), *own])
    return list(asked)


def check_envelopes(recipe: Recipe) -> None:
    """Make sure that every arm asks for an envelope that the chat template leaves possible, before one is trained.

    Raises:
        PolicyError: the template opens ``<think>``, and an arm asks for an envelope that does not begin with it; or
            there is no processor, or its chat template cannot be applied.
    """
    orders = [order for order in orders_of(recipe) if order != "think-answer"]
    if not orders:
        return
    section = recipe.policy
    options = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    try:
        processor = AutoProcessor.from_pretrained(place_of(section.model), **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PolicyError(
            f"policy.model {section.model!r} has no processor that can be read: {first_line(error)}"
        ) from None
    end = prompt_end(processor)
    for order in orders:
        check_envelope(section.model, end, order)


def load_arm(recipe: Recipe, directory: RunDirectory, name: str, seed: int) -> LoadedPolicy:
    """The policy of a trained arm, or that of the recipe for an arm that is not trained.

    Raises:
        RunError: the arm is not there, answers without a policy, or its training is not done.
    """
    name = recipe.trained_as(name)
    if name not in recipe.arm_names() or name == "majority":
        arms = ", ".join(arm for arm in recipe.arm_names() if arm != "majority")
        raise RunError(f"{directory.path} has no policy of an arm {name!r}; it has {arms}.")
    stages = recipe.stages_of(name)
    if not stages:
        return load_for(recipe, None)
    place = directory.arm(name, seed).stage(len(stages) - 1, stages[-1].kind)
    if not place.done.exists():
        seeds = ", ".join(map(str, recipe.seeds))
        raise RunError(
            f"{directory.path}: the training of {name} with seed {seed} is not done (the recipe has seeds {seeds}); "
            f"finish it with vrft run --resume, an ablation with vrft ablate."
        )
    if not place.policy.exists():
        raise RunError(
            f"{directory.path}: the weights of {name} with seed {seed} were not kept (ablation.keep_policies)."
        )
    return load_for(recipe, place.policy)
