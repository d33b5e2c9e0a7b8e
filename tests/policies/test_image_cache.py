"""Images are decoded and resized once, and the policy sees the very pixels that it would have seen."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from vrft.errors import DataError
from vrft.image_log import ImageLog
from vrft.images import BLANK, NOT_FINITE
from vrft.policies import load_policy
from vrft.policies.image_cache import ImageCache
from vrft.sample import Grey, ImageBytes, ImageFile, Sample, in_grey

SIZES = [(300, 200), (60, 40), (28, 28), (1100, 700), (333, 517)]


def sample_of(path, region=None) -> Sample:
    return Sample("a", ImageFile(path, region) if region else path, "What?", "x", "train")


def picture(folder: Path, size: tuple[int, int], seed: int = 0) -> Path:
    path = folder / f"{seed}-{size[0]}.png"
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def policy():
    policy = load_policy("tiny", max_pixels=400 * 400)
    policy.processor.image_processor.size.shortest_edge = 56 * 56
    return policy


def given(policy, image) -> torch.Tensor:
    return policy.processor.image_processor([image], return_tensors="pt")["pixel_values"]


def kept_in(folder: Path) -> list[Path]:
    return list(folder.glob("images/*/*.npy"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("region", [None, (3, 5, 25, 27)])
def test_the_policy_is_given_the_same_pixels_when_made_and_when_found(tmp_path, policy, size, region):
    sample = sample_of(picture(tmp_path, size), region)
    (plain,), (plain_size,) = policy.open(sample)
    assert plain_size == plain.size
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    for hits in (0, 1):
        (image,), (original,) = policy.open(sample)
        assert original == plain_size
        assert image.size == policy.processed_size(plain_size)
        assert policy.cache.hits == hits
        assert torch.equal(given(policy, image), given(policy, plain))


READS: list[Path] = []


@dataclass(frozen=True)
class CountedBytes:
    """The bytes of a file; each reading is listed in ``READS``."""

    path: Path

    @property
    def identity(self) -> list[Any]:
        return [self.path.name]

    def read(self) -> bytes:
        READS.append(self.path)
        return self.path.read_bytes()


def test_an_image_that_is_no_file_is_kept_and_not_read_again(tmp_path, policy):
    path = picture(tmp_path, (300, 200))
    sample = replace(sample_of(path), image=ImageBytes(CountedBytes(path), region=(3, 5, 203, 107), name="a"))
    plain, sizes = policy.open(sample)
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    made, _ = policy.open(sample)
    READS.clear()
    found, again = policy.open(sample)
    assert (policy.cache.hits, READS, again) == (1, [], sizes)
    assert torch.equal(given(policy, found[0]), given(policy, plain[0]))
    policy.open(replace(sample, image=replace(sample.image, region=(3, 5, 203, 108))))
    assert len(kept_in(tmp_path / "cache")) == 2
    assert made[0].size == found[0].size


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_each_slice_of_a_volume_is_kept_by_its_page_and_axis(tmp_path, policy, suffix):
    path = tmp_path / f"a{suffix}"
    voxels = np.random.default_rng(0).integers(0, 999, (60, 60, 60)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    images = [ImageFile(path, page=page, axis=axis) for page in (3, 30) for axis in ("axial", "coronal")]
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    seen = [[policy.open(Sample("a", image, "What?", "x", "train"))[0][0] for image in images] for _ in range(2)]
    assert policy.cache.hits == len(images)
    assert seen[0] == seen[1]
    assert len({image.tobytes() for image in seen[0]}) == len(kept_in(tmp_path / "cache")) == len(images)


def odd_pictures(folder: Path) -> dict[str, Path]:
    """Files that are read in ways of their own."""
    rng = np.random.default_rng(1)
    deep = rng.integers(800, 3000, (200, 300)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep-turned.png", exif=exif)
    Image.fromarray(rng.integers(0, 255, (200, 300, 3), dtype=np.uint8)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(rng.integers(0, 9, (200, 300), dtype=np.uint8)).convert("P").save(folder / "palette.png")
    Image.fromarray(rng.integers(0, 255, (200, 300, 4), dtype=np.uint8)).save(folder / "alpha.png")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["deep", "deep-turned", "turned", "palette", "alpha"])
@pytest.mark.parametrize("region", [None, (3, 5, 103, 125)])
def test_unusual_files_equal_those_without_a_cache(tmp_path, policy, name, region):
    (tmp_path / "files").mkdir()
    path = odd_pictures(tmp_path / "files")[name]
    sample = Sample("a", ImageFile(path, region, window=(900, 2000)), "What?", "x", "train")
    (plain,), (plain_size,) = policy.open(sample)
    assert plain_size == ((100, 120) if region else (200, 300) if "turned" in name else (300, 200))
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    for hits in (0, 1):
        (image,), (size,) = policy.open(sample)
        assert (size, policy.cache.hits) == (plain_size, hits)
        assert torch.equal(given(policy, image), given(policy, plain))


def test_windows_and_pages_are_kept_apart(tmp_path, policy):
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    path = tmp_path / "a.tif"
    first, second = (
        Image.fromarray(np.full((100, 100), value, np.uint16) + np.eye(100, dtype=np.uint16)) for value in (300, 500)
    )
    first.save(path, save_all=True, append_images=[second])
    for window in (None, (0, 1000)):
        for page in (0, 1):
            policy.open(Sample("a", ImageFile(path, window=window, page=page), "What?", "x", "train"))
    assert policy.cache.hits == 0
    assert len(kept_in(tmp_path / "cache")) == 4
    with pytest.raises(DataError, match=r"a\.tif: holds 2 pages"):
        policy.open(sample_of(path))


@pytest.mark.parametrize("cached", [False, True])
def test_images_of_one_value_are_noted_in_each_new_run(tmp_path, policy, cached):
    Image.new("RGB", (300, 200), "navy").save(tmp_path / "a.png")
    Image.fromarray(np.array([[np.nan, 0.5], [0.2, 1]], np.float32)).resize((90, 90), 0).save(tmp_path / "b.tif")
    samples = [replace(sample_of(tmp_path / name), id=name) for name in ("a.png", "b.tif")]
    samples += [
        sample_of(picture(tmp_path, (300, 200))),
        replace(samples[0], image=Grey(samples[0].images[0]), id="grey"),
    ]
    if cached:
        policy.cache = ImageCache(tmp_path / "cache", 10**9)
    for _ in range(2):
        policy.image_log = ImageLog()
        for sample in samples:
            policy.open(sample)
        assert policy.image_log.names() == {BLANK: ["a.png"], NOT_FINITE: ["b.tif"]}


def test_the_key_depends_on_content_region_and_settings(tmp_path, policy):
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    path = picture(tmp_path, (300, 200))
    policy.open(sample_of(path))
    policy.open(sample_of(path, (0, 0, 100, 100)))
    path.write_bytes(picture(tmp_path, (300, 200), seed=1).read_bytes())
    policy.open(sample_of(path))
    policy.processor.image_processor.size.longest_edge = 200 * 200
    policy.open(sample_of(path))
    assert policy.cache.hits == 0
    assert len(kept_in(tmp_path / "cache")) == 4


def test_parts_of_equal_size_of_one_image_are_kept_apart(tmp_path, policy):
    path = picture(tmp_path, (300, 200))
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    one, other = (policy.open(sample_of(path, region))[0][0] for region in ((0, 0, 100, 100), (100, 50, 200, 150)))
    assert policy.cache.hits == 0
    assert one.size == other.size
    assert one.tobytes() != other.tobytes()


def test_each_of_several_images_is_kept_and_noted(tmp_path, policy):
    Image.new("RGB", (300, 200), "navy").save(tmp_path / "blank.png")
    paths = (picture(tmp_path, (300, 200)), tmp_path / "blank.png", picture(tmp_path, (60, 90), seed=1))
    sample = Sample("a", paths, "What?", "x", "train")
    plain, sizes = policy.open(sample)
    assert sizes == ((300, 200), (300, 200), (60, 90))
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    policy.open(sample_of(paths[2]))
    cached, originals = policy.open(sample)
    assert (originals, policy.cache.hits) == (sizes, 1)
    assert [torch.equal(given(policy, a), given(policy, b)) for a, b in zip(plain, cached, strict=True)] == [True] * 3
    assert policy.image_log.names() == {BLANK: ["a"]}
    policy.image_log = ImageLog()
    assert [image.getpixel((0, 0)) for image in policy.open(in_grey(sample))[0]] == [(128, 128, 128)] * 3
    assert policy.image_log.names() == {}


def test_a_file_in_an_archive_is_kept_by_its_own_bytes(tmp_path, policy):
    files = [picture(tmp_path, (112, 112), seed).read_bytes() for seed in range(2)]
    (tmp_path / "both").write_bytes(b"".join(files))
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    parts = [(0, len(files[0])), (len(files[0]), len(files[1]))]
    both = tuple(ImageFile(tmp_path / "both", part=part, name=f"{part}.png") for part in parts)
    policy.open(Sample("a", both, "What?", "x", "train"))
    alone = (picture(tmp_path, (112, 112)), picture(tmp_path, (112, 112), 1))
    policy.open(Sample("b", alone, "What?", "x", "train"))
    assert policy.cache.hits == 2


def test_a_damaged_file_is_made_again(tmp_path, policy):
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    sample = sample_of(picture(tmp_path, (300, 200)))
    (first,), _ = policy.open(sample)
    (kept,) = kept_in(tmp_path / "cache")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:50], whole[:-1]):
        kept.write_bytes(damaged)
        assert policy.open(sample)[0][0].tobytes() == first.tobytes()
        assert kept.read_bytes() == whole


def test_what_was_not_used_gives_way_and_what_was_stays(tmp_path, policy):
    paths = [picture(tmp_path, (112, 112), seed) for seed in range(4)]
    folder, bound = tmp_path / "cache", 2 * (112 * 112 * 3 + 128)
    policy.cache = ImageCache(folder, bound)
    for path in paths[:2]:
        policy.open(sample_of(path))
    for kept in kept_in(folder):
        os.utime(kept, (0, 0))
    policy.cache = ImageCache(folder, bound)  # as a later run
    for path in paths[1:]:  # the first is found, the next takes the place of what was not used, the last finds none
        policy.open(sample_of(path))
    assert sum(one.stat().st_size for one in kept_in(folder)) <= bound
    policy.cache = ImageCache(folder, bound)
    for path in paths[1:3]:
        policy.open(sample_of(path))
    assert policy.cache.hits == 2


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path, policy):
    (tmp_path / "file").write_text("no folder")
    policy.cache = ImageCache(tmp_path / "file", 10**9)
    (image,), (size,) = policy.open(sample_of(picture(tmp_path, (300, 200))))
    assert size == (300, 200)
    assert image.size == policy.processed_size(size)


def test_a_resize_that_is_not_final_keeps_nothing(tmp_path):
    policy = load_policy("tiny")  # enlarges 50 x 80 beyond its own upper bound
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    assert policy.open(sample_of(picture(tmp_path, (50, 80))))[0][0].size == (50, 80)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["notes.png", "missing.png"])
def test_a_file_that_is_no_image_is_named(tmp_path, policy, name):
    policy.cache = ImageCache(tmp_path / "cache", 10**9)
    (tmp_path / "notes.png").write_text("no pixels")
    with pytest.raises(DataError, match=name):
        policy.open(sample_of(tmp_path / name))
