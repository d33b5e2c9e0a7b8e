"""Which frame a family speaks, and what its processor makes of an image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vrft.errors import PolicyError
from vrft.policies import TINY, frame_of, load_policy, save_policy
from vrft.policies.families import family_of, processed_size
from vrft.policies.loading import bound_pixels
from vrft.sample import Sample
from vrft.tasks import Classification


@pytest.mark.parametrize(
    ("kind", "frame", "multiple"),
    [("qwen2_vl", "thousand", 28), ("qwen2_5_vl", "resized", 28), ("qwen3_vl", "thousand", 32), ("llava", "unit", 1)],
)
def test_each_family_speaks_its_frame(kind: str, frame: str, multiple: int):
    family = family_of(SimpleNamespace(model_type=kind))
    assert (family.frame, family.multiple) == (frame, multiple)


def test_the_embedded_policy_speaks_pixels_of_the_resized_image():
    assert frame_of(str(TINY)) == "resized"


def test_a_policy_without_a_configuration_is_named(tmp_path):
    with pytest.raises(PolicyError, match="no configuration"):
        frame_of(str(tmp_path))


@pytest.mark.parametrize("size", [(112, 112), (640, 480), (300, 100), (97, 211)])
def test_the_processed_size_is_that_of_the_processor(size: tuple[int, int]):
    policy = load_policy("tiny")
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    made = policy.processor(text=["<|vision_start|><|image_pad|><|vision_end|>"], images=[image], return_tensors="pt")
    (_, rows, columns) = made["image_grid_thw"][0].tolist()
    assert policy.processed_size(size) == (columns * 14, rows * 14)
    assert processed_size(size, SimpleNamespace(model_type="other"), None) == size


def test_a_region_is_written_in_the_frame_of_the_family():
    image, task = Image.new("RGB", (224, 224)), Classification(("RBC", "WBC"))
    sample = Sample("a", lambda: image, "Which cell?", "WBC", "test", region=(20, 40, 100, 120))
    prompt = load_policy("tiny").prompt(task, sample, image.size)
    assert 'It lies in [{"bbox_2d":[10,20,50,60]}], in pixels of the image.' in prompt  # of the resized one, 112 x 112


@pytest.mark.parametrize("bound", [28 * 28 * 4, 28 * 28 * 40])
def test_max_pixels_bounds_what_the_policy_sees_and_is_saved_with_it(tmp_path, bound):
    policy = load_policy("tiny", max_pixels=bound)
    save_policy(policy, tmp_path)
    image = Image.new("RGB", (800, 600))
    for one in (policy, load_policy(str(tmp_path))):
        width, height = one.processed_size(image.size)
        assert width * height <= bound
        made = one.processor.image_processor([image], return_tensors="pt")
        assert made["image_grid_thw"].prod().item() * 14 * 14 == width * height


def test_a_small_image_is_enlarged_to_the_least_pixels_of_the_processor():
    size = {"shortest_edge": 200 * 200, "longest_edge": 400 * 400}
    processor = SimpleNamespace(image_processor=SimpleNamespace(size=size))
    width, height = processed_size((40, 30), SimpleNamespace(model_type="qwen2_5_vl"), processor)
    assert width * height >= 200 * 200


def test_a_bound_below_the_least_pixels_lowers_them_too():
    resizer = SimpleNamespace(size={"shortest_edge": 56 * 56, "longest_edge": 1000 * 1000})
    bound_pixels(SimpleNamespace(image_processor=resizer), 28 * 28)
    assert (resizer.size["shortest_edge"], resizer.size["longest_edge"]) == (28 * 28, 28 * 28)


@pytest.mark.parametrize(("dtype", "held"), [("float16", torch.float16), ("bfloat16", torch.float32)])
def test_weights_that_were_saved_in_float32_stay_so_unless_float16_is_asked_for(dtype: str, held: torch.dtype):
    assert load_policy("tiny", dtype=dtype).model.dtype == held
