"""Pretraining: a killed run continues to the same weights, and a run with other settings is refused in its folder."""

from pathlib import Path

import numpy as np
import pretrain as module
import pytest
from pretrain import PretrainConfig, lr_factor, pretrain
from safetensors.numpy import load_file
from tiny_model import build_config

from vrft.policies import load_policy

pytestmark = pytest.mark.slow

CONFIG = PretrainConfig(steps=6, batch=4, warmup=2, vision_steps=2, reading_steps=2)


@pytest.fixture(autouse=True)
def _shipped_tokenizer(monkeypatch: pytest.MonkeyPatch):
    """Training the tokenizer anew takes seconds, and is not what is tested here."""
    monkeypatch.setattr(module, "build_tokenizer", lambda: load_policy("tiny").processor.tokenizer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The weights of a run without an interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build_tokenizer", lambda: load_policy("tiny").processor.tokenizer)
        return load_file(pretrain(CONFIG, tmp_path_factory.mktemp("whole"), save_every=6) / "model.safetensors")


@pytest.mark.parametrize("saves", [1, 2, 4, 5])
def test_a_run_that_is_killed_in_any_stage_continues_to_the_same_weights(
    tmp_path: Path, whole: dict[str, np.ndarray], saves: int, monkeypatch: pytest.MonkeyPatch
):
    save, done = module._save, 0

    def save_and_die(*arguments):
        nonlocal done
        save(*arguments)
        done += 1
        if done == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            pretrain(CONFIG, tmp_path, save_every=1)
    assert not (tmp_path / "policy").exists()
    (tmp_path / "checkpoint.old").mkdir()  # as a kill while the last one is removed leaves it
    (tmp_path / "checkpoint.old" / "x").touch()
    killed = load_file(pretrain(CONFIG, tmp_path, save_every=6) / "model.safetensors")
    assert all((whole[name] == killed[name]).all() for name in whole)
    assert load_policy(str(tmp_path / "policy")).suppressed


@pytest.mark.parametrize("sizes", [{"width": 64}, {"width": 160}, {"layers": 1}, {"vision_width": 40}])
def test_sizes_that_cannot_be_built_are_refused(sizes: dict[str, int]):
    with pytest.raises(ValueError, match="must be a multiple"):
        build_config(load_policy("tiny").processor.tokenizer, **sizes)


def test_other_settings_are_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="other settings"):
        pretrain(CONFIG, tmp_path)


def test_the_learning_rate_rises_then_falls_to_zero():
    factors = [lr_factor(step, PretrainConfig(steps=150, warmup=10, vision_steps=50)) for step in range(50, 151)]
    assert factors.index(max(factors)) in (9, 10)
    assert factors[:10] == sorted(factors[:10])
    assert factors[-1] == pytest.approx(0, abs=1e-9)
