"""The embedded policy: what ships is what the loader expects, and its skills still stand."""

import hashlib
import json
from pathlib import Path

import pytest
from curriculum import HELD_OUT, SKILLS, TRAINING, make_example
from evaluate_skills import EVALUATED, evaluate_skills
from export import logits
from tiny_model import PIECES
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from vrft.errors import PolicyError
from vrft.policies import TINY, LoadedPolicy, decode, load_policy

CARD = json.loads((TINY / "card.json").read_text())


@pytest.fixture(scope="module")
def tiny() -> LoadedPolicy:
    return load_policy("tiny", dtype="float32")


def test_the_shipped_files_are_the_ones_of_the_card():
    for name, expected in CARD["sha256"].items():
        assert hashlib.sha256((TINY / name).read_bytes()).hexdigest() == expected, name


def test_it_is_small():
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= 10 * 2**20


def test_it_loads_by_the_auto_classes_of_the_large_models(tiny: LoadedPolicy):
    model, processor = AutoModelForImageTextToText.from_pretrained(TINY), AutoProcessor.from_pretrained(TINY)
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration)
    assert isinstance(processor, Qwen2_5_VLProcessor)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 5_000_000
    assert processor.tokenizer.padding_side == "left"


def test_loaded_weights_give_the_stored_logits(tiny: LoadedPolicy):
    assert logits(tiny) == pytest.approx(CARD["logits"], abs=2e-3)


def test_a_tag_of_the_envelope_is_one_piece_that_decoding_keeps(tiny: LoadedPolicy):
    tokenizer = tiny.processor.tokenizer
    for piece in [*PIECES, "224", "17"]:
        ids = tokenizer(piece).input_ids
        assert len(ids) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == piece


@pytest.mark.parametrize("text", ["Ärztin: „großer Herd“", "恶性 🩻", "a\nb\tc"])
def test_any_text_survives_the_tokenizer(tiny: LoadedPolicy, text: str):
    assert tiny.processor.tokenizer.decode(tiny.processor.tokenizer(text).input_ids) == text


def test_image_tokens_are_suppressed(tiny: LoadedPolicy):
    ids = tiny.processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    assert set(ids) <= set(tiny.suppressed)


def test_a_completion_does_not_depend_on_its_neighbours(tiny: LoadedPolicy):
    examples = [make_example(HELD_OUT, 1, index, skill) for index, skill in enumerate(EVALUATED)]
    together = decode(tiny, [one.prompt for one in examples], [one.image for one in examples], max_tokens=40)
    alone = [decode(tiny, [one.prompt], [one.image], max_tokens=40)[0] for one in examples]
    assert together == alone


def test_its_skills_still_stand(tiny: LoadedPolicy):
    figures = evaluate_skills(tiny, samples=100)
    least = {
        **{
            "format": 0.99,
            "brightness": 0.97,
            "size": 0.96,
            "shape": 0.85,
            "margin": 0.87,
            "count": 0.91,
            "extent": 0.8,
        },
        **{"mean_iou": 0.78, "iou50": 0.92, "card2": 0.9, "card4": 0.8},
    }
    assert {name: figures[name]["value"] for name, low in least.items() if figures[name]["value"] < low} == {}


def test_held_out_examples_are_not_those_of_training():
    for index in range(50):
        assert make_example(TRAINING, 0, index, "count").phantom != make_example(HELD_OUT, 0, index, "count").phantom


@pytest.mark.parametrize("skill", SKILLS)
def test_an_example_depends_on_its_index_alone(skill: str):
    assert make_example(TRAINING, 0, 7, skill) == make_example(TRAINING, 0, 7, skill)


def test_a_policy_that_cannot_be_loaded_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PolicyError, match="cannot be loaded"):
        load_policy(str(tmp_path))
