"""How fast a step of RFT is, beside that of TRL's own trainer: same weights, prompts, seed, rewards and tokens.

Every completion is cut at exactly C tokens (no end of turn can be sampled), so that both trainers see as many tokens
whatever they write. Each runs in a fresh process; both are held, and take turns: a step of one, then a step of the
other, which waits meanwhile. A slow phase of the machine so meets both, and little of it is left in the ratio of two
steps that came one after the other. The first step of each warms up and is not counted.
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
from vrft.training.stage import begin, silence

PARTS = ("rollout", "reward", "log_prob", "forward", "backward", "other")
"""What a step is made of: sampling, the reward functions, log-probabilities without a gradient (of the reference), the
forward and backward pass of the policy, and all else (processing images). The optimiser comes after what is timed."""

TRAINERS = ("stock", "shared")
"""TRL's own, and the one here."""


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
    """The seconds of each part, step by step, and when each step began."""

    steps: list[dict[str, float]] = field(default_factory=list)
    began: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.began.append(_now())
        self.steps.append(dict.fromkeys((*PARTS, "step"), 0.0))

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        began = _now()
        yield
        if self.steps:
            self.steps[-1][part] += _now() - began


def _settle() -> None:
    """Wait until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _now() -> float:
    _settle()
    return time.perf_counter()


@dataclass(frozen=True)
class Measured:
    """What the process of one trainer measured.

    Args:
        steps: of each step that counts, the seconds of each part but ``other``, and of the ``step``.
        began: when each of them began, in seconds of the machine's clock, which all processes share.
        peak_mb: the most memory above what was held before the first step.
        prompt: tokens of a prompt.
    """

    steps: list[dict[str, float]]
    began: list[float]
    peak_mb: float
    prompt: int


def bench(shape: Shape, *, steps: int = 10, seed: int = 0, reporter: Reporter) -> dict[str, Any]:
    """Time both trainers on one shape, ``steps`` of each in turn, after one that is not counted; see ``figures``.

    Raises:
        UserError: the prompt cannot be made as long, or as short, as asked; or a trainer's process was killed.
        RuntimeError: a trainer failed; the message holds its traceback.
    """
    return figures(shape, take_turns(shape, steps=steps, seed=seed, reporter=reporter))


def figures(shape: Shape, measured: dict[str, Measured]) -> dict[str, Any]:
    """What both trainers came to.

    Args:
        shape: what was timed.
        measured: of ``stock`` and of ``shared``, with as many steps; the k-th of one was beside the k-th of the other.

    Returns:
        the shape; for ``stock`` and ``shared`` the mean seconds of each part of a step, ``peak_mb`` above what was held
        before the first step, ``tokens_per_second`` (prompt and completion of every sequence), the seconds of all
        ``steps``, their ``step_median`` and ``step_min``; and ratios of stock to shared.

        ``training_pass_ratio`` (forward and backward), ``step_ratio`` and ``memory_ratio`` are of the means and the
        peaks. Of a step and of its training pass, ``_ratio_median`` is the median of the ratios of each pair of steps,
        ``_ratio_low`` and ``_ratio_high`` its interval (``median_interval``), which holds the true median with a chance
        of ``interval_coverage``; ``_ratio_min`` is the ratio of the shortest of each.
    """
    result: dict[str, Any] = {**vars(shape), "prompt": measured["shared"].prompt}
    for name in TRAINERS:
        one = measured[name]
        means = {part: mean(step[part] for step in one.steps) for part in (*PARTS[:-1], "step")}
        means["other"] = means["step"] - sum(means[part] for part in PARTS[:-1])
        tokens = shape.prompts * shape.group * (one.prompt + shape.completion)
        whole = [step["step"] for step in one.steps]
        result[name] = {
            **means,
            "peak_mb": one.peak_mb,
            "tokens_per_second": tokens / means["step"],
            "step_min": min(whole),
            "step_median": median(whole),
            "steps": whole,
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
    """An interval for the median that asks nothing of how the values are distributed, but that each is drawn anew.

    Its ends are the r-th smallest and the r-th largest value. They miss the median where fewer than r values lie on one
    side of it, and how many do is binomial with chance 1/2 (David & Nagaraja, Order Statistics, 2003, section 7.1). Of
    all r the largest whose interval still has the level; with too few values for it (5 at 0.95) their range.

    Returns:
        the low and the high end, and the chance that such an interval holds the median, which may be below ``level``.

    >>> median_interval([5, 1, 9, 3, 7, 2, 8, 4, 6, 10])
    (2, 9, 0.978515625)
    >>> median_interval([3, 1, 2])
    (1, 3, 0.75)
    """
    ordered, count = sorted(values), len(values)
    rank, missed = 0, 1 / 2**count  # from zero; the chance that it misses on one side
    while (more := missed + comb(count, rank + 1) / 2**count) <= (1 - level) / 2:
        rank, missed = rank + 1, more
    return ordered[rank], ordered[-1 - rank], 1 - 2 * missed


def take_turns(shape: Shape, *, steps: int, seed: int = 0, reporter: Reporter) -> dict[str, Measured]:
    """Let both trainers do ``steps`` + 1 steps, one at a time; they change places after every pair.

    Raises:
        UserError: as in ``bench``.
        RuntimeError: as in ``bench``.
    """
    others: list[TrainerProcess] = []
    with TemporaryDirectory() as folder:
        model = _random_model(Path(folder) / "mid") if shape.model == "mid" else shape.model
        lengths = f"{shape.prompt or 'a question'} + {shape.completion} tokens"
        reporter.start(f"{shape.model}, {lengths}, group {shape.group}", steps + 1)
        try:
            for name in TRAINERS:
                run = (replace(shape, model=model), Path(folder) / name, steps, seed, name == "shared")
                others.append(TrainerProcess(name, *run))
            measured: dict[str, Measured] = {}
            for number in range(steps + 1):
                for other in reversed(others) if number % 2 else others:
                    if (last := other.turn()) is not None:
                        measured[other.name] = last
                reporter.advance(number + 1)
            for other in others:
                other.process.join()
            return measured
        finally:
            for other in others:
                other.end()
            reporter.stop()


class TrainerProcess:
    """A trainer in a fresh process, of which memory is measured; it does one step each time that it is told to."""

    def __init__(self, name: str, *run: Any) -> None:
        self.name = name
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *run), name=name)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def turn(self) -> Measured | None:
        """Have it do a step, and wait for that; the first turn also loads, the last tells what was measured."""
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
        assert reply is None or isinstance(reply, Measured)
        return reply

    def end(self) -> None:
        """End the process, if it has not ended of itself."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, *run: Any) -> None:
    """The whole life of a trainer's process; every message is the answer to one that gave it the turn."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts means the parent, which ends this process
    _wait(pipe)
    try:
        pipe.send(_time(pipe, *run))
    except BrokenPipeError:  # the parent is gone
        sys.exit(1)
    except UserError as error:
        pipe.send(UserError(str(error)))
    except Exception:  # not every error can be sent
        pipe.send(RuntimeError(traceback.format_exc()))


def _wait(pipe: Connection) -> None:
    """Wait for the next turn."""
    try:
        pipe.recv()
    except EOFError:  # the parent is gone
        sys.exit(1)


class _Turns(TrainerCallback):
    """Gives the turn back after every step but the last, whose turn ends with the training.

    What comes between two steps (the optimiser before, the log and the next batch after) so lies within a turn.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < state.max_steps:
            _settle()
            self.pipe.send(None)
            _wait(self.pipe)


def _time(pipe: Connection, shape: Shape, folder: Path, steps: int, seed: int, shared: bool) -> Measured:
    quiet_libraries()
    warnings.filterwarnings("ignore")
    loaded = load_policy(shape.model, training=True)
    policy = _Endless(**{name: getattr(loaded, name) for name in ("model", "processor", "name", "compute")})
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
    callback, _ = begin(policy, stage, StageDirectory(folder), seed=seed, reporter=Reporter(quiet=True), label="")
    trainer = make_trainer(policy, stage, task, samples, StageDirectory(folder), callback, seed=seed, plain=GRPOTrainer)
    silence(trainer)
    trainer.add_callback(_Turns(pipe))
    clock = Clock()
    _watch(trainer, clock)
    memory = PeakMemory()
    before = memory.peak_mb()
    trainer.train()
    peak = memory.peak_mb() - before
    return Measured(clock.steps[1:], clock.began[1:], peak, _length(policy, task, samples[0]))


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
