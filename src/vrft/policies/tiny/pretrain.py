"""Pretrain the embedded policy: ``python -m vrft.policies.tiny.pretrain --out DIR``.

Supervised next-token training on endless lessons (``lessons.py``): AdamW, linear warm-up, then a cosine to zero. Lesson
``i`` depends on the seed and ``i`` alone, so a killed run goes on from its last checkpoint to the same weights. At the
end ``DIR/policy`` holds what ships in the package, and ``DIR/examination.json`` how it does on held-out lessons.
"""

import argparse
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen2_5_VLProcessor

from vrft.policies import load_policy
from vrft.policies.tiny.build import build_config, build_model, build_processor, build_tokenizer
from vrft.policies.tiny.examine import examine
from vrft.policies.tiny.lessons import TRAINING, lesson

IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """All that decides the weights, on one machine."""

    seed: int = 0
    steps: int = 12_000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    width: int = 128
    layers: int = 4
    vision_width: int = 128
    reading_steps: int = 1500
    """Steps at the start that hold only cards without pictures: short and quick, and the skill that comes last."""
    examine_every: int = 1000
    """Steps between two examinations (100 lessons a skill), which make the curves."""


class Lessons(torch.utils.data.Dataset):
    """Batches of lessons, ready for the model; item ``s`` is the batch of step ``s``."""

    def __init__(self, plan: Plan, processor: Qwen2_5_VLProcessor, start: int) -> None:
        self.plan, self.processor, self.start = plan, processor, start

    def __len__(self) -> int:
        return self.plan.steps - self.start

    def __getitem__(self, item: int) -> tuple[dict[str, torch.Tensor], int]:
        step = self.start + item
        skill = "reading" if step < self.plan.reading_steps else None
        numbers = range(step * self.plan.batch, (step + 1) * self.plan.batch)
        lessons = [lesson(TRAINING, self.plan.seed, number, skill) for number in numbers]
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
        return {**inputs, "completion_labels": labels}, keep


def prompt_text(processor: Qwen2_5_VLProcessor, prompt: str, *, pictured: bool = True) -> str:
    content = [{"type": "image"}] * pictured + [{"type": "text", "text": prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def rate(step: int, plan: Plan) -> float:
    """The learning rate's factor: up over the warm-up, then half a cosine down to zero."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, plan.steps - plan.warmup)))


def pretrain(plan: Plan, out: Path, *, save_every: int = 250) -> Path:
    """Train, with resume, and return the folder of the finished policy."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "plan.json"
    if kept.exists() and json.loads(kept.read_text()) != asdict(plan):
        raise SystemExit(f"{out} holds a run of another plan: {kept.read_text()}; choose another --out.")
    kept.write_text(json.dumps(asdict(plan)))
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
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
    )
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    model.train()
    loader = DataLoader(
        Lessons(plan, processor, start), batch_size=None, shuffle=False, num_workers=1, prefetch_factor=4
    )
    columns = (
        TextColumn("pretraining"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=plan.steps, completed=start, loss=float("nan"))
        for step, (inputs, keep) in enumerate(loader, start=start):
            labels = inputs.pop("completion_labels").to(device)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate(step, plan)
            logits = model(**{k: v.to(device) for k, v in inputs.items()}, logits_to_keep=keep + 1).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED
            )
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress.update(bar, advance=1, loss=loss.item())
            if (step + 1) % 50 == 0:
                row = {
                    "step": step + 1,
                    "loss": loss.item(),
                    "grad_norm": norm.item(),
                    "seconds": time.monotonic() - began,
                }
                with (out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(row) + "\n")
            if (step + 1) % save_every == 0 or step + 1 == plan.steps:
                _save(checkpoint, model, processor, {"optimizer": optimizer.state_dict(), "step": step + 1})
            if (step + 1) % plan.examine_every == 0:
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
