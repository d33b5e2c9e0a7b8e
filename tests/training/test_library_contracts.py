"""The names of TRL, transformers and accelerate that are no public interface, and where the code uses them.

A release of a library may change such a name without notice. Each is listed once, with its arguments where the code
passes or overrides them; the first test says which of them changed, and the last finds names that the list lacks.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from trl import GRPOTrainer

from vrft.training.rollouts import PreallocatedCacheLayer
from vrft.training.seeded import SeededSampling, SeededTrainer
from vrft.training.shared_prefix import SharedPrefixTrainer

ROOT = Path(__file__).parents[2]
GRPO = "trl.trainer.grpo_trainer.GRPOTrainer"
MODELS = [f"transformers.models.{kind}.modeling_{kind}" for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")]
PROCESSORS = "transformers.models.qwen2_vl.image_processing_qwen2_vl.Qwen2VLImageProcessor"
LAYER = "transformers.cache_utils.DynamicLayer"


class Contract(NamedTuple):
    """A name of a library that is not public, or a detail of it that the code relies on."""

    name: str
    """Module, class and attribute."""
    used_in: str
    """The module of ``vrft`` or the script."""
    breaks: str
    """What stops working when the name changes."""
    arguments: tuple[str, ...] | None = None
    """The first parameters of a function."""
    contains: str = ""
    """A part of its source text, in which white space does not count."""


CONTRACTS = [
    Contract(
        f"{GRPO}._prepare_inputs",
        "training.shared_prefix",
        "micro-batches no longer hold complete groups",
        ("self", "generation_batch"),
        "shuffle_sequence_dict(generation_batch)",
    ),
    Contract(
        f"{GRPO}._generate_and_score_completions",
        "training.seeded, training.shared_prefix",
        "dynamic sampling and the advantages of loss: rejection are lost",
        ("self", "inputs"),
    ),
    Contract(
        f"{GRPO}._generate_single_turn",
        "training.seeded, training.shared_prefix, training.throughput",
        "rollouts are no longer seeded by sequence, nor share a prompt",
        ("self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"),
    ),
    Contract(
        f"{GRPO}._get_per_token_logps_and_entropies",
        "training.shared_prefix, training.throughput",
        "passes no longer share a prompt",
        (
            *("self", "model", "input_ids", "attention_mask", "logits_to_keep"),
            *("batch_size", "compute_entropy", "compute_aux_loss"),
        ),
    ),
    Contract(
        f"{GRPO}._compute_loss",
        "training.shared_prefix",
        "groups with zero advantage are no longer left out of the pass",
        ("self", "model", "inputs"),
    ),
    Contract(
        f"{GRPO}._calculate_rewards",
        "training.throughput, tests/training/test_rft.py",
        "vrft bench no longer times the rewards",
        ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    ),
    Contract(f"{GRPO}._step", "training.shared_prefix", "the buffer of rollouts is read at the wrong micro-batch"),
    Contract(f"{GRPO}._buffered_inputs", "training.shared_prefix", "rollouts are sampled for each micro-batch"),
    Contract(f"{GRPO}._metrics", "training.shared_prefix", "skipped_groups and resampled_groups leave the log"),
    Contract(f"{GRPO}._tokenizer", "training.shared_prefix", "batches cannot be padded"),
    Contract(
        f"{GRPO}._dist",
        "training.shared_prefix",
        "rollouts fail under FSDP",
        contains="self._dist.summon_full_params(self.model_wrapped, recurse=False)",
    ),
    Contract(
        "trl.trainer.sft_trainer.SFTTrainer._total_train_tokens",
        "training.sft",
        "a stage of SFT that resumes counts tokens from 0, and trains longer than max_tokens",
    ),
    Contract(
        "trl.trainer.utils.add_fused_lm_head",
        "training.seeded, training.shared_prefix",
        "passes return no log-probabilities",
        ("model", "temperature"),
        "fused_lm_head=False, labels=None, shift_labels=None",
    ),
    Contract(
        "trl.trainer.utils.FusedCausalLMOutput", "training.shared_prefix", "passes return none", contains="entropy:"
    ),
    Contract("trl.trainer.utils.pad", "training.shared_prefix", "prompts cannot be padded", ("tensors",)),
    Contract("trl.trainer.utils.split_tensor_dict", "training.shared_prefix", "a batch cannot be split"),
    Contract("trl.trainer.utils.split_pixel_values_by_grid", "training.shared_prefix", "images leave their sequences"),
    Contract(
        "trl.trainer.utils.unsplit_pixel_values_by_grid", "training.shared_prefix", "images leave their sequences"
    ),
    Contract("trl.models.prepare_deepspeed", "training.seeded", "no KL term with DeepSpeed", ("model", "accelerator")),
    Contract("trl.models.prepare_fsdp", "training.seeded", "no KL term with FSDP", ("model", "accelerator")),
    Contract(f"{LAYER}.update", "training.rollouts", "keys are copied for each token", ("self", "key_states")),
    Contract(f"{LAYER}.lazy_initialization", "training.rollouts", "the cache is not created", ("self", "key_states")),
    Contract(f"{LAYER}.get_seq_length", "training.rollouts", "new keys are written to the wrong position", ("self",)),
    Contract(
        "transformers.cache_utils.CacheLayerMixin.is_initialized", "training.rollouts", "the cache is not created"
    ),
    Contract("transformers.cache_utils.CacheLayerMixin.keys", "training.rollouts", "the cache is empty"),
    Contract("transformers.cache_utils.CacheLayerMixin.values", "training.rollouts", "the cache is empty"),
    Contract("transformers.DynamicCache.layers", "training.rollouts", "keys are copied for each token"),
    Contract("transformers.DynamicCache.crop", "training.rollouts", "the prompt is not read once", ("self",)),
    Contract("transformers.DynamicCache.batch_repeat_interleave", "training.rollouts", "prompts are not shared"),
    Contract("transformers.DynamicCache.batch_select_indices", "training.rollouts", "finished completions stay"),
    *(
        Contract(f"{model}.{name}", "training.rollouts, training.packing", "positions after an image are wrong")
        for model, family in zip(MODELS, ("Qwen2VL", "Qwen2_5_VL", "Qwen3VL"), strict=True)
        for name in (f"{family}Model.rope_deltas", f"{family}Model.get_rope_index")
    ),
    *(
        Contract(f"{model}.{name}", "training.packing", "no layer attends over packed rows")
        for model, layer in zip(
            MODELS, ("Qwen2VLAttention", "Qwen2_5_VLAttention", "Qwen3VLTextAttention"), strict=True
        )
        for name in (f"{layer}.num_key_value_groups", f"{layer}.v_proj", f"{layer}.config")
    ),
    Contract(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        "training.packing",
        "packed rows have no attention",
        ("module", "query", "key", "value", "attention_mask"),
    ),
    Contract("transformers.masking_utils.sdpa_mask", "training.packing", "packed rows have no mask"),
    Contract(
        "transformers.configuration_utils.PreTrainedConfig._attn_implementation",
        "training.packing, training.shared_prefix",
        "packed rows go through the wrong attention",
    ),
    Contract(
        "transformers.configuration_utils.PreTrainedConfig._name_or_path",
        "policies.loading",
        "merged adapters name the wrong base, and cannot be loaded again",
        contains="_name_or_path",
    ),
    Contract(
        "transformers.PreTrainedModel.all_tied_weights_keys", "policies.loading", "gathered weights are not saved"
    ),
    Contract(f"{PROCESSORS}.resize", "policies.image_cache", "kept images have other pixels", ("self", "images")),
    Contract(f"{PROCESSORS}.patchify", "policies.image_cache", "no image is kept"),
    Contract("transformers.Trainer.callback_handler", "training.stage", "loggers write TRL's names of metrics"),
    Contract("accelerate.state.AcceleratorState._shared_state", "benchmarks/processes.py", "FSDP2 needs a GPU"),
]
"""One entry for each name."""


def found(name: str) -> tuple[Any, Any, str]:
    """The attribute of a dotted name (None for an attribute of instances), its owner and its last part."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        owner = reduce(getattr, parts[cut:-1], module)
        return getattr(owner, parts[-1], None), owner, parts[-1]
    raise ImportError(name)


def fault_of(contract: Contract) -> str:
    """What is wrong with a name on the installed version; empty if nothing is."""
    value, owner, last = found(contract.name)
    if value is None:
        classes = inspect.getmro(owner) if isinstance(owner, type) else ()
        sources = [inspect.getsource(kind) for kind in classes if kind.__module__.split(".")[0] != "builtins"]
        if not any(re.search(rf"\bself\.{last}\b[^=\n]*=|^    {last}\s*[:=]", text, re.MULTILINE) for text in sources):
            return "is gone"
    if contract.arguments is not None:
        names = tuple(inspect.signature(value).parameters)
        if names[: len(contract.arguments)] != contract.arguments:
            return f"has the arguments {names}, expected {contract.arguments}"
    text = inspect.getsource(value if value is not None else owner) if contract.contains else ""
    if contract.contains not in text and "".join(contract.contains.split()) not in "".join(text.split()):
        return f"no longer contains {contract.contains!r}"
    return ""


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_a_name_that_is_not_public_is_still_there(contract: Contract):
    if fault := fault_of(contract):
        pytest.fail(f"{contract.name} {fault}; used in {contract.used_in}. Otherwise {contract.breaks}.")


def test_each_name_is_listed_once():
    names = [contract.name for contract in CONTRACTS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("kind", [SeededTrainer, SharedPrefixTrainer])
def test_overrides_accept_the_arguments_of_trl(kind: type):
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    overridden = [name for name in vars(kind) if hasattr(GRPOTrainer, name) and private(name)]
    assert overridden
    for name in overridden:
        ours = inspect.signature(getattr(kind, name)).parameters.values()
        theirs = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
        named = [parameter.name for parameter in ours if parameter.kind not in variadic]
        assert named == theirs[: len(named)], name
        assert len(named) == len(theirs) or len(named) < len(ours), name


def is_library(kind: type) -> bool:
    """Whether a class comes from one of the libraries."""
    return kind.__module__.split(".")[0] in ("trl", "transformers", "accelerate", "peft", "torch")


SUBCLASSES = (SeededTrainer, SharedPrefixTrainer, SeededSampling, PreallocatedCacheLayer)
"""Our classes with a base in a library, whose methods may use private names of that base."""


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.AST) -> Iterator[str]:
    """Private names that a module defines: functions, methods, class attributes, and attributes of ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def used_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Private names that a module reads or writes on any object, or by ``getattr``, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            if isinstance(name := node.args[1], ast.Constant) and private(str(name.value)):
                yield str(name.value), node.lineno
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("vrft"):
            yield from ((alias.name, node.lineno) for alias in node.names if private(alias.name))


STANDARD_LIBRARY = {"_exit", "_replace"}
"""Names with an underscore that are public: ``os._exit``, and ``_replace`` of named tuples."""


def test_every_private_name_of_a_library_is_listed():
    files = [*(ROOT / "src" / "vrft").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    of_bases = {name for kind in SUBCLASSES for base in kind.__mro__ if is_library(base) for name in vars(base)}
    listed = {contract.name.rpartition(".")[2] for contract in CONTRACTS}
    inherited = {name for kind in SUBCLASSES for name in vars(kind) if private(name)}
    missing = []
    for file, tree in trees.items():
        in_training = file.parent.name == "training"
        own = {name for name in own_names(tree) if private(name)}
        ours = (own | inherited) - (of_bases if in_training else set())
        missing += [
            f"{file.relative_to(ROOT)}:{line}: {name}"
            for name, line in used_names(tree)
            if name not in ours | listed | STANDARD_LIBRARY
        ]
        if in_training:
            missing += [f"{file.relative_to(ROOT)}: overrides {name}" for name in (own & of_bases) - listed]
    assert missing == []


def test_the_walk_finds_private_names():
    tree = ast.parse("trainer._hidden = 1\nsuper()._called()\ngetattr(config, '_by_name', None)\nself._own = 2\n")
    assert {name for name, _ in used_names(tree)} == {"_hidden", "_called", "_by_name", "_own"}
    assert set(own_names(tree)) == {"_own"}
