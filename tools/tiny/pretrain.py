"""Pretrain the embedded policy: ``python tools/tiny/pretrain.py --out DIR [--export]``.

Three stages, one after another: dense supervision of the vision tower (``vision_pretraining.py``), then cards without
images for the text layers, then all skills together (``curriculum.py``). AdamW, with a linear warm-up and then a cosine
to zero, once for the vision tower and once for the rest. The data of step ``s`` follow from the seed and ``s`` alone,
so a killed run continues from its last checkpoint to the same weights. At the end ``DIR/policy`` holds the policy,
which ``--export`` puts into the package, and ``DIR/evaluation.json`` its figures on held-out examples.
"""

import argparse
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from curriculum import TRAINING, Example, make_example
from evaluate_skills import evaluate_skills
from export import export
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tiny_model import build_config, build_model, build_processor, build_tokenizer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen2_5_VLProcessor
from vision_pretraining import CellHead, by_token, cell_loss, cell_targets, random_phantom

from vrft.data.phantom import Phantom, draw
from vrft.policies import load_policy

IGNORED = -100


@dataclass(frozen=True)
class PretrainConfig:
    """The settings of a pretraining, from which the weights follow on one machine."""

    seed: int = 0
    steps: int = 9000
    """All steps, those of ``vision_steps`` and ``reading_steps`` among them."""
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.01
    width: int = 128
    layers: int = 4
    vision_width: int = 128
    vision_steps: int = 2000
    """Steps at the start that train the vision tower alone, with 64 targets an image."""
    reading_steps: int = 1200
    """Steps after those that hold only cards without images: short and quick, and the skill that is learnt last."""
    evaluate_every: int = 1000
    """Steps between two evaluations (100 examples a skill), which make the curves."""


Batch = dict[str, Tensor]
"""Inputs of the model, and ``labels`` of the last tokens or the targets of the ``cells``."""


class StepDataset(torch.utils.data.Dataset[list[Batch]]):
    """The batches of each step, ready for the model, from step ``start`` on."""

    def __init__(self, config: PretrainConfig, processor: Qwen2_5_VLProcessor, start: int) -> None:
        self.config, self.processor, self.start = config, processor, start

    def __len__(self) -> int:
        return self.config.steps - self.start

    def __getitem__(self, item: int) -> list[Batch]:
        config, step = self.config, self.start + item
        numbers = range(step * config.batch, (step + 1) * config.batch)
        if step < config.vision_steps:
            generators = (np.random.default_rng([TRAINING, config.seed, n, 1]) for n in numbers)
            return [self._vision_batch([random_phantom(rng) for rng in generators])]
        skill = "reading" if step < config.vision_steps + config.reading_steps else None
        examples = [make_example(TRAINING, config.seed, number, skill) for number in numbers]
        examples.sort(key=lambda one: len(one.prompt) + len(one.completion))  # two halves need less padding than one
        half = config.batch // 2
        return [self._text_batch(examples[:half]), self._text_batch(examples[half:])]

    def _vision_batch(self, phantoms: list[Phantom]) -> Batch:
        inputs = self.processor.image_processor(images=[draw(one) for one in phantoms], return_tensors="pt")
        return {**inputs, "cells": torch.from_numpy(np.stack([cell_targets(one) for one in phantoms]))}

    def _text_batch(self, examples: list[Example]) -> Batch:
        prompts = [prompt_text(self.processor, one.prompt, with_image=one.phantom is not None) for one in examples]
        images = [image for one in examples if (image := one.image) is not None]
        endings = [f"{one.completion}<|im_end|>" for one in examples]
        inputs = self.processor(
            text=[p + e for p, e in zip(prompts, endings, strict=True)],
            images=images or None,
            padding=True,
            return_tensors="pt",
        )
        lengths = [len(ids) for ids in self.processor.tokenizer(endings).input_ids]
        keep = max(lengths)
        labels = inputs["input_ids"][:, -keep:].clone()
        for row, length in zip(labels, lengths, strict=True):
            row[: keep - length] = IGNORED
        return {**inputs, "labels": labels}


def vision_loss(model: PreTrainedModel, head: CellHead, batch: Batch) -> Tensor:
    """The loss of the cells that the head reads from the image tokens; ``cells`` are [B, CELLS, CELLS, CHANNELS]."""
    tokens = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
    return cell_loss(head(tokens).float(), by_token(batch["cells"]))


def text_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The summed cross-entropy of the completions; ``labels`` [B, T] are those of the last T tokens."""
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def prompt_text(processor: Qwen2_5_VLProcessor, prompt: str, *, with_image: bool = True) -> str:
    """The prompt as the chat template writes it, up to the turn of the assistant."""
    content = [{"type": "image"}] * with_image + [{"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def lr_factor(step: int, config: PretrainConfig) -> float:
    """The factor of the learning rate, in [0, 1]: linear warm-up, then half a cosine to zero.

    The schedule runs once over the steps of the vision tower and again over the rest.
    """
    first, last = (0, config.vision_steps) if step < config.vision_steps else (config.vision_steps, config.steps)
    step, steps = step - first, last - first
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, steps - config.warmup)))


def pretrain(config: PretrainConfig, out: Path, *, save_every: int = 250) -> Path:
    """Train, or resume a killed run, and return the folder of the finished policy.

    Args:
        config: the settings.
        out: the folder of the run.
        save_every: steps between two checkpoints.

    Raises:
        SystemExit: the folder holds a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = out / "config.json"
    if settings.exists() and json.loads(settings.read_text()) != asdict(config):
        raise SystemExit(f"{out} holds a run with other settings: {settings.read_text()}; choose another --out.")
    settings.write_text(json.dumps(asdict(config)))
    changed = asdict(config).items() - asdict(PretrainConfig()).items()
    options = [f"--{name.replace('_', '-')} {value}" for name, value in sorted(changed)]
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, no GPU"
    (out / "machine.json").write_text(json.dumps({"machine": machine, "options": options}))
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = out / "checkpoint"
    if not checkpoint.exists() and (old := checkpoint.with_suffix(".old")).exists():
        os.replace(old, checkpoint)  # killed between the two renames of a save
    if checkpoint.exists():
        model = AutoModelForImageTextToText.from_pretrained(checkpoint).to(device)
    else:
        sizes = {"width": config.width, "layers": config.layers, "vision_width": config.vision_width}
        model = build_model(build_config(tokenizer, **sizes), tokenizer, seed=config.seed).to(device)
    head = CellHead(config.width).to(device)
    parameters = [*model.parameters(), *head.parameters()]
    rate, decay = config.learning_rate, config.weight_decay
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=decay)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        head.load_state_dict(state["head"])
        start = state["step"]
    model.train()
    loader = DataLoader(StepDataset(config, processor, start), batch_size=None, num_workers=1, prefetch_factor=4)
    loss_column = TextColumn("loss {task.fields[loss]:.3f}")
    began = time.monotonic()
    with Progress(TextColumn("pretraining"), BarColumn(), loss_column, TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=config.steps, completed=start, loss=float("nan"))
        for step, batches in enumerate(loader, start=start):
            for group in optimizer.param_groups:
                group["lr"] = rate * lr_factor(step, config)
            tokens = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches if "labels" in batch)
            loss = 0.0
            for cpu in batches:
                batch = {name: value.to(device) for name, value in cpu.items()}
                with torch.autocast(device, torch.bfloat16):
                    share = text_loss(model, batch) / tokens if tokens else vision_loss(model, head, batch)
                share.backward()
                loss += share.item()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress.update(bar, advance=1, loss=loss)
            if (step + 1) % 50 == 0:
                row = {"step": step + 1, "loss": loss, "grad_norm": norm.item(), "seconds": time.monotonic() - began}
                with (out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(row) + "\n")
            due = (step + 1) % config.evaluate_every == 0 and step + 1 > config.vision_steps
            if due or (step + 1) % save_every == 0 or step + 1 == config.steps:
                state = {"optimizer": optimizer.state_dict(), "head": head.state_dict(), "step": step + 1}
                _save(checkpoint, model, processor, state)
            if due:
                figures = evaluate_skills(load_policy(str(checkpoint)), samples=100)
                point = {"step": step + 1, "samples": (step + 1) * config.batch, **figures}
                with (out / "curves.jsonl").open("a") as curves:
                    curves.write(json.dumps(point) + "\n")
    policy = out / "policy"
    shutil.rmtree(policy, ignore_errors=True)
    model.save_pretrained(policy)
    processor.save_pretrained(policy)
    return policy


def _save(checkpoint: Path, model: PreTrainedModel, processor: Qwen2_5_VLProcessor, state: dict) -> None:
    """Write a checkpoint beside the old one, then put it in its place."""
    fresh, old = checkpoint.with_suffix(".new"), checkpoint.with_suffix(".old")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    torch.save(state, fresh / "optimizer.pt")
    shutil.rmtree(old, ignore_errors=True)  # left by a kill in the last line
    if checkpoint.exists():
        os.replace(checkpoint, old)
    os.replace(fresh, checkpoint)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Pretrain with the settings of the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the run and the policy go")
    parser.add_argument("--export", action="store_true", help="put the policy into the package, with its card")
    for name, value in asdict(PretrainConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    options = vars(parser.parse_args())
    out, into_package = options.pop("out"), options.pop("export")
    policy = pretrain(PretrainConfig(**options), out)
    figures = json.dumps(evaluate_skills(load_policy(str(policy))), indent=1)
    (out / "evaluation.json").write_text(figures + "\n")
    print(figures, policy, sep="\n")
    if into_package:
        export(out, samples=1000)


if __name__ == "__main__":
    main()
