"""Pretraining: a killed run goes on to the same weights, and another plan does not take its folder over."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from vrft.policies import load_policy
from vrft.policies.tiny import pretrain as module
from vrft.policies.tiny.pretrain import Plan, pretrain, rate

PLAN = Plan(steps=6, batch=4, warmup=2, seeing_steps=2, reading_steps=2)


@pytest.fixture(autouse=True)
def _shipped_tokenizer(monkeypatch: pytest.MonkeyPatch):
    """Training the tokenizer anew takes seconds, and is not what is tested here."""
    monkeypatch.setattr(module, "build_tokenizer", lambda: load_policy("tiny").processor.tokenizer)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = load_file(pretrain(PLAN, tmp_path / "whole", save_every=2) / "model.safetensors")
    save = module._save

    def save_and_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            pretrain(PLAN, tmp_path / "killed", save_every=2)
    assert not (tmp_path / "killed" / "policy").exists()
    killed = load_file(pretrain(PLAN, tmp_path / "killed", save_every=2) / "model.safetensors")
    assert all((whole[name] == killed[name]).all() for name in whole)
    assert load_policy(str(tmp_path / "killed" / "policy")).suppressed


def test_another_plan_is_refused(tmp_path: Path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(SystemExit, match="another plan"):
        pretrain(PLAN, tmp_path)


def test_the_learning_rate_rises_then_falls_to_zero():
    factors = [rate(step, Plan(steps=150, warmup=10, seeing_steps=50)) for step in range(50, 151)]
    assert factors.index(max(factors)) in (9, 10)
    assert factors[:10] == sorted(factors[:10])
    assert factors[-1] == pytest.approx(0, abs=1e-9)
