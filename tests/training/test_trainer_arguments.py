"""No default of a library changes a result: each option is passed, or listed here with the reason why it cannot."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer, SFTConfig

from vrft.data import PhantomSource
from vrft.experiment.opened import open_experiment
from vrft.policies import decode, load_policy
from vrft.policies.from_recipe import lora_config
from vrft.policies.loading import TINY, LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import Policy, RftStage, SftStage, read_recipe
from vrft.runs import StageDirectory
from vrft.sample import Sample, open_image
from vrft.tasks import Grading
from vrft.training.callback import StageCallback
from vrft.training.rft import make_trainer
from vrft.training.seeded import SeededTrainer
from vrft.training.sft import train_sft
from vrft.training.trainer_arguments import trainer_options

Reasons = Mapping[str, tuple[str, ...]]
"""Why the default of a field cannot change a result, and the fields of which that is true."""

EVERY_TRAINER: Reasons = {
    "the trainer's own evaluation, which is off (eval_strategy no, and no data set to evaluate on)": (
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "per_device_eval_batch_size",
        "prediction_loss_only",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "eval_accumulation_steps",
        "include_for_metrics",
        "batch_eval_metrics",
        "bf16_full_eval",
        "fp16_full_eval",
        "label_names",
        "metric_for_best_model",
        "greater_is_better",
    ),
    "pushing to the hub, which is off (push_to_hub)": (
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
    ),
    "what the trainer prints, measures or counts beside its work, none of which our log takes": (
        "log_on_each_node",
        "include_num_input_tokens_seen",
        "skip_memory_metrics",
        "debug",
    ),
    "where a checkpoint is written, not what stands in it": ("save_on_each_node",),
    "left to scripts; no trainer reads it": (
        "do_train",
        "do_eval",
        "do_predict",
        "resume_from_checkpoint",
        "local_rank",
    ),
    "an old name, which takes the value of the new one, activation_checkpointing, that is passed": (
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
    ),
    "read only with optimisers on projected gradients (GaLore, APOLLO); optim is passed": ("optim_target_modules",),
    "read only with use_liger_kernel, which is passed as off": ("liger_kernel_config",),
    "read only where batches are made by length, as train_sampling_strategy does not": ("length_column_name",),
    "how to load a policy by its name; it is passed loaded, and so is its reference": ("model_init_kwargs",),
    "how work and weights are spread over devices, as the launcher says; what is added up is the same": (
        "parallelism_config",
        "fsdp",
        "fsdp_config",
        "deepspeed",
        "ddp_backend",
        "ddp_bucket_cap_mb",
    ),
    "memory or speed, not values": (
        "use_cache",
        "torch_empty_cache_steps",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
    ),
}
"""Of ``transformers.TrainingArguments``, which both configurations extend."""

RFT: Reasons = {
    "the trainer samples rows by itself (RepeatSampler), in the order of the data set": ("train_sampling_strategy",),
    "the trainer's own evaluation, which is off": ("num_generations_eval",),
    "tool calls and environments, which are not used": ("max_tool_calling_iterations",),
    "read only with sync_ref_model, which is passed as off": ("ref_model_mixup_alpha", "ref_model_sync_steps"),
    "read only with use_adaptive_entropy, which is passed as off": (
        "entropy_coef_min",
        "entropy_coef_max",
        "entropy_coef_delta",
        "entropy_target",
    ),
    "what is shown of completions with log_completions, which is passed as off": (
        "log_multimodal",
        "num_completions_to_print",
        "log_unique_prompts",
        "log_completions_hub_repo",
    ),
    "continuous batching, which is passed as off and refused for policies that see": (
        "transformers_continuous_batching_config",
        "use_transformers_paged",
    ),
    "a deprecated name for vllm_importance_sampling_clip_max, which stands unless it is set": (
        "vllm_importance_sampling_cap",
    ),
    "vLLM as a server, which has no key": (
        "vllm_server_base_url",
        "vllm_server_host",
        "vllm_server_port",
        "vllm_server_timeout",
        "vllm_group_port",
    ),
    "memory or speed, not values": ("vllm_enable_sleep_mode",),
}
"""Of ``trl.GRPOConfig``, whatever samples."""

WITHOUT_VLLM: Reasons = {
    "vLLM, which samples nothing here (use_vllm is passed as off)": (
        "vllm_mode",
        "vllm_model_impl",
        "vllm_structured_outputs_regex",
        "vllm_gpu_memory_utilization",
        "vllm_max_model_length",
        "vllm_tensor_parallel_size",
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
        "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min",
    ),
}
"""Of ``trl.GRPOConfig`` where transformers samples."""

SFT: Reasons = {
    "texts that are prepared beforehand; rows with images are prepared when they are asked for": (
        "dataset_text_field",
        "dataset_kwargs",
        "dataset_num_proc",
    ),
    "read only to load what is named; policy and processor are passed loaded": ("trust_remote_code",),
    "where a sequence is cut; max_length is passed as none": ("truncation_mode",),
    "read only with packing, which is passed as off": ("packing_strategy",),
    "the trainer's own evaluation, which is off": ("eval_packing",),
    "memory or speed, not values": ("activation_offloading",),
}
"""Of ``trl.SFTConfig``."""

ADAPTERS: Reasons = {
    "filled in by peft, whatever it says": ("peft_type", "peft_version", "base_model_name_or_path"),
    "read only where task_type is none": ("auto_mapping",),
    "set by the kind of each layer, whatever it says": ("fan_in_fan_out",),
    "read only with layers_to_transform": ("layers_pattern",),
    "read only by an initialisation of that name; init_lora_weights is passed": (
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
    ),
    "read only by the quantised layers of GPTQ, which are not loaded": ("use_qalora", "qalora_group_size"),
    "read only by the layers of Megatron, which are not loaded": ("megatron_config", "megatron_core"),
    "memory or speed, not values": ("runtime_config",),
}
"""Of ``peft.LoraConfig``."""


class PassedOn(Exception):
    """What a configuration would have been made of."""


def recorder(**options: Any) -> None:
    raise PassedOn(options)


def samples_of(count: int) -> list[Sample]:
    return list(PhantomSource("grading", sizes={"train": count, "validation": 0, "test": 0}).samples("train"))


@pytest.fixture(scope="module")
def policy() -> LoadedPolicy:
    return load_policy("tiny", dtype="float32")


@pytest.fixture
def passed(policy: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """What our code passes to a configuration, which is not made."""
    directory, reporter = StageDirectory(tmp_path), Reporter(quiet=True)

    def make(case: str) -> None:
        if case == "adapters":
            lora_config(Policy.model_validate({"lora": {}}))
        elif case == "sft":
            stage = SftStage(kind="sft")
            train_sft(policy, stage, Grading(5), samples_of(1), directory, seed=0, reporter=reporter)
        else:
            stage = RftStage(kind="rft", rollouts=case)
            callback = StageCallback(directory, stage, reporter, "")
            make_trainer(policy, stage, Grading(5), samples_of(1), directory, callback, seed=0)

    def options(case: str) -> dict[str, Any]:
        for place in ("training.rft.GRPOConfig", "training.sft.SFTConfig", "policies.from_recipe.LoraConfig"):
            monkeypatch.setattr(f"vrft.{place}", recorder)
        with pytest.raises(PassedOn) as caught:
            make(case)
        return dict(caught.value.args[0])

    return options


CASES: dict[str, tuple[type, Sequence[Reasons]]] = {
    "transformers": (GRPOConfig, [EVERY_TRAINER, RFT, WITHOUT_VLLM]),
    "vllm": (GRPOConfig, [EVERY_TRAINER, RFT]),
    "sft": (SFTConfig, [EVERY_TRAINER, SFT]),
    "adapters": (LoraConfig, [ADAPTERS]),
}
"""Each configuration that our code makes; that of RFT by what samples."""


def listed(tables: Sequence[Reasons]) -> list[str]:
    return [name for table in tables for names in table.values() for name in names]


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_a_configuration_is_passed_or_cannot_change_a_result(passed, case: str):
    kind, tables = CASES[case]
    known = {field.name for field in fields(kind)}
    named = set(passed(case)) | set(listed(tables))
    assert not (known - named), f"pass, or list with a reason: {sorted(known - named)}"
    assert not (named - known), f"are no fields any more: {sorted(named - known)}"


@pytest.mark.parametrize("case", CASES)
def test_no_field_is_both_passed_and_said_not_to_matter(passed, case: str):
    _, tables = CASES[case]
    assert sorted(set(passed(case)) & set(listed(tables))) == []
    assert [name for name, times in Counter(listed(tables)).items() if times > 1] == []


def test_every_reason_is_a_sentence_about_some_fields():
    for table in (EVERY_TRAINER, RFT, WITHOUT_VLLM, SFT, ADAPTERS):
        for reason, names in table.items():
            assert len(reason.split()) > 3
            assert names


@pytest.mark.parametrize(("kind", "case"), [(GRPOConfig, "transformers"), (SFTConfig, "sft")])
def test_the_configuration_holds_what_is_passed(passed, kind: type, case: str):
    options = passed(case)
    made = kind(**options)
    resolved = ("lr_scheduler_type", "optim", "logging_strategy", "save_strategy", "eval_strategy")
    resolved += ("generation_batch_size", "accelerator_config")
    changed = {name: getattr(made, name) for name in options if getattr(made, name) != options[name]}
    assert {name: one for name, one in changed.items() if name not in resolved} == {}
    assert made.gradient_checkpointing is options["activation_checkpointing"]
    assert made.gradient_checkpointing_kwargs == options["activation_checkpointing_kwargs"]


def test_a_run_says_as_much_of_its_loggers_as_a_stage_on_its_own(small_recipe: Path, tmp_path: Path):
    experiment, place = open_experiment(read_recipe(small_recipe), Reporter(quiet=True)), StageDirectory(tmp_path)
    stage = RftStage(kind="rft")
    alone = trainer_options(stage, place, 0, 32)
    assert set(alone) == set(trainer_options(stage, place, 0, 32, trackers=experiment._trackers("rft", 0, 0, place)))


# --- generation -------------------------------------------------------------------------------------------------------

OF_THE_MODEL: dict[str, dict[str, Any]] = {
    "repetitions": {"no_repeat_ngram_size": 1},
    "penalties": {"repetition_penalty": 2.0, "encoder_repetition_penalty": 3.0},
    "lengths": {"min_new_tokens": 30, "min_length": 4000},
    "words": {"bad_words_ids": [[347]], "sequence_bias": [[[351], 50.0]], "begin_suppress_tokens": [1304]},
    "early end": {"exponential_decay_length_penalty": [2, 5.0]},
    "search": {"num_beams": 3, "length_penalty": 5.0, "do_sample": True, "temperature": 5.0, "top_k": 3, "min_p": 0.2},
    "several": {"num_return_sequences": 2, "do_sample": True},
    "dictionaries": {"return_dict_in_generate": True, "output_scores": True},
    "time": {"max_time": 1e-9},
}
"""What a model can say of how it is sampled, in its ``generation_config.json``; all of it is the recipe's to say."""


def policy_that_says(folder: Path, said: dict[str, Any]) -> LoadedPolicy:
    """The embedded policy with more in its ``generation_config.json``."""
    folder.mkdir()
    for file in TINY.iterdir():
        os.symlink(file, folder / file.name)
    (folder / "generation_config.json").unlink()
    own = json.loads((TINY / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(own | said))
    return load_policy(str(folder), dtype="float32")


def greedily(policy: LoadedPolicy) -> list[list[int]]:
    samples = samples_of(3)
    images = [open_image(sample.images[0]) for sample in samples]
    prompts = [policy.prompt(Grading(5), sample, image.size) for sample, image in zip(samples, images, strict=True)]
    return decode(policy, prompts, images, max_tokens=16)


@pytest.fixture(scope="module")
def as_it_is(policy: LoadedPolicy) -> list[list[int]]:
    return greedily(policy)


@pytest.mark.parametrize("said", OF_THE_MODEL)
def test_greedy_decoding_does_not_follow_what_a_model_says_of_generation(tmp_path: Path, as_it_is, said: str):
    assert greedily(policy_that_says(tmp_path / "model", OF_THE_MODEL[said])) == as_it_is


def sampled(policy: LoadedPolicy, folder: Path, kind: type[GRPOTrainer] | None) -> list[list[int]]:
    """Rollouts of two groups, by the trainer that repeats prompts or the one that shares them."""
    stage = RftStage(
        kind="rft",
        prompts_per_step=2,
        group_size=3,
        max_completion_tokens=12,
        temperature=2.0,
        kl=0.0,
        shared_prefix=kind is None,
    )
    directory, samples = StageDirectory(folder), samples_of(2)
    callback = StageCallback(directory, stage, Reporter(quiet=True), "")
    trainer = make_trainer(policy, stage, Grading(5), samples, directory, callback, seed=0)
    assert kind is None or type(trainer) is kind
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 0, 0, 1, 1, 1)]
    batch = trainer._generate_and_score_completions(rows)
    return [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    drawn = sampled(load_policy("tiny", dtype="float32"), tmp_path_factory.mktemp("plain"), None)
    assert len({tuple(one) for one in drawn}) > 3
    return drawn


@pytest.mark.parametrize("kind", [None, SeededTrainer])
@pytest.mark.parametrize("said", ["repetitions", "lengths", "words", "several"])
def test_rollouts_do_not_follow_what_a_model_says_of_generation(
    tmp_path: Path, rolled_out, said: str, kind: type[GRPOTrainer] | None
):
    assert sampled(policy_that_says(tmp_path / "model", OF_THE_MODEL[said]), tmp_path / "stage", kind) == rolled_out
