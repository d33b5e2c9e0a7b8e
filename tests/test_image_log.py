"""A log of images with warnings that the processes of a run share."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vrft.image_log import ImageLog, warning_sentences
from vrft.images import BLANK
from vrft.sample import ImageFile, Sample, read_as


def saved(path: Path, pixels: NDArray[np.uint16]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_warnings_are_recorded_once_by_name_also_for_a_later_process(tmp_path):
    log = ImageLog(tmp_path / "pictures.jsonl")
    assert log.names() == {}
    for name in ("b", "a", "b"):
        log.note(Image.new("RGB", (4, 4)), name)
    log.note(Image.effect_noise((4, 4), 90), "c")
    with (tmp_path / "pictures.jsonl").open("a") as file:
        file.write('["blank_im')  # a run that was killed
    for one in (log, ImageLog(tmp_path / "pictures.jsonl")):
        assert one.names() == {BLANK: ["a", "b"]}
    assert len((tmp_path / "pictures.jsonl").read_text().splitlines()) == 3


def test_a_later_process_writes_no_name_again_and_ends_a_line_that_was_cut_off(tmp_path):
    path, blank = tmp_path / "pictures.jsonl", Image.new("RGB", (4, 4))
    one, other = ImageLog(path), ImageLog(path)
    one.note(blank, "a")
    with path.open("a") as file:
        file.write('["blank_im')
    for name in ("a", "b"):
        other.note(blank, name)
    one.note(blank, "b")
    assert len(path.read_text().splitlines()) == 3
    assert one.names() == other.names() == {BLANK: ["a", "b"]}


@pytest.mark.parametrize(
    "line", ["5", "null", '["blank_image"]', '["blank_image", 3, ""]', '["else", "a", ""]', "[" * 9999, "\ud800"]
)
def test_what_is_no_line_of_the_log_is_not_counted(tmp_path, line):
    (tmp_path / "pictures.jsonl").write_bytes(line.encode(errors="surrogatepass") + b'\n["blank_image", "b", ""]\n')
    assert ImageLog(tmp_path / "pictures.jsonl").names() == {BLANK: ["b"]}


def test_a_name_counts_as_it_is_read_now(tmp_path):
    log = ImageLog(tmp_path / "pictures.jsonl")
    paths = [saved(tmp_path / f"{name}.tif", np.array([[0, 500, 1000]], np.uint16)) for name in "ab"]
    narrow, wide = (Sample("a", ImageFile(paths[0], window=(0, top)), "?", "x", "train") for top in (400, 1000))
    changed = Sample("b", paths[1], "?", "x", "train")
    for sample in (narrow, changed):
        log.note(Image.new("RGB", (3, 1)), sample.id, lambda sample=sample: read_as(sample.images[0]))
    assert log.names({(one.id, read_as(one.images[0])) for one in (narrow, changed)}) == {BLANK: ["a", "b"]}
    saved(paths[1], np.zeros((9, 9), np.uint16))
    assert log.names({(one.id, read_as(one.images[0])) for one in (wide, changed)}) == {}


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path):
    log = ImageLog(tmp_path / "nowhere" / "pictures.jsonl")
    log.note(Image.new("RGB", (4, 4)), "a")
    assert log.names() == {BLANK: ["a"]}


def test_a_warning_of_another_version_is_ignored():
    assert warning_sentences({"else": {"count": 1, "example": "a"}}) == []
