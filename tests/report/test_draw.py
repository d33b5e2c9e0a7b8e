"""Boxes drawn on an image."""

from pathlib import Path

import pytest
from PIL import Image, ImageColor

from vrft.errors import UserError
from vrft.report.draw import ANSWER, TRUTH, draw_boxes, write_drawing
from vrft.sample import Sample

BLACK = Image.new("RGB", (112, 112))


def count(image: Image.Image, colour: str) -> int:
    wanted = ImageColor.getrgb(colour)
    return sum(pixel == wanted for pixel in image.crop((0, 0, 336, 336)).get_flattened_data())


def test_truth_and_answer_lie_where_their_boxes_are_in_lines_of_their_own():
    drawn = draw_boxes(BLACK, [(10, 10, 40, 40)], [(60, 60, 100, 100)])
    assert drawn.width == 336  # three times as large
    assert drawn.getpixel((32, 30)) == ImageColor.getrgb(ANSWER)
    assert count(drawn.crop((20, 20, 130, 130)), ANSWER) == count(drawn, ANSWER) > 0
    assert count(drawn.crop((175, 175, 305, 305)), TRUTH) == count(drawn, TRUTH) > 0


@pytest.mark.parametrize("box", [(0, 0, 112, 112), (50, 50, 50.2, 50.2), (0, 0, 1, 112)])
def test_any_box_can_be_drawn(box: tuple[float, float, float, float]):
    assert count(draw_boxes(BLACK, [box], [box]), ANSWER) > 0


def test_other_images_are_beside_the_first_without_boxes():
    alone = draw_boxes(BLACK, [(10, 10, 40, 40)])
    drawn = draw_boxes(BLACK, [(10, 10, 40, 40)], None, [Image.new("RGB", (50, 100), "red")])
    assert drawn.size == (alone.width + 8 + 168, alone.height)
    assert list(drawn.crop((0, 0, 336, 336)).get_flattened_data()) == list(
        alone.crop((0, 0, 336, 336)).get_flattened_data()
    )
    assert drawn.crop((344, 0, 512, 336)).getcolors() == [(168 * 336, (255, 0, 0))]


def test_without_a_known_truth_none_is_drawn(tmp_path: Path):
    sample = Sample("folder/one.jpg", lambda: BLACK, "", ((0, 0, 9, 9),), split="")
    path = write_drawing(tmp_path / "new", sample, {"boxes": None})
    assert path == tmp_path / "new" / "one.png"
    assert count(Image.open(path), TRUTH) == 0


def test_labels_cannot_be_drawn(tmp_path: Path):
    with pytest.raises(UserError, match="only boxes can be drawn"):
        write_drawing(tmp_path, Sample("a", lambda: BLACK, "", 1, split="test"), {"answer": 1})


def test_an_answer_that_was_not_read_is_no_absence():
    unread, nothing = draw_boxes(BLACK, None, []), draw_boxes(BLACK, [], [])
    assert list(unread.get_flattened_data()) != list(nothing.get_flattened_data())


def test_no_drawing_is_drawn_over_and_no_image_written_over(tmp_path: Path):
    one, other = (Sample(f"{folder}/scan.png", lambda: BLACK, "", (), split="") for folder in "ab")
    first = write_drawing(tmp_path, one, {"boxes": []})
    assert write_drawing(tmp_path, other, {"boxes": []}, [first]) == tmp_path / "scan-2.png"
    dotted = Sample("1.2.3.4", lambda: BLACK, "", (), split="test")
    assert write_drawing(tmp_path, dotted, {"boxes": []}).name == "1.2.3.4.png"
    BLACK.save(tmp_path / "own.png")
    own = Sample(str(tmp_path / "own.png"), tmp_path / "own.png", "", (), split="")
    second = Sample("own.png", (lambda: BLACK, tmp_path / "own.png"), "", (), split="")
    for sample in (own, second):
        with pytest.raises(UserError, match="would write over"):
            write_drawing(tmp_path, sample, {"boxes": []})
