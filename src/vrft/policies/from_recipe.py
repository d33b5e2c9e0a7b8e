"""The policy that a recipe or a run names."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import AutoProcessor, AutoTokenizer

from vrft.errors import PolicyError, RunError, first_line
from vrft.knowledge import Injection
from vrft.policies.families import frame_of
from vrft.policies.loading import LoadedPolicy, load_policy, place_of
from vrft.policies.templates import check_envelope, prompt_end
from vrft.recipe import Policy, Recipe, TaskSection
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
    """Check that the prior knowledge in the prompts of all arms is short enough, before anything is trained.

    Raises:
        PolicyError: it has more tokens of the policy than the recipe allows.
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
    conditions = [
        recipe.condition_of(arm, training=training) for arm in recipe.arm_names() for training in (True, False)
    ]
    for prompt in sorted({condition.prompt for condition in conditions}):
        known = injection.apply(sample, prompt).knowledge
        used = len(tokenizer(known.prompt if known else "").input_ids)
        if used > allowed:
            raise PolicyError(
                f"the prior knowledge in the prompt has {used} tokens ({prompt}), and knowledge.max_tokens is "
                f"{allowed}; name fewer knowledge.attributes, or allow more."
            )


def orders_of(recipe: Recipe) -> list[str]:
    """The orders of the envelope that the arms of a recipe ask a policy for, those of stages on other tasks too."""
    asked: dict[str, None] = {}
    for arm in recipe.arm_names():
        if arm != "majority":
            own = [stage.task.envelope for stage in recipe.stages_of(arm) if stage.task is not None]
            asked |= dict.fromkeys([recipe.condition_of(arm).envelope or recipe.task.envelope, *own])
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
