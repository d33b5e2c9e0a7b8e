"""How models spell the same answer, and what only looks like one: a longer list beside the tests of each reading."""

import pytest

from vrft.response import parse, read_boxes, read_choice, read_grade, read_label, read_yes_no
from vrft.tasks import Grading

SIZE = (640, 640)
CHOICES = {"A": "benign", "B": "malignant", "C": "normal"}
NAMES = ["none", "mild", "moderate", "severe", "proliferative"]

THE_BOX = [
    "\\[100, 120, 300, 320\\]",
    '{"bbox_2d": [100,120,300,320], "scores": [0.1,0.2,0.3,0.4]}',
    "No effusion. The mass is at [100, 120, 300, 320].",
    "The mass is at [100, 120, 300, 320]. No other lesion.",
    "([100, 120, 300, 320])",
    "The mass is visible ([100, 120, 300, 320]).",
    "The mass (at [100, 120, 300, 320]) is dense.",
    "([100, 120, 300, 320],)",
    "(mass: [100, 120, 300, 320])",
    "print([100, 120, 300, 320])",
    "np.array([100, 120, 300, 320])",
    "dict(bbox_2d=[100, 120, 300, 320])",
    "The mass lies at [100, 120, 300, 320]. No other lesion is seen.",
    "<ref>mass</ref><box>[[100, 120, 300, 320]]</box> There is no other mass.",
    "There is a mass at [100, 120, 300, 320] without calcification.",
    "The mass is at [100, 120, 300, 320], not elsewhere.",
    "There is one mass at [100, 120, 300, 320]; no effusion.",
    '{"top_left": [100,120], "bottom_right": [300,320]}',
    '{"bounding_box": {"top_left": {"x":100,"y":120}, "bottom_right": {"x":300,"y":320}}}',
    '{"x1":100,"y1":120,"width":200,"height":200}',
    '{"points": [100,120,300,320]}',
    '{"label":"mass","points":[[100,120],[300,320]]}',
    '{"bbox": null, "mass": [100,120,300,320]}',
    '{"bbox": [], "mass": [100,120,300,320]}',
    '{"position": "left lung", "mass": [100,120,300,320]}',
    '{"bbox_2d": [100,120,300,320], "position": 1}',
    '{"box": 1, "bbox_2d": [100,120,300,320]}',
    '{"image":{"x":0,"y":0,"width":640,"height":640},"mass":[100,120,300,320]}',
    '{"mass":[100,120,300,320],"color":[255,0,0,255]}',
    '{"mass": "[100, 120, 300, 320]"}',
    '{"answer": "<box>(100,120),(300,320)</box>"}',
    '["[100, 120, 300, 320]"]',
    '"100,120,300,320"',
    "In the image of size [640, 640] the mass is at [100, 120, 300, 320].",
    "The mass [1] is at [100, 120, 300, 320].",
    "[x1, y1, x2, y2] = [100, 120, 300, 320]",
    '[{"bbox_2d": [x1, y1, x2, y2]}] [{"bbox_2d": [100,120,300,320]}]',
    '{"bbox_2d": [100,120,300,320], "bbox": [100,120,300,320]}',
    "<100><120><300><320>",
    "<box><100><120><300><320></box>",
    "{<100><120><300><320>}",
    "<bbox>100 120 300 320</bbox>",
    "<bbox>100, 120, 300, 320</bbox>",
    "100, 120, 300, 320]",
    "mass 100 120 300 320",
    "The mass is located at 100, 120, 300, 320.",
    "x1,y1,x2,y2\n100,120,300,320",
    "```Json\n[100,120,300,320]\n```",
    "\\boxed{[100,120,300,320]}",
]
NO_ANSWER_ABOUT_BOXES = [
    "[100, 120, 300, 320] contains no mass",
    "[100, 120, 300, 320] shows nothing",
    "The box [100, 120, 300, 320] does not contain a mass",
    "[100, 120, 300, 320] No.",
    "[100, 120, 300, 320] - no, wrong",
    "[100, 120, 300, 320] is normal, there is no mass",
    "An example is [100, 120, 300, 320], but there is no mass",
    "No objects. [100, 120, 300, 320]",
    "No mass. [100, 120, 300, 320]",
    "Kein Tumor in [100, 120, 300, 320]",
    "不在[100, 120, 300, 320]",
    "Ignore [100, 120, 300, 320]",
    "false: [100, 120, 300, 320]",
    "rather than [100, 120, 300, 320]",
    "The mass is somewhere other than [100, 120, 300, 320]",
    "[100, 120, 300, 320]?",
    "maybe [100, 120, 300, 320]",
    "[100, 120, 300, 320], or not",
    "[null, null, null, null]",
    "\\boxed{}",
    "No less than two nodules",
    "No fewer than three nodules",
    "No normal tissue",
    "no clear box can be given",
    "none of these",
    "[15.6 %, 18.8 %, 46.9 %, 50 %]",
    "[15.6 percent, 18 percent, 46 percent, 50 percent]",
    "[100 - 300, 120 - 320]",
    "none [100, 120, 300, 320]",
    "Nothing at [100, 120, 300, 320]",
    "There is nothing in [100, 120, 300, 320]",
    "The mass is absent at [100, 120, 300, 320]",
    "Anywhere except [100, 120, 300, 320]",
    "Outside [100, 120, 300, 320]",
    "[100, 120, 300, 320] is wrong",
    "unlikely [100, 120, 300, 320]",
    "(no mass) [100, 120, 300, 320]",
    "[100, 120, 300, 320] (no mass here)",
    "[100, 120, 300, 320] (not sure)",
    "I cannot see the image",
    "the image is not visible",
    "No image was provided",
    "No image",
    "no access to the image",
    "No, there is a mass",
    "no objects or one",
    "none or a mass at the left",
    "No objects, I think there might be one",
    "Nothing can be determined",
    "No conclusion",
    "No diagnosis",
    "No data",
    "No information",
    "No objections",
    "I cannot detect because the image is blurry",
    "none of the above are missing",
    "no yes",
    "[0]",
    "No",
    "不是 [[100, 120, 300, 320]]",
    "pas [100, 120, 300, 320]",
    "≈[100, 120, 300, 320]",
    "belki [100, 120, 300, 320]",
]
NO_BOXES = [
    "No, there is no mass.",
    "No. There is no mass.",
    "Object not found",
    "Mass not found",
    "Object not detected",
    "Object absent",
    "The mass was not found",
    "该图像中没有目标。",
    "该图像没有异常",
    "なし",
    "Sin objetos",
    "Pas d'objet",
    "NoObjects",
    "No object found",
    "There's no mass",
    "There isn't any mass.",
    "The image does not contain a mass.",
    "The image doesn't show any lesion",
    "The object is not present in the image.",
    "The lung is clear, no mass.",
    "Clear lungs, no nodules",
    "No objects (the lung is clear)",
    "No objects - the lung is clear",
    "No objects. The lungs are clear. The heart is normal.",
    "Answer: None",
    "Answer: No objects",
    "The answer is none.",
    "Final answer: none",
    "bbox_2d: None",
    "Bounding boxes: none",
    "Mass: none",
    "['No objects']",
    '{"answer": "No objects"}',
    '{"bbox_2d": "No objects"}',
    '{"bbox_2d": "N/A"}',
    '{"mass": "not found"}',
    '{"objects": [], "count": 0}',
    '{"objects": [], "message": "no mass found"}',
    "`[]`",
    "\\boxed{[]}",
    "An empty list",
    "# No objects",
    "нет",
    "없음",
    "لا يوجد",
    "没有",
    "无",
    "没有发现肿块",
    "未见肿块",
    "无异常",
    "Keine Objekte",
    "Aucun",
    "unable to find any mass",
    "The image is free of lesions",
    "Without findings",
    "Not applicable",
    "No masses or nodules",
    "No evidence of a tumor.",
    "no polyps visible",
    "There are none.",
    "None found",
    "none detected",
    "No visible lesions in this image",
    "no finding",
    "(no objects)",
    "NO OBJECTS",
    "[ ]",
]
CHOICE_B = [
    "The answer is option B",
    "the answer is: option B",
    "The answer is choice (B).",
    "Therefore, the answer is B.",
    "$\\boxed{B}$",
    "The answer is \\boxed{B}",
    "B— malignant",
    "B—malignant",
    "B– malignant",
    "malignant (B)",
    "malignant (option B)",
    "malignant - B",
    "It is B",
    "I choose B",
    "答案：B",
    "b. malignant",
    "(b) malignant",
    "B\nmalignant",
]
NO_CHOICE = [
    "B: a malignant mass",
    "B. A malignant mass is seen",
    "B, a spiculated mass",
    "B - a spiculated margin suggests malignancy",
    "B. malignant, a spiculated mass",
    "B. The margin is irregular and a calcification is present",
    "B. There is no smooth margin",
    "B, since it is not round",
    "B. malignant, as the margin is not smooth",
    "B. Malignant tumors could invade",
    "B, not A",
    "B. malignant, not benign",
    "B | C",
    "B + C",
    "B plus C",
    "B then A",
    "B; alternatively C",
    "B, also C",
    "B. also A",
    "B > A",
    "B is wrong",
    "B is incorrect",
    "B is false",
    "B, wrong",
    "B: false",
    "B is the wrong answer",
    "A malignant",
    "A malignant tumour",
    "a mass",
    "B or C",
    "b and c",
    "B. not malignant",
    "B? maybe",
    "B, maybe",
    "not B",
    "neither B nor C",
    "(B) or (C)",
    "B/C",
]
YES = [
    '{"answer": "yes"}',
    "Definitely yes",
    "(yes)",
    "So, yes",
    "Yes",
    "yes.",
    "**YES**",
]
NO = [
    "I would say no",
    "<b>No</b>",
    "[No]",
    "$\\boxed{\\text{No}}$",
    "Therefore, no",
]
NEITHER = [
    "Yes because there is a mass",
    "Yes the image shows pneumonia",
    "Yes pneumonia",
    "Yes, there is no effusion",
    "Yes, the opacity may represent pneumonia",
    "No because the lung is clear",
    "No the lung is clear",
    "No。There is none",
    "No, there is no possible sign of a mass",
    "No, it might be effusion instead",
    "No\nIt is clear",
    "yes is wrong",
    "Yes, wrong",
    "Yes, that is incorrect",
    "No, that is false",
    "Yes... no wait",
    "yes, not",
    "Yes not",
    "Yes, unless it is an artefact",
    "yes if magnified",
    "No, although I cannot be certain",
    "No evidence of mass",
    "No mass",
    "yes or no",
    "Yes, probably",
    "No, probably not",
    "Yes, no",
    "no, yes",
    "maybe yes",
    "Yes? no",
    "not yes",
]
GRADE_2 = [
    "2 - DR",
    "Grade2",
    "GRADE2",
    "Stage2",
    "StageII",
    "Moderate (grade 2)",
    "moderate (2)",
    "Moderate, grade 2",
    "Moderate NPDR (grade 2)",
    "This image shows grade 2 retinopathy",
    "The retinopathy is grade 2",
    "The image is grade 2.",
    "{'grade': 2}",
    '{"grade": "Grade 2"}',
    '{"grade": "II"}',
    "Grade No. 2",
    "It's grade 2",
    "\\(2\\)",
    "\\[2\\]",
    "\\mathbf{2}",
    "$2$.",
    "<b>2</b>",
    "分级：2",
    "级别：2",
    "等级2",
    "第2级",
    "2 级",
    "二级",
    "二",
    "Grad 2",
    "Stade II",
    "grado 2",
    "Ⅱ级",
    "Rating 2",
    "Degree 2",
    "BI-RADS 2",
    "BI-RADS category 2",
    "Grade Group 2",
    "Grade-2",
    "stage-2",
    "Grade–2",
    "Answer: 2",
    "Final answer: 2",
    "The answer: 2",
    "The answer is: 2",
    "The grade is: 2",
    "The answer is grade 2",
    "Severity: Grade 2",
    "Diagnosis: grade 2",
    "The severity is grade 2",
    "It is grade 2",
    "This is grade 2.",
    "Diabetic retinopathy grade 2",
    "Kellgren-Lawrence grade 2",
    "(2)",
    "[2]",
    "Grade (2)",
    "$2$",
    "$\\boxed{2}$",
    "2. Moderate",
    "2) Moderate",
    "(2) Moderate",
    "2 (two)",
    "Grade II (2)",
    "2 (Grade II)",
    "grade 2 (II)",
    "Grade 2 moderate",
    "Grade 2 NPDR",
    '{"grade": 2}',
    "2级",
    "grade of 2",
    "II",
    "stage ii",
    "Grade two.",
    "2",
    "02",
    "２",
    "Grade: II",
    "grade=2",
    "level 2",
    "Class 2",
    "2.00",
]
NO_GRADE = [
    "Grade 2. I see microaneurysms.",
    "Grade 2, as I see haemorrhages",
    "Grade 2 - I am confident",
    "Grade 2 (not severe)",
    "Grade 2 but no PDR",
    "Grade: 2\nExplanation: haemorrhages",
    "Grade 2 probably",
    "Grade 2 (likely)",
    "Grade 2, likely",
    "likely grade 2",
    "not grade 2",
    "less than grade 2",
    "no grade 2 disease",
    "grade 2 or higher",
    "grade 2 to 3",
    "at least grade 2",
    "between grade 2 and 3",
    "2, not 3",
    "grade -2",
    "- 2.5",
    "2 (incorrect)",
    "2, that is wrong",
    "2-3",
    "2–3",
    "2 to 3",
    "2 or 3",
    "Grade 2 or 3",
    "Grade 2/3",
    "2+",
    "2-",
    "-2",
    ">2",
    "at least 2",
    "2.5",
    "2?",
    "7",
    "Grade 9",
    "grade -1",
    "2 (maybe 3)",
    "Grade 2 to 3",
    "between 2 and 3",
    "not 2",
    "2 lesions",
    "2 (I think)",
    "I",
    "V",
    "grade 5",
    "1e0",
    "2,3",
    "2;3",
    "II-III",
    "grade II/III",
    "II or III",
    "two-three",
]


@pytest.mark.parametrize("answer", THE_BOX)
def test_the_same_box(answer: str):
    assert read_boxes(answer, "pixel", SIZE).answer == ((100, 120, 300, 320),)


@pytest.mark.parametrize("answer", NO_ANSWER_ABOUT_BOXES)
def test_no_answer_about_boxes(answer: str):
    assert read_boxes(answer, "pixel", SIZE).answer is None


@pytest.mark.parametrize("answer", NO_BOXES)
def test_a_stated_absence(answer: str):
    assert read_boxes(answer, "pixel", SIZE).answer == ()


@pytest.mark.parametrize(
    "answer",
    [
        '{"bbox_2d": [100, 120, 300, 320], "mass": [1, 2, 3, 4]}',
        '{"bbox": [1, 2, 3, 4], "other": [{"bbox": [5, 6, 7, 8]}]}',
    ],
)
def test_a_box_under_a_second_key_counts(answer: str):
    assert read_boxes(answer, "pixel", SIZE).stated == 2


@pytest.mark.parametrize("answer", CHOICE_B)
def test_the_same_choice(answer: str):
    assert read_choice(answer, CHOICES).answer == "B"


@pytest.mark.parametrize("answer", NO_CHOICE)
def test_no_choice(answer: str):
    assert read_choice(answer, CHOICES).answer is None


@pytest.mark.parametrize(
    ("answer", "read"), [*((a, "yes") for a in YES), *((a, "no") for a in NO), *((a, None) for a in NEITHER)]
)
def test_yes_no_or_neither(answer: str, read: str | None):
    assert read_yes_no(answer).answer == read


@pytest.mark.parametrize("answer", GRADE_2)
def test_the_same_grade(answer: str):
    assert read_grade(answer, 5).answer == 2


@pytest.mark.parametrize("answer", NO_GRADE)
def test_no_grade(answer: str):
    assert read_grade(answer, 5).answer is None


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("3—severe", 3),
        ("3-severe", 3),
        ("Grade: Severe", 3),
        ("grade severe", 3),
        ("Moderate (2)", 2),
        ("severe (2)", None),
    ],
)
def test_named_grades(answer: str, grade: int | None):
    assert read_grade(answer, 5, NAMES).answer == grade


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        *(
            (text, "normal, benign")
            for text in ("normal,benign", "normal , benign", "normal，benign", "‘benign’", "“benign”")
        ),
        *(
            (text, "malignant")
            for text in ("「恶性」", "《恶性》", "恶性。", "【恶性】", "malignant (恶性)", "\\text{malignant}")
        ),
        *(
            (text, "malignant")
            for text in ("\\(malignant\\)", "\\boxed{\\mathbf{malignant}}", "<b>malignant</b>", "'malignant.'")
        ),
        ("malignant (benign)", None),
    ],
)
def test_labels(answer: str, label: str | None):
    synonyms = {"malignant": ["恶性"], "normal, benign": ["benign", "normal"]}
    assert read_label(answer, ["malignant", "normal, benign"], synonyms).answer == label


@pytest.mark.parametrize(
    "end",
    [
        "benign</answer",
        "benign</ans",
        "benign<answer>",
        "benign</answer>\n<answer>",
        "benign<|im_end|></answer>",
        "benign<",
    ],
)
def test_an_answer_that_was_cut_or_closed_in_another_way(end: str):
    assert parse(f"<think>x</think><answer>{end}").answer == "benign"


def test_two_blocks_that_say_the_same_are_one_answer():
    task = Grading(5)
    assert task.read("<think>x</think><answer>2</answer><answer>Grade 2</answer>").answer == 2
    assert task.read("<think>x</think><answer>2</answer><answer>Grade 3</answer>").answer is None


def test_an_answer_without_its_opening_tag_is_read():
    reading = Grading(5).read("<think>x</think>2</answer>")
    assert reading.answer == 2
    assert reading.problems


def test_labels_are_read_without_their_spaces_where_that_is_unmistakable():
    assert read_label("No tumor", ["notumor", "glioma"]).answer == "notumor"
    assert read_label("ab c", ["a bc", "abc"]).answer is None
