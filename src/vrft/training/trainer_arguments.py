"""The arguments of the trainers: every option that changes a result is passed, and none is left to a default.

A test compares them with the fields of the installed configuration classes: each field is passed here, or is on the
list of the test with the reason why its default cannot change a result.
"""

from collections.abc import Mapping, Sequence
from multiprocessing import get_start_method
from typing import Any

import torch

from vrft.errors import UserError
from vrft.processes import GROUP_TIMEOUT, process_count
from vrft.recipe import RftStage, SftStage
from vrft.runs import StageDirectory

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""The parameters of AdamW in every stage."""

SAPO_TEMPERATURES = {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
"""For completions with a positive advantage and for others (arXiv 2511.20347)."""

VESPO = {"vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0}
"""Exponent and decay of the weights of the VESPO loss (arXiv 2602.10693)."""

NEVER_CAPPED = 1e6
"""The cap of the ratio for ``rejection``, where the ratio is 1."""

ACCELERATOR = {
    "split_batches": False,
    "dispatch_batches": None,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
    "gradient_accumulation_kwargs": None,
    "use_configured_state": False,
}
"""How accelerate distributes batches: each process reads its own, in the order of the dataset."""


def sequences_per_process(sequences: int) -> int:
    """The number of sequences of a step in each process.

    Raises:
        UserError: the number of processes does not divide the sequences.
    """
    processes = process_count()
    if sequences % processes:
        raise UserError(
            f"a step has {sequences} sequences, which {processes} processes cannot share evenly; "
            f"change prompts_per_step, group_size or batch_size, or the number of processes."
        )
    return sequences // processes


def check_processes(stage: RftStage | SftStage) -> None:
    """Check that the processes of a run can divide the sequences of a stage.

    Raises:
        UserError: the numbers of sequences, processes and micro-batches do not fit, or ``dynamic_sampling`` is set.
    """
    sequences = stage.prompts_per_step * stage.group_size if isinstance(stage, RftStage) else stage.batch_size
    each = sequences_per_process(sequences)
    if each % min(stage.micro_batch or each, each):
        raise UserError(
            f"micro_batch is {stage.micro_batch}, which does not divide the {each} sequences that each process has."
        )
    if isinstance(stage, RftStage) and stage.dynamic_sampling and process_count() > 1:
        raise UserError("dynamic_sampling is not possible where training runs in several processes; set it to 0.")


def trainer_options(
    stage: RftStage | SftStage,
    directory: StageDirectory,
    seed: int,
    sequences: int,
    *,
    compute: torch.dtype = torch.float32,
    trackers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The training arguments of both trainers.

    Args:
        stage: the stage of the recipe.
        directory: the directory of the stage, for checkpoints.
        seed: the seed of the run.
        sequences: the number of sequences of a step, over all processes.
        compute: the dtype of computations; bfloat16 is autocast.
        trackers: ``report_to``, ``project`` and ``run_name``; by default no logger.

    Raises:
        UserError: the number of processes does not divide the sequences.
    """
    cuda = torch.cuda.is_available()
    each = sequences_per_process(sequences)
    micro = min(stage.micro_batch or each, each)
    workers = stage.loader_workers
    if workers is None:  # without fork, the function that builds rows cannot be pickled
        workers = 2 if cuda and get_start_method() == "fork" else 0
    return {
        "output_dir": str(directory.path),
        "max_steps": stage.steps,
        "num_train_epochs": 1.0,  # max_steps counts
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": each // micro,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.lr_schedule if stage.lr_schedule != "constant" else "constant_with_warmup",
        "lr_scheduler_kwargs": None,
        "warmup_steps": stage.warmup_steps,
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "optim": "adamw_torch",
        "optim_args": None,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "adam_epsilon": EPSILON,
        "average_tokens_across_devices": True,  # several processes have the loss of a single process
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "activation_checkpointing": stage.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "use_liger_kernel": False,
        "torch_compile": False,
        "torch_compile_backend": None,  # a value here would switch compilation on
        "torch_compile_mode": None,
        "auto_find_batch_size": False,
        "full_determinism": False,
        "logging_strategy": "steps",
        "logging_steps": stage.log_every,
        "logging_first_step": False,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "save_strategy": "steps",
        "save_steps": stage.save_every,
        "save_total_limit": 2,
        "save_only_model": False,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "ignore_data_skip": False,  # a stage that resumes continues in the data where it stopped
        "restore_callback_states_from_checkpoint": False,
        "enable_jit_checkpoint": False,  # an interrupted stage is not done
        "dataloader_drop_last": False,
        "dataloader_in_order": True,
        "accelerator_config": dict(ACCELERATOR),
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not cuda,
        "bf16": compute == torch.bfloat16,
        "fp16": False,
        "tf32": None,  # as torch is set up
        "ddp_find_unused_parameters": True,  # a pass may not use all adapters or the vision tower
        "ddp_broadcast_buffers": True,
        "ddp_static_graph": False,
        "ddp_timeout": GROUP_TIMEOUT,
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "log_level": "passive",
        "log_level_replica": "passive",
        "push_to_hub": False,
        "trackio_space_id": None,  # nothing leaves the machine
        "trackio_bucket_id": None,
        "trackio_static_space_id": False,
        **(trackers or {"report_to": [], "project": "vrft", "run_name": None}),
    }


def sft_options() -> dict[str, Any]:
    """The arguments of TRL's ``SFTConfig`` only."""
    return {
        "train_sampling_strategy": "sequential",  # the dataset is in order already
        "shuffle_dataset": False,
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "loss_type": "nll",
        "max_length": None,
        "pad_to_multiple_of": None,
        "chat_template_path": None,
        "packing": False,
        "padding_free": False,
        "eos_token": None,  # the tokenizer's own
        "pad_token": None,
        "router_aux_loss_coef": None,  # as the model's configuration says
    }


def rollout_options(stage: RftStage, suppressed: Sequence[int]) -> dict[str, Any]:
    """The arguments of the sampling engine, and the tokens that it must never write, in the form of each engine."""
    if stage.rollouts == "transformers":
        return {"use_vllm": False, "generation_kwargs": {"suppress_tokens": list(suppressed)}}
    corrected = stage.vllm.correction != "none"
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": stage.vllm.memory,
        "vllm_model_impl": "vllm",
        "vllm_tensor_parallel_size": 1,
        "vllm_max_model_length": None,  # as the model's configuration says
        "vllm_structured_outputs_regex": None,
        "vllm_importance_sampling_correction": corrected,
        "vllm_importance_sampling_mode": stage.vllm.correction if corrected else "sequence_mask",
        "vllm_importance_sampling_clip_max": stage.vllm.cap,
        "vllm_importance_sampling_clip_min": None,
        "generation_kwargs": {"logit_bias": dict.fromkeys(suppressed, -100.0)},
    }


def loss_options(stage: RftStage) -> dict[str, Any]:
    """The arguments of the objective: loss, clipping, ratio, KL estimator, and masks."""
    rejection = stage.loss == "rejection"  # TRL's `cispo` at ratio 1 is -advantage * log-probability
    return {
        "loss_type": "cispo" if rejection else stage.loss,
        "epsilon": stage.clip,
        "epsilon_high": NEVER_CAPPED if rejection else stage.clip if stage.clip_high is None else stage.clip_high,
        "delta": None,  # no second clip
        "importance_sampling_level": stage.importance_sampling,
        "use_bias_correction_kl": stage.kl_estimator == "unbiased",
        "mask_truncated_completions": stage.mask_truncated,
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,  # all tokens count
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "sync_ref_model": False,  # the reference stays the policy that the stage starts from
        "router_aux_loss_coef": None,  # as the model's configuration says
        "cast_lm_head_to_fp32": False,
        **SAPO_TEMPERATURES,
        **VESPO,
    }


def grpo_options(stage: RftStage, suppressed: Sequence[int], accumulated: int) -> dict[str, Any]:
    """The arguments of TRL's ``GRPOConfig`` only, except ``beta``.

    Args:
        stage: the stage of the recipe.
        suppressed: ids of tokens that are never sampled.
        accumulated: the number of micro-batches of a step; a batch of rollouts is as large as a step.
    """
    return {
        "num_generations": stage.group_size,
        "num_iterations": stage.updates_per_batch,
        "steps_per_generation": accumulated,
        "generation_batch_size": None,  # follows from steps_per_generation
        "max_completion_length": stage.max_completion_tokens,
        "temperature": stage.temperature,
        "top_p": stage.top_p,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "cache_implementation": None,
        "chat_template_kwargs": None,
        "pad_to_multiple_of": None,
        "ds3_gather_for_generation": True,
        "use_transformers_continuous_batching": False,
        "scale_rewards": stage.scale_rewards,
        "multi_objective_aggregation": stage.aggregation,
        "reward_weights": list(stage.weights().values()),
        "shuffle_dataset": False,  # the dataset is in order already
        "disable_dropout": True,
        "log_completions": False,  # the rollouts are kept in a file of ours
        **rollout_options(stage, suppressed),
        **loss_options(stage),
    }
