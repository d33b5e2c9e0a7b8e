"""Before a run is paid for: completions of the policy that the recipe starts from, what they earn, and a verdict.

Completions are sampled as the RFT stage samples them: in the order of its data, with its temperature and limits, and
with the random numbers of its first steps. So with the group size of the stage the first ``prompts_per_step`` groups
are those of the first step of a run whose weights are not rounded (float32). Rewards are computed by the function that
scores the stage's rollouts. Nothing is written.
"""

import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessorList

from vrft.boxes import Size
from vrft.data import Source
from vrft.errors import UserError
from vrft.evaluation.predictions import predict_majority, prediction
from vrft.evaluation.readiness import (
    PASS_IOU,
    against_chance,
    agreement,
    frame_scores,
    powers_up_to,
    support,
    verdict,
)
from vrft.evaluation.summary import figures_of
from vrft.experiment.opened import Experiment, open_experiment, readable
from vrft.experiment.plan import step_seconds, without_image_cache
from vrft.image_log import ImageLog
from vrft.policies import LoadedPolicy, check_envelope, model_inputs, quiet_libraries
from vrft.policies.from_recipe import load_for
from vrft.progress import Reporter
from vrft.recipe import ARMS, Recipe, RftStage, SftStage, check_recipe
from vrft.rewards.advantages import ZERO_ADVANTAGE
from vrft.sample import Sample
from vrft.tasks import Localization, TrainableTask
from vrft.training import PeakMemory
from vrft.training.rft import Scorer
from vrft.training.rollouts import sample_groups
from vrft.training.seeded import SeededSampling, uniforms
from vrft.training.shared_prefix import cannot_share
from vrft.training.stage import lazy_dataset, stage_order

Row = dict[str, Any]

SHAPED = ("fuzzy", "iou", "f1")
"""Rewards that pay near misses."""

NOT_OF_THE_TASK = ("format", "recitation")
"""Rewards that do not depend on whether the answer is right."""

BINS, PLACES = 10, (0.0, 0.25, 0.5, 0.75, 1.0)
"""Bins of a histogram of rewards, and the quantiles that are given."""

FITTED = 300
"""Training samples on which the constant answer is fitted at most."""


@dataclass(frozen=True)
class Preflight:
    """The completions of a preflight, and what follows from them."""

    figures: dict[str, Any]
    """All that was measured, as JSON holds it (docs/preflight.md)."""
    rows: list[Row]
    """One row a completion, the groups one after another."""

    @property
    def code(self) -> str:
        """The verdict, a key of ``vrft.evaluation.readiness.CODES``."""
        return str(self.figures["verdict"]["code"])

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return str(self.figures["verdict"]["sentence"])


def preflight(
    recipe: Recipe,
    *,
    prompts: int = 32,
    completions: int | None = None,
    arm: str | None = None,
    stage: int | None = None,
    seed: int | None = None,
    measure: bool = True,
    source: Source | None = None,
    reporter: Reporter,
) -> Preflight:
    """Sample completions for training prompts of an RFT stage, and measure what they earn.

    Args:
        recipe: checked by ``read_recipe``.
        prompts: how many (K); at most as many as there are training samples.
        completions: of each prompt (G), 2 or more; the group size of the stage without it.
        arm: its name; the first arm with an RFT stage without it.
        stage: of the arm, from 1; its first RFT stage without it.
        seed: of the order of samples and of sampling; the first of the recipe without it.
        measure: whether a step of training is measured.
        source: of the samples, in place of the section ``data``.
        reporter: shows progress.

    Raises:
        UserError: recipe, data, policy, arm or stage cannot be used.
    """
    began = time.monotonic()
    arm = arm or first_rft_arm(recipe)
    if arm not in recipe.arm_names() and arm in ARMS:  # such as those of an ablation
        recipe = check_recipe(recipe.model_copy(update={"arms": [*recipe.arms, arm]}), source=source)
    index, of_run = rft_stage(recipe, arm, stage)
    group = completions or of_run.group_size
    if prompts < 1 or group < 2:
        raise UserError(f"prompts is {prompts} and completions {group}; expected at least 1 and 2.")
    chosen, seed = of_run.model_copy(update={"group_size": group}), recipe.seeds[0] if seed is None else seed
    quiet_libraries()
    experiment = open_experiment(without_image_cache(recipe), reporter, source=source)
    task, train = experiment.stage_dataset(arm, chosen, seed)
    count = min(prompts, len(train))
    policy = load_for(experiment.recipe, None)
    policy.skips_unreadable = experiment.skips_bad_of(chosen)
    check_envelope(policy.name, policy.prompt_end, task.order)
    rows, shown = _sampled(policy, chosen, task, train, count, seed, reporter)
    fitted: Sequence[Sample] = _spread(train, FITTED)
    fitted = readable(fitted, ImageLog()) if policy.skips_unreadable else fitted
    scores = _score(policy, chosen, task, recipe, rows)
    figures: dict[str, Any] = {
        "recipe": recipe.name,
        "policy": recipe.policy.model,
        "arm": arm,
        "stage": index + 1,
        "task": task.kind,
        "seed": seed,
        "prompts": count,
        "completions": group,
        "temperature": chosen.temperature,
        **_reward_figures(chosen, rows, scores),
        **_answer_figures(task, chosen, rows, fitted, seed),
        "frames": _frames(policy, task, recipe, chosen, rows),
        "prompt": shown,
        "typical": _typical(rows),
    }
    code, sentence = verdict(figures)
    notes = _notes(recipe, arm, index, chosen, task)
    figures["verdict"] = {"code": code, "sentence": sentence, "notes": notes}
    tokens = of_run.prompts_per_step * of_run.group_size * (shown["tokens"] + figures["tokens"]["mean"])
    del policy
    gc.collect()
    torch.cuda.empty_cache()
    figures["step"] = _measured(experiment, arm, of_run, tokens, reporter) if measure else None
    figures["seconds"] = round(time.monotonic() - began, 1)
    return Preflight(figures, [{key: value for key, value in row.items() if key[0] != "_"} for row in rows])


def first_rft_arm(recipe: Recipe) -> str:
    """The first arm of a recipe with an RFT stage.

    Raises:
        UserError: there is none.
    """
    for name in recipe.arm_names():
        if any(isinstance(stage, RftStage) for stage in recipe.stages_of(name)):
            return name
    raise UserError(f"recipe {recipe.name}: no arm has an RFT stage; its arms are {', '.join(recipe.arm_names())}.")


def rft_stage(recipe: Recipe, arm: str, number: int | None) -> tuple[int, RftStage]:
    """An RFT stage of an arm and its index, from 0; the first where no number, from 1, is given.

    Raises:
        UserError: the recipe has no such arm, or the arm no such stage.
    """
    if arm not in recipe.arm_names():
        raise UserError(f"recipe {recipe.name} has no arm {arm!r}; expected one of {', '.join(recipe.arm_names())}.")
    stages = recipe.stages_of(arm)
    for index, stage in enumerate(stages):
        if isinstance(stage, RftStage) and number in (None, index + 1):
            return index, stage
    has = ", ".join(f"{index} {stage.kind}" for index, stage in enumerate(stages, 1)) or "none"
    wanted = "RFT stage" if number is None else f"RFT stage {number}"
    raise UserError(f"arm {arm} has no {wanted}; its stages are: {has}.")


# --- sampling ---------------------------------------------------------------------------------------------------------


def _sampled(
    policy: LoadedPolicy,
    stage: RftStage,
    task: TrainableTask,
    train: Sequence[Sample],
    count: int,
    seed: int,
    reporter: Reporter,
) -> tuple[list[Row], dict[str, Any]]:
    """The completions of so many prompts as rows, and the first prompt as the policy sees it."""
    policy.model.eval()

    def columns(sample: Sample, size: Size, index: int) -> dict[str, Any]:
        return {"drawn": sample, "size": size, "prompt": policy.prompt(task, sample, size)}

    dataset = lazy_dataset(policy, train, stage_order(stage, train, count, seed), columns)
    rows: list[Row] = []
    shown: dict[str, Any] = {}
    reporter.start("sampling", count)
    for step, first in enumerate(range(0, count, stage.prompts_per_step)):
        batch = dataset[first : min(count, first + stage.prompts_per_step)]
        prompts, images = batch["prompt"], batch["images"]
        inputs = model_inputs(policy, prompts, images)
        if not shown:
            shown = _shown(policy, prompts[0], len(images[0]), inputs)
        key = (seed, step * stage.updates_per_batch, 0)  # as the trainer's random numbers of a step
        numbers = uniforms(range(len(prompts) * stage.group_size), stage.max_completion_tokens, *key)
        written = iter(_completions(policy, stage, prompts, images, inputs, numbers))
        for sample, prompt, own, size in zip(batch["drawn"], prompts, images, batch["size"], strict=True):
            rows += [_row(policy, task, sample, prompt, own, size, next(written)) for _ in range(stage.group_size)]
        reporter.advance(first + len(prompts))
    reporter.stop()
    return rows, shown


def _completions(
    policy: LoadedPolicy, stage: RftStage, prompts: Sequence[str], images: Sequence[Any], inputs: Any, numbers: Any
) -> list[list[int]]:
    """The tokens of the completions of each prompt, up to and with the end of turn."""
    group, ends = stage.group_size, _ends(policy)
    tokenizer = policy.processor.tokenizer
    config = GenerationConfig(
        do_sample=True,
        temperature=stage.temperature,
        top_p=stage.top_p,
        top_k=0,
        repetition_penalty=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=policy.suppressed,
        disable_compile=True,
    )

    def sampler(chosen: Sequence[int], done: int) -> SeededSampling:
        return SeededSampling(numbers[list(chosen), done:], stage.temperature, stage.top_p)

    with torch.no_grad():
        if cannot_share(policy.model, group, group) is None:
            limit = stage.max_completion_tokens
            return sample_groups(policy.model, inputs, group, config, ends, limit, sampler)
        repeated = model_inputs(policy, list(_times(prompts, group)), list(_times(images, group)))
        written = policy.model.generate(
            **repeated,
            generation_config=config,
            max_new_tokens=stage.max_completion_tokens,
            logits_processor=LogitsProcessorList([sampler(range(len(numbers)), 0)]),
        )
    return [_until_end(row, ends) for row in written[:, repeated["input_ids"].size(1) :].tolist()]


def _times(values: Iterable[Any], count: int) -> Iterator[Any]:
    """Each value so many times."""
    return (value for value in values for _ in range(count))


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens up to and with the first end of turn."""
    return tokens[: next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))]


def _ends(policy: LoadedPolicy) -> list[int]:
    """The tokens that end a turn."""
    ends = policy.model.generation_config.eos_token_id
    known = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in (policy.processor.tokenizer.eos_token_id, *known) if token is not None})


def _shown(policy: LoadedPolicy, prompt: str, images: int, inputs: Any) -> dict[str, Any]:
    """The first prompt of a batch as the policy sees it, with its tokens."""
    ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()]
    pad = getattr(policy.model.config, "image_token_id", None)
    visual = None if pad is None else int((ids == pad).sum())
    text = policy.prompt_text(prompt, images)
    return {"text": text, "tokens": len(ids), "visual_tokens": visual}


def _row(
    policy: LoadedPolicy, task: TrainableTask, sample: Sample, prompt: str, images: Any, size: Any, tokens: list[int]
) -> Row:
    """A completion with both readings; keys that begin with ``_`` are for the rewards alone."""
    text = policy.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    made = policy.processed_size(size)
    read = prediction(task, sample, text, len(tokens), size, made, prompt_end=policy.prompt_end)
    return {
        "id": sample.id,
        "prompt": prompt,
        **{key: value for key, value in read.items() if key != "sample"},
        "truncated": not tokens or tokens[-1] not in _ends(policy),
        "_sample": sample,
        "_images": images,
        "_sizes": (size, made),
        "_ids": tokens,
    }


# --- figures ----------------------------------------------------------------------------------------------------------


def _score(
    policy: LoadedPolicy, stage: RftStage, task: TrainableTask, recipe: Recipe, rows: list[Row]
) -> dict[str, Any]:
    """Score the rows as rollouts of the stage are scored; the rewards are added to the rows.

    Returns:
        The metrics of the step as the log has them (``vrft.training.rft.reward_metrics``).
    """
    collected = SimpleNamespace(rollouts=[], extra={})
    scorer = Scorer(stage, task, cast(Any, collected), policy.prompt_end, recipe.custom)
    samples = [row["_sample"] for row in rows]
    columns: dict[str, Any] = {
        "prompts": [[{"role": "user", "content": row["prompt"]}] for row in rows],
        "completions": [[{"role": "assistant", "content": row["completion"]}] for row in rows],
        "completion_ids": [row["_ids"] for row in rows],
        "target": [
            task.check_target(sample.target, row["_sizes"][0]) for sample, row in zip(samples, rows, strict=True)
        ],
        "sample": [sample.id for sample in samples],
        "known": [sample.knowledge for sample in samples],
        "images": [list(row["_images"]) for row in rows],
        "image_size": [row["_sizes"][0] for row in rows],
        "processed_size": [row["_sizes"][1] for row in rows],
        "trainer_state": SimpleNamespace(global_step=0, max_steps=stage.steps),
    }
    for function in scorer.functions:
        function(**columns)
    for row, rollout in zip(rows, collected.rollouts, strict=True):
        rewards = {name: rollout[f"reward_{name}"] for name in stage.weights()}
        row["rewards"] = {name: None if np.isnan(value) else float(value) for name, value in rewards.items()}
        row["reward"] = float(rollout["reward"])
    return dict(collected.extra)


def _reward_figures(stage: RftStage, rows: Sequence[Row], scores: dict[str, Any]) -> dict[str, Any]:
    """The distribution of each reward and of their sum, over completions and within groups."""
    group, weights = stage.group_size, stage.weights()
    values = {
        name: np.array([np.nan if row["rewards"][name] is None else row["rewards"][name] for row in rows])
        for name in weights
    }
    own = {name: weight for name, weight in weights.items() if name not in NOT_OF_THE_TASK and weight > 0}
    total = np.array([row["reward"] for row in rows])
    shares = {name: weight / sum(own.values()) for name, weight in own.items()}
    of_task = np.nansum([share * values[name] for name, share in shares.items()], axis=0) if own else total
    spread = _distribution(of_task, group)
    return {
        "rewards": {
            name: {
                "weight": weight,
                "share_of_advantage": scores["rewards"][name]["share"],
                **_distribution(values[name], group),
                "weighted_mean": None if np.isnan(values[name]).all() else float(weight * np.nanmean(values[name])),
            }
            for name, weight in weights.items()
        },
        "total": {"zero_advantage": scores["zero_advantage"], **_distribution(total, group)},
        "task_reward": {
            "names": list(own),
            "shaped": any(name in SHAPED for name in own),
            **{key: spread[key] for key in ("equal_groups", "within_group_sd")},
        },
    }


def _distribution(values: NDArray[np.float64], group: int) -> dict[str, Any]:
    """Mean and spread of a reward; None where it applies to no completion."""
    known = values[~np.isnan(values)]
    if not len(known):
        nothing = dict.fromkeys(("mean", "sd", "within_group_sd", "equal_groups"))
        return nothing | {"quantiles": None, "histogram": None}
    groups = [one[~np.isnan(one)] for one in values.reshape(-1, group)]
    groups = [one for one in groups if len(one)]
    ends = (min(0.0, float(known.min())), max(1.0, float(known.max())))
    counts, edges = np.histogram(known, BINS, ends)
    return {
        "mean": float(known.mean()),
        "sd": float(known.std()),
        "within_group_sd": float(np.mean([one.std() for one in groups])),
        "equal_groups": float(np.mean([np.ptp(one) <= ZERO_ADVANTAGE for one in groups])),
        "quantiles": np.quantile(known, PLACES).tolist(),
        "histogram": {"counts": counts.tolist(), "from": float(edges[0]), "to": float(edges[-1])},
    }


def _answer_figures(
    task: TrainableTask,
    stage: RftStage,
    rows: Sequence[Row],
    train: Sequence[Sample],
    seed: int,
) -> dict[str, Any]:
    """Form, readings, lengths, pass@k, the distribution of answers, and the test against chance."""
    group = stage.group_size
    firsts, ks = rows[::group], powers_up_to(group)
    passed = np.array([_passes(task, row) for row in rows]).reshape(-1, group)
    classes = [_class_of(task, row["target"]) for row in firsts]
    of_class = {
        name: [place for place, one in enumerate(classes) if one == name] for name in _all_classes(task, classes)
    }
    strict = figures_of(task, rows)
    lenient = figures_of(task, [row | {"answer": row["lenient"]} for row in rows])
    headline = "mean_iou" if isinstance(task, Localization) else "accuracy"
    majority = figures_of(task, predict_majority(task, train, [row["_sample"] for row in firsts]))[headline]
    lengths = [row["tokens"] for row in rows]
    answers = Counter(_text_of(row["answer"]) for row in rows)
    (most, times), *_ = answers.most_common(1)
    return {
        "answers": {
            **{key: strict[key] for key in ("format_rate", "read_rate", headline)},
            f"{headline}_lenient": lenient[headline],
            "majority": majority,
            "problems": dict(Counter(code for row in rows for code in row["problems"]).most_common()),
        },
        "tokens": {
            "min": min(lengths),
            "median": float(np.median(lengths)),
            "mean": float(np.mean(lengths)),
            "max": max(lengths),
            "limit": stage.max_completion_tokens,
            "truncated": float(np.mean([row["truncated"] for row in rows])),
        },
        "pass_at_k": {str(k): support(passed, k) for k in ks},
        "by_class": {
            name: {"prompts": len(places), "pass_at_k": {str(k): support(passed[places], k) for k in (1, group)}}
            for name, places in of_class.items()
            if places
        },
        "not_drawn": [name for name, places in of_class.items() if not places],
        "given": _given(task, rows),
        "targets": {name: len(places) / len(firsts) for name, places in of_class.items() if places},
        "most_frequent": {"answer": most, "share": times / len(rows)},
        "chance": against_chance(_agreements(task, rows, group), seed=seed),
    }


def _passes(task: TrainableTask, row: Row) -> bool:
    """Whether a completion earns the full reward of the task; of boxes a mean IoU of ``PASS_IOU``."""
    if isinstance(task, Localization):
        return agreement(task, row, tuple(map(tuple, row["target"])), tuple(row["image_size"])) >= PASS_IOU
    return bool(row["answer"] == row["target"])


def _class_of(task: TrainableTask, target: Any) -> str:
    """The class of a target; of boxes their number."""
    if isinstance(task, Localization):
        return ("no box", "1 box")[len(target)] if len(target) < 2 else "several boxes"
    return str(target)


def _all_classes(task: TrainableTask, found: Sequence[str]) -> list[str]:
    if isinstance(task, Localization):
        return [name for name in ("no box", "1 box", "several boxes") if name in found]
    return [str(target) for target in task.classes]


def _text_of(answer: Any) -> str:
    """An answer as a text; boxes in whole pixels."""
    if answer is None:
        return "not read"
    return str([[round(number) for number in box] for box in answer]) if isinstance(answer, list) else str(answer)


def _given(task: TrainableTask, rows: Sequence[Row]) -> dict[str, float]:
    """The share of each class among the answers, with those that are not read."""
    names = ["not read" if row["answer"] is None else _class_of(task, row["answer"]) for row in rows]
    counts = Counter(names)
    return {name: counts[name] / len(rows) for name in (*_all_classes(task, names), "not read") if name in counts}


def _agreements(task: TrainableTask, rows: Sequence[Row], group: int) -> NDArray[np.float64]:
    """(K, K), the mean agreement of the completions of each prompt with the target of each prompt."""
    targets = [
        (tuple(map(tuple, row["target"])), tuple(row["image_size"]))
        if isinstance(task, Localization)
        else (row["target"],)
        for row in rows[::group]
    ]
    each = np.array([[agreement(task, row, *target) for target in targets] for row in rows])
    return each.reshape(-1, group, len(targets)).mean(axis=1)


def _frames(
    policy: LoadedPolicy, task: TrainableTask, recipe: Recipe, stage: RftStage, rows: Sequence[Row]
) -> dict[str, Any] | None:
    """Mean IoU of the completions in each frame; None where there are no boxes."""
    if not isinstance(task, Localization):
        return None
    key = "task.frame"
    if stage.task is not None:
        place = next(place for place, one in enumerate(recipe.stages) if one.task == stage.task)
        key = f"stages.{place}.task.frame"
    scores = frame_scores(task, rows, policy.processed_size, policy.prompt_end)
    return {"declared": task.frame, "key": key, "mean_iou": scores}


def _typical(rows: Sequence[Row]) -> dict[str, Any]:
    """Completions of the highest, the median and the lowest reward, and the first that is not read."""
    by_reward = sorted(rows, key=lambda row: -row["reward"])
    chosen = {"best": by_reward[0], "median": by_reward[len(rows) // 2], "worst": by_reward[-1]}
    if unread := [row for row in rows if row["answer"] is None]:
        chosen["unread"] = unread[0]
    keys = ("id", "target", "answer", "reward", "completion", "problems")
    return {name: {key: row[key] for key in keys} for name, row in chosen.items()}


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, evenly spread."""
    count = min(most, len(samples))
    return [samples[place * len(samples) // count] for place in range(count)]


def _notes(recipe: Recipe, arm: str, index: int, stage: RftStage, task: TrainableTask) -> list[str]:
    """Where a run differs from what was sampled here."""
    notes = []
    before = recipe.stages_of(arm)[:index]
    if before:
        kinds = ", ".join(f"{place} {one.kind}" for place, one in enumerate(before, 1))
        own = any(isinstance(one, SftStage) and one.task == stage.task for one in before)
        does = "; with it the recipe does SFT first already" if own else ""
        seed, last = recipe.seeds[0], f"stage-{index - 1}-{before[-1].kind}"
        notes.append(
            f"in a run stage {index + 1} begins after stage {kinds}{does}. Here the policy is that of policy.model; to "
            f"ask after them: --set policy.model=RUN/arms/{arm}/seed-{seed}/{last}/policy"
        )
    if stage.rollouts == "vllm":
        notes.append("the stage samples with vLLM; here transformers sampled")
    return notes


# --- cost -------------------------------------------------------------------------------------------------------------


def _measured(experiment: Experiment, arm: str, stage: RftStage, tokens: float, reporter: Reporter) -> dict[str, Any]:
    """Seconds, tokens and peak memory of a step of training, and of the whole stage."""
    figures: dict[str, Any] = {"steps": stage.steps, "seconds": None, "peak_mb": None, "note": None}
    figures |= {"tokens": round(tokens), "stage_tokens": round(tokens * stage.steps), "stage_seconds": None}
    if stage.rollouts == "vllm" and not find_spec("vllm"):
        return figures | {"note": "no step was measured: the stage samples with vLLM, which is not installed here"}
    reporter.start("measuring a step", 1)
    memory = PeakMemory()
    try:
        seconds = step_seconds(experiment, arm, stage)
    except torch.OutOfMemoryError:
        return figures | {"note": "no step was measured: it ran out of memory here; see vrft run RECIPE --plan"}
    finally:
        reporter.stop()
    return figures | {"seconds": seconds, "stage_seconds": seconds * stage.steps, "peak_mb": memory.peak_mb()}
