"""Every target, written as the perfect completion, is read back and earns everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft.boxes import FRAMES
from vrft.response import ENVELOPE_INSTRUCTION, INSTRUCTIONS, ORDERS, render
from vrft.rewards import APPLIES, REWARDS
from vrft.tasks import Classification, Grading, Localization, read_section, task_from

TASKS = [
    Classification(("malignant", "normal, benign"), {"normal, benign": ["benign"]}),
    Classification(("femur-left", "femur-right", "heart")),
    Grading(5),
    Grading(3, ("none", "mild", "severe")),
]


@pytest.mark.parametrize("task", TASKS)
def test_the_perfect_completion_earns_everything(task: Classification | Grading):
    for target in task.classes:
        completion = render("Seen.", str(target))
        assert (task.read(completion).answer, task.read(completion).problems) == (target, ())
        for name, kinds in APPLIES.items():
            if task.kind in kinds:
                paid = REWARDS[name]([completion], target=[target], knowledge="Seen.", **task.columns)
                assert paid == pytest.approx([1.0]), name


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("boxes", [(), ((10.0, 20.0, 30.0, 40.0),), ((0.0, 0.0, 640.0, 480.0), (5.0, 5.0, 9.0, 9.0))])
def test_boxes_written_in_any_frame_are_read_back_to_within_a_pixel(frame: str, boxes: tuple):
    task, sizes = Localization(frame), ((640, 480), (644, 476))
    completion = render("Seen.", task.written(boxes, *sizes))
    reading = task.read(completion, *sizes)
    assert reading.problems == ()
    assert isinstance(reading.answer, tuple)
    assert len(reading.answer) == len(boxes)
    for read, true in zip(reading.answer, boxes, strict=True):
        assert read == pytest.approx(true, abs=1)
    assert task.prompt("Where?").endswith(ENVELOPE_INSTRUCTION)


@pytest.mark.parametrize("task", TASKS)
def test_the_prompt_holds_question_choices_and_envelope(task: Classification | Grading):
    prompt = task.prompt("What is seen?")
    assert prompt.startswith("What is seen?\n")
    assert prompt.endswith(ENVELOPE_INSTRUCTION)
    for label in getattr(task, "labels", getattr(task, "names", None) or ()):
        assert label in prompt


@pytest.mark.parametrize("task", TASKS)
def test_the_lenient_reading_is_the_strict_one_where_there_is_one(task: Classification | Grading):
    for target in task.classes:
        completion = render("Seen.", str(target))
        assert task.read_leniently(completion) == task.read(completion).answer


def test_prose_is_read_leniently_only():
    task = Classification(("normal", "pneumonia"))
    prose = "The radiograph shows pneumonia."
    assert task.read(prose).answer is None
    assert task.read_leniently(prose) == "pneumonia"


@pytest.mark.parametrize("order", ORDERS)
def test_the_prompt_asks_for_the_envelope_that_is_well_formed(order: str):
    task = Classification(("a", "b"), order=order)
    completion = render("Seen.", "b", order)
    assert task.prompt("Which?").endswith(INSTRUCTIONS[order])
    assert (task.read(completion).answer, task.read(completion).problems) == ("b", ())
    others = [render("Seen.", "b", other) for other in ORDERS if other != order]
    assert all(task.read(other).answer == "b" and task.read(other).problems for other in others)


PI_RADS = tuple(f"PI-RADS {grade}" for grade in range(1, 6))


@pytest.mark.parametrize(
    ("task", "target", "grade"),
    [
        (Grading(5), 2.0, 2),
        (Grading(5), "2", 2),
        (Grading(5), "2.0", 2),
        (Grading(2, ("low", "high")), "high", 1),
        (Grading(5, PI_RADS), "PI-RADS 3", 2),
        (Grading(5, PI_RADS), 2, 2),
        (Grading(5, ("1", "2", "3", "4", "5")), "3", 2),
    ],
)
def test_a_grade_is_its_index_or_its_name(task: Grading, target: object, grade: int):
    assert task.check_target(target) == grade


@pytest.mark.parametrize("target", ["3", 2.5, "PI-RADS 9", float("inf"), 5, True, 10**400])
def test_what_is_no_grade_is_refused(target: object):
    with pytest.raises(ValueError, match="is no grade from 0 to 4"):
        Grading(5, PI_RADS).check_target(target)


PARTS = [*"0123459", *"IVXivxabM", *" -+<>%./:(),=级二é", "Stage ", "Grade "]
NAMES = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


@given(st.lists(NAMES, min_size=2, max_size=5))
def test_a_scale_is_refused_or_all_its_names_are_read(names: list[str]):
    try:
        task = task_from(read_section({"kind": "grading", "levels": names}))
    except ValueError:
        return
    for grade, name in enumerate(names):
        assert task.read(f"<think>x</think><answer>{name}</answer>").answer == grade
        assert task.read(f"<think>x</think><answer>{task.written(grade)}</answer>").answer == grade


@given(st.lists(NAMES, min_size=1, max_size=5), st.text())
def test_labels_are_refused_or_all_are_read_and_no_text_fails(labels: list[str], text: str):
    try:
        task = task_from(read_section({"kind": "classification", "labels": labels}))
    except ValueError:
        return
    assert [task.read(f"<answer>{label}</answer>").answer for label in labels] == labels
    assert task.read(f"<answer>{text}</answer>").answer in (None, *labels)


def test_the_number_of_a_synonym_means_the_name_that_holds_it():
    section = {"kind": "grading", "levels": list(PI_RADS), "synonyms": {"3": ["intermediate"]}}
    task = task_from(read_section(section))
    assert task.read("<answer>intermediate</answer>").answer == 2


def test_boxes_in_the_reasoning_are_no_lenient_answer_where_another_answer_is_given():
    task, boxes = Localization("pixel"), "[[10, 10, 20, 20]]"
    assert task.read_leniently(f"<think>{boxes}</think><answer>unclear</answer>", (100, 100)) is None
    assert task.read_leniently(f"It is at {boxes}", (100, 100)) == ((10, 10, 20, 20),)


@pytest.mark.parametrize("levels", [2, 4])
def test_a_scale_has_as_many_names_as_grades(levels: int):
    section = read_section({"kind": "grading", "levels": levels, "names": ["none", "mild", "severe"]})
    with pytest.raises(ValueError, match=f"3 names for {levels} grades"):
        task_from(section)
