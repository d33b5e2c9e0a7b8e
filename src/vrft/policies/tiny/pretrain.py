"""Pretrain the embedded policy: ``python -m vrft.policies.tiny.pretrain --out DIR``.

Three stages, one after another: the vision tower learns to see (``seeing.py``), the text layers learn to look things up
in cards without pictures, and then both learn all lessons together (``lessons.py``): AdamW, with a linear warm-up and
then a cosine to zero, once for seeing and once for the rest. What step ``s`` shows depends on the seed and ``s`` alone,
so a killed run goes on from its last checkpoint to the same weights. At the end ``DIR/policy`` holds what ships in the
package, and ``DIR/examination.json`` how it does on held-out lessons.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen2_5_VLProcessor

from vrft.data.phantom import Phantom, draw
from vrft.policies import load_policy
from vrft.policies.tiny.build import build_config, build_model, build_processor, build_tokenizer
from vrft.policies.tiny.examine import examine
from vrft.policies.tiny.lessons import TRAINING, Lesson, lesson
from vrft.policies.tiny.seeing import SeeingHead, by_token, cells_of, seeing_loss, seen_phantom

IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """All that decides the weights, on one machine."""

    seed: int = 0
    steps: int = 9000
    """All steps, those of ``seeing_steps`` and ``reading_steps`` among them."""
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.01
    width: int = 128
    layers: int = 4
    vision_width: int = 128
    seeing_steps: int = 2000
    """Steps at the start that teach the vision tower alone, each picture in 64 places."""
    reading_steps: int = 1200
    """Steps after those that hold only cards without pictures: short and quick, and the skill that comes last."""
    examine_every: int = 1000
    """Steps between two examinations (100 lessons a skill), which make the curves."""


Part = dict[str, Tensor]
"""Inputs of the model, and ``labels`` of the last tokens or the ``cells`` to be seen."""


class Steps(torch.utils.data.Dataset[list[Part]]):
    """What each step shows, ready for the model, from step ``start`` on."""

    def __init__(self, plan: Plan, processor: Qwen2_5_VLProcessor, start: int) -> None:
        self.plan, self.processor, self.start = plan, processor, start

    def __len__(self) -> int:
        return self.plan.steps - self.start

    def __getitem__(self, item: int) -> list[Part]:
        plan, step = self.plan, self.start + item
        numbers = range(step * plan.batch, (step + 1) * plan.batch)
        if step < plan.seeing_steps:
            return [self._seen([seen_phantom(np.random.default_rng([TRAINING, plan.seed, n, 1])) for n in numbers])]
        skill = "reading" if step < plan.seeing_steps + plan.reading_steps else None
        lessons = [lesson(TRAINING, plan.seed, number, skill) for number in numbers]
        lessons.sort(key=lambda made: len(made.prompt) + len(made.completion))  # two halves need less padding than one
        half = plan.batch // 2
        return [self._said(lessons[:half]), self._said(lessons[half:])]

    def _seen(self, phantoms: list[Phantom]) -> Part:
        inputs = self.processor.image_processor(images=[draw(one) for one in phantoms], return_tensors="pt")
        return {**inputs, "cells": torch.from_numpy(np.stack([cells_of(one) for one in phantoms]))}

    def _said(self, lessons: list[Lesson]) -> Part:
        prompts = [prompt_text(self.processor, made.prompt, pictured=made.phantom is not None) for made in lessons]
        images = [image for made in lessons if (image := made.image) is not None]
        endings = [f"{made.completion}<|im_end|>" for made in lessons]
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


def seen_loss(model: PreTrainedModel, head: SeeingHead, part: Part) -> Tensor:
    """How wrongly the image tokens tell what lies in their cells; ``cells`` are [B, CELLS, CELLS, CHANNELS]."""
    tokens = model.model.visual(part["pixel_values"], grid_thw=part["image_grid_thw"]).pooler_output
    return seeing_loss(head(tokens).float(), by_token(part["cells"]))


def said_loss(model: PreTrainedModel, part: Part) -> Tensor:
    """The summed cross-entropy of the completions; ``labels`` [B, T] are those of the last T tokens."""
    labels = part["labels"]
    inputs = {name: value for name, value in part.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def prompt_text(processor: Qwen2_5_VLProcessor, prompt: str, *, pictured: bool = True) -> str:
    content = [{"type": "image"}] * pictured + [{"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def rate(step: int, plan: Plan) -> float:
    """The learning rate's factor: in seeing, and again in all that follows, up linearly, then half a cosine to zero."""
    first, last = (0, plan.seeing_steps) if step < plan.seeing_steps else (plan.seeing_steps, plan.steps)
    step, steps = step - first, last - first
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, steps - plan.warmup)))


def pretrain(plan: Plan, out: Path, *, save_every: int = 250) -> Path:
    """Train, with resume, and return the folder of the finished policy."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "plan.json"
    if kept.exists() and json.loads(kept.read_text()) != asdict(plan):
        raise SystemExit(f"{out} holds a run of another plan: {kept.read_text()}; choose another --out.")
    kept.write_text(json.dumps(asdict(plan)))
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, no GPU"
    (out / "machine.json").write_text(json.dumps({"machine": machine, "arguments": sys.argv[1:]}))
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = out / "checkpoint"
    if not checkpoint.exists() and (old := checkpoint.with_suffix(".old")).exists():
        os.replace(old, checkpoint)  # killed between the two renames of a save
    if checkpoint.exists():
        model = AutoModelForImageTextToText.from_pretrained(checkpoint).to(device)
    else:
        sizes = {"width": plan.width, "layers": plan.layers, "vision_width": plan.vision_width}
        model = build_model(build_config(tokenizer, **sizes), tokenizer, seed=plan.seed).to(device)
    head = SeeingHead(plan.width).to(device)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        head.load_state_dict(state["head"])
        start = state["step"]
    model.train()
    loader = DataLoader(Steps(plan, processor, start), batch_size=None, shuffle=False, num_workers=1, prefetch_factor=4)
    columns = (
        TextColumn("pretraining"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=plan.steps, completed=start, loss=float("nan"))
        for step, parts in enumerate(loader, start=start):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate(step, plan)
            words = sum(int((part["labels"] != IGNORED).sum()) for part in parts if "labels" in part)
            loss = 0.0
            for cpu in parts:
                part = {name: value.to(device) for name, value in cpu.items()}
                with torch.autocast(device, torch.bfloat16):
                    share = said_loss(model, part) / words if words else seen_loss(model, head, part)
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
            due = (step + 1) % plan.examine_every == 0 and step + 1 > plan.seeing_steps
            if due or (step + 1) % save_every == 0 or step + 1 == plan.steps:
                state = {"optimizer": optimizer.state_dict(), "head": head.state_dict(), "step": step + 1}
                _save(checkpoint, model, processor, state)
            if due:
                figures = examine(load_policy(str(checkpoint)), samples=100)
                with (out / "curves.jsonl").open("a") as curves:
                    curves.write(json.dumps({"step": step + 1, "samples": (step + 1) * plan.batch, **figures}) + "\n")
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the run and the policy go")
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    options = vars(parser.parse_args())
    out = options.pop("out")
    policy = pretrain(Plan(**options), out)
    figures = json.dumps(examine(load_policy(str(policy))), indent=1)
    (out / "examination.json").write_text(figures + "\n")
    print(figures, policy, sep="\n")


if __name__ == "__main__":
    main()
