"""The speed of a step of RFT compared with TRL's own trainer: same weights, prompts, seed, rewards and tokens.

Every completion has exactly C tokens (no end of turn can be sampled), so that both trainers process as many tokens.
Each trainer runs in a new process, and they alternate: a step of the first, then a step of the second, while the other
waits. A slow phase of the machine thus affects both, and mostly cancels in the ratio of two consecutive steps. The
first step of each trainer is warm-up and does not count.
"""

import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import comb
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, TrainerCallback
from trl import GRPOTrainer

from vrft.data import PhantomSource
from vrft.errors import UserError
from vrft.policies import LoadedPolicy, load_policy, model_inputs, quiet_libraries
from vrft.policies.loading import TINY
from vrft.progress import Reporter
from vrft.recipe import FuzzyReward, Reward, Rewards, RftStage
from vrft.runs import StageDirectory
from vrft.sample import Sample, open_image
from vrft.tasks import Grading
from vrft.training.memory import PeakMemory
from vrft.training.rft import make_trainer
from vrft.training.stage import begin_stage, remove_printers

PARTS = ("rollout", "reward", "log_prob", "forward", "backward", "other")
"""The parts of a step: sampling, reward functions, log-probabilities without gradient (of the reference), forward and
backward pass of the policy, and the rest (processing images). The optimiser is not timed."""

TRAINERS = ("stock", "shared")
"""TRL's own trainer, and the trainer with a shared prefix."""


@dataclass(frozen=True)
class Shape:
    """The size of a step: ``prompts`` groups of ``group`` completions of ``completion`` tokens after ``prompt`` tokens.

    Args:
        model: ``tiny``, ``mid`` (a random Qwen2.5-VL of 30 million parameters), or any policy.
        prompt: the number of tokens of a prompt with its images; None for an unchanged question.
    """

    model: str
    prompt: int | None
    completion: int
    group: int
    prompts: int = 1


@dataclass
class Clock:
    """The seconds of each part of each step, and the start time of each step."""

    steps: list[dict[str, float]] = field(default_factory=list)
    began: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the next step."""
        self.began.append(_now())
        self.steps.append(dict.fromkeys((*PARTS, "step"), 0.0))

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the seconds of the block to a part of the current step."""
        began = _now()
        yield
        if self.steps:
            self.steps[-1][part] += _now() - began


def _synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _now() -> float:
    _synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Measurement:
    """The measurements of one trainer.

    Args:
        steps: for each counted step, the seconds of each part except ``other``, and of the whole ``step``.
        began: the start time of each, in seconds of the machine's clock, which all processes share.
        peak_mb: the peak memory above the memory before the first step, in MiB.
        prompt: the number of tokens of a prompt.
    """

    steps: list[dict[str, float]]
    began: list[float]
    peak_mb: float
    prompt: int


def bench(shape: Shape, *, steps: int = 10, seed: int = 0, reporter: Reporter) -> dict[str, Any]:
    """Time ``steps`` steps of both trainers, after a warm-up step; see ``summarise`` for the result.

    Raises:
        UserError: no prompt of this length can be built, or the process of a trainer was killed.
        RuntimeError: a trainer failed; the message holds its traceback.
    """
    return summarise(shape, alternate(shape, steps=steps, seed=seed, reporter=reporter))


def summarise(shape: Shape, measured: dict[str, Measurement]) -> dict[str, Any]:
    """Summarise the measurements of both trainers.

    Args:
        shape: the size of a step.
        measured: the measurements of ``stock`` and ``shared``; their k-th steps were neighbours in time.

    Returns:
        The shape; for ``stock`` and ``shared`` the mean seconds of each part of a step, ``peak_mb``,
        ``tokens_per_second`` (prompt and completion of every sequence), the seconds of all ``steps``, their
        ``step_median`` and ``step_min``; and ratios of stock to shared.

        ``training_pass_ratio`` (forward and backward), ``step_ratio`` and ``memory_ratio`` are ratios of means and
        peaks. For the step and its training pass, ``_ratio_median`` is the median of the ratios of pairs of steps,
        ``_ratio_low`` and ``_ratio_high`` its interval (``median_interval``) with the coverage ``interval_coverage``,
        and ``_ratio_min`` the ratio of the shortest steps.
    """
    result: dict[str, Any] = {**vars(shape), "prompt": measured["shared"].prompt}
    for name in TRAINERS:
        trainer = measured[name]
        means = {part: mean(step[part] for step in trainer.steps) for part in (*PARTS[:-1], "step")}
        means["other"] = means["step"] - sum(means[part] for part in PARTS[:-1])
        tokens = shape.prompts * shape.group * (trainer.prompt + shape.completion)
        seconds = [step["step"] for step in trainer.steps]
        result[name] = {
            **means,
            "peak_mb": trainer.peak_mb,
            "tokens_per_second": tokens / means["step"],
            "step_min": min(seconds),
            "step_median": median(seconds),
            "steps": seconds,
        }
    result["memory_ratio"] = result["stock"]["peak_mb"] / max(result["shared"]["peak_mb"], 1e-9)
    for key, parts in (("step", ("step",)), ("training_pass", ("forward", "backward"))):
        stock, shared = ([sum(step[part] for part in parts) for step in measured[name].steps] for name in TRAINERS)
        ratios = [a / b for a, b in zip(stock, shared, strict=True)]
        low, high, result["interval_coverage"] = median_interval(ratios)
        result |= {
            f"{key}_ratio": mean(stock) / mean(shared),
            f"{key}_ratio_median": median(ratios),
            f"{key}_ratio_low": low,
            f"{key}_ratio_high": high,
            f"{key}_ratio_min": min(stock) / min(shared),
        }
    return result


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """A distribution-free confidence interval for the median of independent values, from order statistics.

    Its ends are the r-th smallest and the r-th largest value. The interval misses the median if fewer than r values are
    on one side of it, and this number is binomial with probability 1/2 (David & Nagaraja, Order Statistics, 2003,
    section 7.1). r is the largest rank with the confidence level; with too few values (5 at 0.95) the result is the
    range.

    Returns:
        The ends of the interval, and its coverage probability, which may be below ``level``.

    >>> median_interval([5, 1, 9, 3, 7, 2, 8, 4, 6, 10])
    (2, 9, 0.978515625)
    >>> median_interval([3, 1, 2])
    (1, 3, 0.75)
    """
    ordered, count = sorted(values), len(values)
    rank, missed = 0, 1 / 2**count  # the rank from 0, and the probability of a miss on one side
    while (more := missed + comb(count, rank + 1) / 2**count) <= (1 - level) / 2:
        rank, missed = rank + 1, more
    return ordered[rank], ordered[-1 - rank], 1 - 2 * missed


def alternate(shape: Shape, *, steps: int, seed: int = 0, reporter: Reporter) -> dict[str, Measurement]:
    """Run ``steps`` + 1 steps of both trainers, one at a time; the order changes after every pair.

    Raises:
        UserError: as in ``bench``.
        RuntimeError: as in ``bench``.
    """
    trainers: list[TrainerProcess] = []
    with TemporaryDirectory() as folder:
        model = _random_model(Path(folder) / "mid") if shape.model == "mid" else shape.model
        lengths = f"{shape.prompt or 'a question'} + {shape.completion} tokens"
        reporter.start(f"{shape.model}, {lengths}, group {shape.group}", steps + 1)
        try:
            for name in TRAINERS:
                run = (replace(shape, model=model), Path(folder) / name, steps, seed, name == "shared")
                trainers.append(TrainerProcess(name, *run))
            measured: dict[str, Measurement] = {}
            for number in range(steps + 1):
                for trainer in reversed(trainers) if number % 2 else trainers:
                    if (last := trainer.step()) is not None:
                        measured[trainer.name] = last
                reporter.advance(number + 1)
            for trainer in trainers:
                trainer.process.join()
            return measured
        finally:
            for trainer in trainers:
                trainer.end()
            reporter.stop()


class TrainerProcess:
    """A trainer in a new process, which does one step at a time on request."""

    def __init__(self, name: str, *run: Any) -> None:
        self.name = name
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *run), name=name)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def step(self) -> Measurement | None:
        """Do a step and wait for it; the first call also loads the policy, the last returns the measurements.

        Raises:
            UserError: the process was killed, or its input is not valid.
            RuntimeError: the trainer failed.
        """
        try:
            self.pipe.send(None)
            reply = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise UserError(
                f"the process of the {self.name} trainer was killed or could not start (exit code "
                f"{self.process.exitcode}); memory must hold both trainers at once."
            ) from None
        if isinstance(reply, Exception):
            raise reply
        assert reply is None or isinstance(reply, Measurement)
        return reply

    def end(self) -> None:
        """Kill the process if it is still running."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, *run: Any) -> None:
    """The main function of a trainer's process; every message answers a request of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles an interrupt and ends this process
    _wait(pipe)
    try:
        pipe.send(_time(pipe, *run))
    except BrokenPipeError:  # the parent is gone
        sys.exit(1)
    except UserError as error:
        pipe.send(UserError(str(error)))
    except Exception:  # not every error can be pickled
        pipe.send(RuntimeError(traceback.format_exc()))


def _wait(pipe: Connection) -> None:
    """Wait for the next request."""
    try:
        pipe.recv()
    except EOFError:  # the parent is gone
        sys.exit(1)


class _PauseAfterStep(TrainerCallback):
    """Answers and waits for the next request after every step except the last, which ends with the training.

    The work between two timed steps (optimiser, log, next batch) is thus part of a request.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer the request, and wait for the next."""
        if state.global_step < state.max_steps:
            _synchronize()
            self.pipe.send(None)
            _wait(self.pipe)


def _time(pipe: Connection, shape: Shape, folder: Path, steps: int, seed: int, shared: bool) -> Measurement:
    quiet_libraries()
    warnings.filterwarnings("ignore")
    loaded = load_policy(shape.model, training=True)
    policy = _NeverEnding(**{name: getattr(loaded, name) for name in ("model", "processor", "name", "compute")})
    task, samples = Grading(5), _samples(shape, policy)
    stage = RftStage(
        kind="rft",
        rewards=Rewards(fuzzy=FuzzyReward(), format=Reward(weight=0.5)),
        steps=steps + 1,
        prompts_per_step=shape.prompts,
        group_size=shape.group,
        max_completion_tokens=shape.completion,
        temperature=1.0,
        save_every=steps + 2,
        shared_prefix=shared,
    )
    callback, _ = begin_stage(policy, stage, StageDirectory(folder), seed=seed, reporter=Reporter(quiet=True), label="")
    trainer = make_trainer(policy, stage, task, samples, StageDirectory(folder), callback, seed=seed, plain=GRPOTrainer)
    remove_printers(trainer)
    trainer.add_callback(_PauseAfterStep(pipe))
    clock = Clock()
    _instrument(trainer, clock)
    memory = PeakMemory()
    before = memory.peak_mb()
    trainer.train()
    peak = memory.peak_mb() - before
    return Measurement(clock.steps[1:], clock.began[1:], peak, _length(policy, task, samples[0]))


class _NeverEnding(LoadedPolicy):
    """A policy that cannot end its turn, so that every completion has the maximum length."""

    @property
    def suppressed(self) -> list[int]:
        """Ids of image tokens and of the tokens that end a turn."""
        ends = self.model.generation_config.eos_token_id
        return sorted({*super().suppressed, *(ends if isinstance(ends, list) else [ends])})


def _instrument(trainer: GRPOTrainer, clock: Clock) -> None:
    """Time the parts of each step of a trainer."""

    def timed(method: Callable[..., Any], part: Callable[[], str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with clock.timing(part()):
                return method(*args, **kwargs)

        return call

    def current_pass() -> str:
        return "forward" if torch.is_grad_enabled() else "log_prob"

    training_step = trainer.training_step

    def step(*args: Any, **kwargs: Any) -> Any:
        clock.start()
        with clock.timing("step"):
            return training_step(*args, **kwargs)

    trainer.training_step = step
    trainer._generate_single_turn = timed(trainer._generate_single_turn, lambda: "rollout")
    trainer._calculate_rewards = timed(trainer._calculate_rewards, lambda: "reward")
    trainer._get_per_token_logps_and_entropies = timed(trainer._get_per_token_logps_and_entropies, current_pass)
    trainer.accelerator.backward = timed(trainer.accelerator.backward, lambda: "backward")


def _samples(shape: Shape, policy: LoadedPolicy) -> list[Sample]:
    """Phantom samples with questions that give prompts of the requested length."""
    sizes = {"train": 4 * shape.prompts, "validation": 0, "test": 0}
    samples = list(PhantomSource("grading", sizes=sizes).samples("train"))
    if shape.prompt is None:
        return samples
    task, words = Grading(5), 0
    for _ in range(20):  # a word is about one token
        longer = replace(samples[0], question=samples[0].question + " a" * words)
        lacking = shape.prompt - _length(policy, task, longer)
        if lacking == 0 or words + lacking < 0:
            break
        words += lacking
    if lacking:
        raise UserError(f"a prompt of {shape.prompt} tokens cannot be built; {shape.prompt - lacking} can.")
    return [replace(sample, question=sample.question + " a" * words) for sample in samples]


def _length(policy: LoadedPolicy, task: Grading, sample: Sample) -> int:
    images = [open_image(image) for image in sample.images]
    return int(model_inputs(policy, [policy.prompt(task, sample, images[0].size)], [images])["input_ids"].shape[1])


def mid_config() -> Any:
    """The configuration of ``mid``: larger than the embedded policy, smaller than released models."""
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
