"""A picture is processed once in a step, and comes out as it would each time."""

import numpy as np
import pytest
import torch
from PIL import Image

from vrft.policies import load_policy, processed_once


def pictures(*sides):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*side, 3), dtype=np.uint8)) for side in sides]


@pytest.mark.parametrize("nested", [True, False])
def test_what_comes_out_is_the_same_and_each_is_processed_once(monkeypatch, nested):
    processor = load_policy("tiny").processor
    whole = processor.image_processor
    one, other = pictures((50, 80), (300, 200))
    given = [one, one.copy(), other, one]
    inputs = {"images": [[each] for each in given] if nested else given, "return_tensors": "pt", "padding": True}
    texts = ["<|vision_start|><|image_pad|><|vision_end|>How many?"] * 4
    stock = processor(text=texts, **inputs)
    counted = []
    preprocess = type(whole)._preprocess

    def counting(self, images, *args, **options):
        counted.append(images)
        return preprocess(self, images, *args, **options)

    monkeypatch.setattr(type(whole), "_preprocess", counting)
    with processed_once(processor):
        ours = [processor(text=texts, **inputs) for _ in range(2)]
    assert len(counted) == 2
    assert processor.image_processor is whole
    for made in ours:
        assert set(made) == set(stock)
        assert all(torch.equal(made[name], stock[name]) for name in stock)


def test_images_of_equal_bytes_and_another_shape_are_kept_apart():
    processor = load_policy("tiny").processor
    wide, high = Image.new("RGB", (112, 56)), Image.new("RGB", (56, 112))
    with processed_once(processor):
        grids = processor.image_processor([wide, high], return_tensors="pt")["image_grid_thw"].tolist()
    assert grids[0] == [1, *grids[1][:0:-1]]
    assert grids[0] != grids[1]


def test_after_an_error_the_processor_is_as_it_was():
    processor = load_policy("tiny").processor
    whole = processor.image_processor
    with pytest.raises(ZeroDivisionError), processed_once(processor):
        1 / 0  # noqa: B018
    assert processor.image_processor is whole
