"""How fast a step of RFT is, beside that of TRL's own trainer: same weights, prompts, seed, rewards and tokens.

Every completion is cut at exactly C tokens (no end of turn can be sampled), so that both trainers see as many tokens
whatever they write. Each runs in a fresh process, one after the other; the first step warms up and is not counted.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from trl import GRPOTrainer

from vrft.data import PhantomSource
from vrft.errors import UserError
from vrft.policies import LoadedPolicy, load_policy, model_inputs, quiet_libraries
from vrft.policies.loading import TINY
from vrft.progress import Reporter
from vrft.recipe import RftStage
from vrft.runs import StageDirectory
from vrft.sample import Sample, open_image
from vrft.tasks import Grading
from vrft.training.common import begin, silence
from vrft.training.memory import PeakMemory
from vrft.training.rft import make_trainer

PARTS = ("rollout", "reward", "log_prob", "forward", "backward", "other")
"""What a step is made of: sampling, the reward functions, log-probabilities without a gradient (of the reference), the
forward and backward pass of the policy, and all else (processing images, the optimiser)."""


@dataclass(frozen=True)
class Shape:
    """One step: ``prompts`` groups of ``group`` completions of ``completion`` tokens after ``prompt`` tokens.

    Args:
        model: ``tiny``, ``mid`` (a random Qwen2.5-VL of 30 million parameters), or any policy.
        prompt: tokens of a prompt with its image; None for the question as it is.
    """

    model: str
    prompt: int | None
    completion: int
    group: int
    prompts: int = 1


@dataclass
class Clock:
    """The seconds of each part, step by step."""

    steps: list[dict[str, float]] = field(default_factory=list)

    def start(self) -> None:
        self.steps.append(dict.fromkeys((*PARTS, "step"), 0.0))

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        began = _now()
        yield
        if self.steps:
            self.steps[-1][part] += _now() - began


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def bench(shape: Shape, *, steps: int = 2, seed: int = 0, reporter: Reporter) -> dict[str, Any]:
    """Time both trainers on one shape.

    Returns:
        the shape; for ``stock`` and ``shared`` the mean seconds of each part of a step, ``peak_mb`` above what was held
        before the first step, and ``tokens_per_second`` (prompt and completion of every sequence); and the ratios of
        stock to shared ``training_pass_ratio`` (forward and backward), ``step_ratio`` and ``memory_ratio``.

    Raises:
        UserError: the prompt cannot be made as long, or as short, as asked.
    """
    with TemporaryDirectory() as folder:
        model = _random_model(Path(folder) / "mid") if shape.model == "mid" else shape.model
        result: dict[str, Any] = {**vars(shape)}
        for name, shared in (("stock", False), ("shared", True)):
            lengths = f"{shape.prompt or 'a question'} + {shape.completion} tokens"
            reporter.say(f"{shape.model}, {lengths}, group {shape.group}: {name}")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:  # memory is measured of a process
                timing = fresh.submit(_time, replace(shape, model=model), Path(folder) / name, steps, seed, shared)
                result[name] = timing.result()
        result["prompt"] = result["shared"].pop("prompt")
        result["stock"].pop("prompt")
    passes = [result[name]["forward"] + result[name]["backward"] for name in ("stock", "shared")]
    return result | {
        "training_pass_ratio": passes[0] / passes[1],
        "step_ratio": result["stock"]["step"] / result["shared"]["step"],
        "memory_ratio": result["stock"]["peak_mb"] / max(result["shared"]["peak_mb"], 1e-9),
    }


def _time(shape: Shape, folder: Path, steps: int, seed: int, shared: bool) -> dict[str, float]:
    quiet_libraries()
    loaded = load_policy(shape.model)
    policy = _Endless(**{name: getattr(loaded, name) for name in ("model", "processor", "name")})
    task, samples = Grading(5), _samples(shape, policy)
    stage = RftStage(
        kind="rft",
        rewards={"fuzzy": 1.0, "format": 0.5},
        steps=steps + 1,
        prompts_per_step=shape.prompts,
        group_size=shape.group,
        max_completion_tokens=shape.completion,
        temperature=1.0,
        save_every=steps + 2,
        shared_prefix=shared,
    )
    keeper, _ = begin(policy, stage, StageDirectory(folder), seed=seed, reporter=Reporter(quiet=True), label="")
    trainer = make_trainer(policy, stage, task, samples, StageDirectory(folder), keeper, seed=seed)
    silence(trainer)
    clock = Clock()
    _watch(trainer, clock)
    memory = PeakMemory()
    before = memory.peak_mb()
    trainer.train()
    peak = memory.peak_mb() - before
    counted = clock.steps[1:]
    figures = {part: mean(step[part] for step in counted) for part in (*PARTS[:-1], "step")}
    figures["other"] = figures["step"] - sum(figures[part] for part in PARTS[:-1])
    prompt = _length(policy, task, samples[0])
    tokens = shape.prompts * shape.group * (prompt + shape.completion)
    return figures | {"peak_mb": peak, "tokens_per_second": tokens / figures["step"], "prompt": prompt}


class _Endless(LoadedPolicy):
    """A policy that cannot end its turn, so that every completion is as long as it may be."""

    @property
    def suppressed(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return sorted({*super().suppressed, *(ends if isinstance(ends, list) else [ends])})


def _watch(trainer: GRPOTrainer, clock: Clock) -> None:
    """Time the parts of each step of a trainer."""

    def timed(method: Callable[..., Any], part: Callable[[], str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with clock.timing(part()):
                return method(*args, **kwargs)

        return call

    def a_pass() -> str:
        return "forward" if torch.is_grad_enabled() else "log_prob"

    whole = trainer.training_step

    def step(*args: Any, **kwargs: Any) -> Any:
        clock.start()
        with clock.timing("step"):
            return whole(*args, **kwargs)

    trainer.training_step = step
    trainer._generate_single_turn = timed(trainer._generate_single_turn, lambda: "rollout")
    trainer._calculate_rewards = timed(trainer._calculate_rewards, lambda: "reward")
    trainer._get_per_token_logps_and_entropies = timed(trainer._get_per_token_logps_and_entropies, a_pass)
    trainer.accelerator.backward = timed(trainer.accelerator.backward, lambda: "backward")


def _samples(shape: Shape, policy: LoadedPolicy) -> list[Sample]:
    """Phantoms with questions that make prompts of the wanted length."""
    sizes = {"train": 4 * shape.prompts, "validation": 0, "test": 0}
    samples = list(PhantomSource("grading", sizes=sizes).samples("train"))
    if shape.prompt is None:
        return samples
    task, words = Grading(5), 0
    for _ in range(20):  # a word is about a token
        longer = replace(samples[0], question=samples[0].question + " a" * words)
        lacking = shape.prompt - _length(policy, task, longer)
        if lacking == 0 or words + lacking < 0:
            break
        words += lacking
    if lacking:
        raise UserError(f"a prompt of {shape.prompt} tokens cannot be made; {shape.prompt - lacking} can.")
    return [replace(sample, question=sample.question + " a" * words) for sample in samples]


def _length(policy: LoadedPolicy, task: Grading, sample: Sample) -> int:
    image = open_image(sample)
    return int(model_inputs(policy, [policy.prompt(task, sample, image.size)], [image])["input_ids"].shape[1])


def mid_config() -> Any:
    """The configuration of ``mid``: between the embedded policy and real ones."""
    config = AutoConfig.from_pretrained(TINY)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 1408, 10
    text.num_attention_heads, text.num_key_value_heads = 8, 2
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    config.vision_config.out_hidden_size = text.hidden_size
    return config


def _random_model(folder: Path) -> str:
    """Write ``mid`` with random weights and the tokenizer of the embedded policy."""
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(mid_config()).save_pretrained(folder)
    load_policy("tiny").processor.save_pretrained(folder)
    return str(folder)
