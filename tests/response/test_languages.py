"""Plain answers and hedges in ten languages and on many scales: all plain ones are read, and no hedge is paid."""

from itertools import islice, product
from typing import NamedTuple

import pytest

from vrft.response import read_choice, read_grade, read_label, read_yes_no

SCALES: dict[str, tuple[int, list[str] | None]] = {
    "numbers": (5, None),
    "words": (5, ["none", "mild", "moderate", "severe", "proliferative"]),
    "from one": (5, ["1", "2", "3", "4", "5"]),
    "pi-rads": (5, [f"PI-RADS {grade}" for grade in range(1, 6)]),
    "roman": (4, ["I", "II", "III", "IV"]),
    "stages": (4, ["Stage I", "Stage II", "Stage III", "Stage IV"]),
    "bosniak": (5, ["I", "II", "IIF", "III", "IV"]),
    "bi-rads": (9, ["0", "1", "2", "3", "4A", "4B", "4C", "5", "6"]),
    "gleason": (5, ["3+3", "3+4", "4+3", "4+4", "4+5"]),
    "her2": (4, ["0", "1+", "2+", "3+"]),
    "shares": (4, ["<5%", "5-33%", "34-66%", ">66%"]),
    "li-rads": (6, ["LR-1", "LR-2", "LR-3", "LR-4", "LR-5", "LR-M"]),
    "tumour": (5, ["T1a", "T1b", "T1c", "T2", "T3"]),
}

LEAD_INS = [
    *("{}", "{}.", "**{}**", "({})", "Answer: {}", "The answer is {}.", "\\boxed{{{}}}", '{{"grade": "{}"}}'),
    *("答案：{}", "答案是{}。", "最终诊断为{}", "答え：{}", "回答は{}です。", "정답: {}", "답은 {}입니다."),
    *("Antwort: {}", "Die Antwort ist {}.", "Réponse : {}", "La réponse est {}.", "Respuesta: {}"),
    *("La respuesta es {}.", "Resposta: {}", "A resposta é {}.", "Risposta: {}", "La risposta è {}."),
    *("Ответ: {}", "Окончательный ответ: {}.", "الإجابة: {}", "الإجابة هي {}."),
]
"""ReadContext the name of any grade, label or choice."""

AROUND_NUMBERS = [
    *("Grade {}", "grade: {}", "Stage {}", "Class {}", "Level {}", "Score {}", "severity grade {}", "Category {}"),
    *("{}级", "第{}级", "等级{}", "分级：{}", "{}期", "{}度", "グレード{}", "ステージ{}", "重症度{}"),
    *("{}등급", "등급: {}", "{}단계", "Grad {}", "Stadium {}", "Schweregrad: {}", "Stade {}", "Degré {}", "Niveau {}"),
    *("Grado {}", "Estadio {}", "Nivel {}", "Grau {}", "Estágio {}", "Nível {}", "Livello {}", "Stadio {}"),
    *("Степень {}", "Стадия {}", "Класс {}", "الدرجة {}", "المرحلة {}", "المستوى {}"),
]
"""ReadContext a number."""

HEDGES = [
    *("{} or higher", "{}?", "maybe {}", "{}, probably", "not {}", "at least {}", "between {} and worse", "{}..."),
    *("~{}", "about {}", "{} (uncertain)", "{} or so", "if not {}", "{}, unless it is worse", "{}, could be less"),
    *("{}，不确定", "可能{}", "{}以上", "{}以下", "大约{}", "不是{}", "{}左右", "{}吗", "或许{}", "{}或更高"),
    *("{}かもしれない", "おそらく{}", "{}以上です", "{}ではない", "約{}", "{}くらい", "{}ですか", "{}未満", "多分{}"),
    *("아마 {}", "{} 이상", "{} 이하", "{} 정도", "{}이 아님", "{}일 수도", "약 {}", "{} 미만", "{} 추정", "{} 의심"),
    *("vielleicht {}", "{} oder höher", "{}, vielleicht", "mindestens {}", "nicht {}", "etwa {}", "{} eventuell"),
    *("peut-être {}", "{} ou plus", "au moins {}", "pas {}", "environ {}", "{}, probablement", "{} sans doute"),
    *("quizás {}", "{} o más", "{} como mínimo", "no {}", "aproximadamente {}", "{} posiblemente", "tal vez {}"),
    *("talvez {}", "{} ou mais", "pelo menos {}", "não {}", "cerca de {}", "{}, provavelmente", "acho que {}"),
    *("forse {}", "{} o più", "almeno {}", "non {}", "circa {}", "{}, probabilmente", "{} oppure peggio"),
    *("возможно {}", "{} или выше", "не менее {}", "не {}", "около {}", "{}, наверное", "{} под вопросом"),
    *("ربما {}", "{} أو أعلى", "على الأقل {}", "ليس {}", "حوالي {}", "{}؟", "{} تقريبا"),
]


class Line(NamedTuple):
    """An answer, the scale it is about, and the grade it states."""

    text: str
    scale: str
    grade: int


def plain() -> list[Line]:
    """Every lead-in with grades of every scale, and every word of a scale with numbers."""
    lines = [
        Line(lead.format(name), scale, grade)
        for index, (lead, (scale, (_, names))) in enumerate(product(LEAD_INS, SCALES.items()))
        for grade, name in islice(enumerate(names or "01234"), index % 3, None, 3)
        if not (lead.startswith('{{"') and '"' in name)
    ]
    for title, number in product(AROUND_NUMBERS, (1, 2, 3)):
        lines.append(Line(title.format(number), "numbers", number))
        lines.append(Line(title.format(number), "from one", number - 1))
        lines.append(Line(title.format(("I", "II", "III")[number - 1]), "roman", number - 1))
        lines.append(Line(title.format(number), "pi-rads", number - 1))
    return lines


def hedged() -> list[Line]:
    """Every hedge around names and numbers of every scale."""
    return [
        Line(hedge.format(name), scale, grade)
        for hedge, (scale, (_, names)) in product(HEDGES, SCALES.items())
        for grade, name in enumerate(names or "01234")
    ]


def read(line: Line) -> object:
    return read_grade(line.text, *SCALES[line.scale]).answer


def test_all_plain_answers_are_read():
    lines = plain()
    assert len(lines) > 500
    assert [line for line in lines if read(line) != line.grade] == []


def test_no_hedge_is_paid():
    lines = hedged()
    assert len(lines) > 500
    # A sign may make one name of another ("<" before 5%, "+" behind 1): that is an answer of its own.
    assert [line for line in lines if read(line) == line.grade] == []


@pytest.mark.parametrize("hedge", HEDGES)
def test_no_hedge_around_other_answers_is_paid(hedge: str):
    assert read_yes_no(hedge.format("Yes")).answer is None
    assert read_label(hedge.format("pneumonia"), ["normal", "pneumonia"]).answer is None
    assert read_choice(hedge.format("B"), {"A": "benign", "B": "malignant"}).answer is None
    assert read_choice(hedge.format("malignant"), {"A": "benign", "B": "malignant"}).answer is None


@pytest.mark.parametrize("lead", LEAD_INS)
def test_lead_ins_may_stand_around_every_closed_answer(lead: str):
    assert read_yes_no(lead.format("No")).answer == "no"
    assert read_label(lead.format("Pneumonia"), ["normal", "pneumonia"]).answer == "pneumonia"
    assert read_choice(lead.format("B"), {"A": "benign", "B": "malignant"}).answer == "B"


@pytest.mark.parametrize(
    ("scale", "answer", "grade"),
    [
        ("pi-rads", "3", 2),
        ("pi-rads", "PIRADS: 3 (intermediate)", None),
        ("pi-rads", "0", None),
        ("pi-rads", "III", 2),
        ("roman", "2", 1),
        ("roman", "I think II", None),
        ("stages", "2", 1),
        ("stages", "Stage 2", 1),
        ("bosniak", "Bosniak IIF", 2),
        ("bosniak", "2F", 2),
        ("bosniak", "Bosniak 2", 1),
        ("bi-rads", "BI-RADS 4", None),
        ("bi-rads", "Category 4 B", 5),
        ("bi-rads", "4a (moderate)", 4),
        ("gleason", "3 + 4 = 7", 1),
        ("gleason", "Gleason score 7 (4+3)", 2),
        ("gleason", "Gleason 7", None),
        ("gleason", "3+4 = 8", None),
        ("gleason", "3", None),
        ("her2", "HER2 2+", 2),
        ("her2", "2", 2),
        ("her2", "2++", None),
        ("shares", "5%", None),
        ("shares", "5 – 33 %", 1),
        ("shares", "< 5 %", 0),
        ("li-rads", "LI-RADS 5", 4),
        ("li-rads", "M", 5),
        ("tumour", "T1", None),
        ("tumour", "1c", 2),
        ("numbers", "2b", None),
        ("numbers", "2a", None),
        ("numbers", "2nd grade", 2),
        ("numbers", "Grade 2 of 4", None),
        ("numbers", "二级", 2),
        ("numbers", "二三级", None),
        ("numbers", "2级（中度）", 2),
        ("numbers", "mild to moderate (2)", None),
        ("numbers", "mild severe 2", None),
        ("numbers", "重症度: 2 (中等度)", 2),
        ("numbers", "严重程度：2（中度）", 2),
        ("numbers", "2 (PDR)", None),
        ("numbers", "grade 2 none", None),
        ("numbers", "0 severe", None),
        ("numbers", "Grade 0 (none)", 0),
        ("numbers", "2,2", None),
        ("numbers", "2程度", None),
        ("numbers", "程度2", 2),
        ("numbers", "≠2", None),
        ("numbers", "2̶", None),
        ("numbers", "The final answer is $\\boxed{2}$.", 2),
        ("numbers", "[ ] 2", None),
        ("numbers", "second grade", 2),
        ("numbers", "2-я степень", 2),
        ("numbers", "Kellgren and Lawrence grade 2", 2),
        ("shares", "5%-33%", 1),
        ("shares", "5", None),
        ("shares", "\\boxed{5-33\\%}", 1),
        ("shares", "&lt;5%", 0),
        ("stages", "stage two", 1),
        ("words", "2 (mild)", None),
        ("words", "Answer: Moderate", 2),
        ("words", "no", None),
    ],
)
def test_numbers_and_names_of_a_scale(scale: str, answer: str, grade: int | None):
    assert read_grade(answer, *SCALES[scale]).answer == grade


@pytest.mark.parametrize(
    ("names", "answers", "grade"),
    [
        (["一级", "二级", "三级"], ["2级", "Ⅱ级", "2", "二级"], 1),
        (["Grade one", "Grade two", "Grade three"], ["Grade 2", "Grade two", "II"], 1),
        (["first-degree", "second-degree", "third-degree"], ["2nd degree", "second degree", "2"], 1),
        (["일등급", "이등급", "삼등급"], ["2등급", "이등급"], 1),
        (["-1", "0", "1"], ["答案是-1", "score-1", "-1", "−1", "答えは-1です"], 0),
        (["0", "0.5", "1", "1.5"], ["0.5", "0,5", "Score 0.5"], 1),
        (["-", "+", "++"], ["−", "-"], 0),
        (["HER2 0", "HER2 1+", "HER2 2+", "HER2 3+"], ["2+", "HER2: 2+", "IHC 2+", "2", "HER2(2+)"], 2),
        (["No ROP", "Stage 1", "Stage 4A", "Stage 4B"], ["4A", "ROP 4a", "Stage 4A"], 2),
        (["<1%", "1%-49%", "≥50%"], [">=50%", "≥ 50 %"], 2),
    ],
)
def test_names_of_many_kinds(names: list[str], answers: list[str], grade: int):
    assert [read_grade(answer, len(names), names).answer for answer in answers] == [grade] * len(answers)


@pytest.mark.parametrize("names", [["I", "1", "II"], ["Grade 2", "Grade II"], ["5-33%", "5 33%"], ["mild", "Mild."]])
def test_a_scale_with_ambiguous_names_is_refused(names: list[str]):
    with pytest.raises(ValueError, match="cannot be distinguished"):
        read_grade("x", len(names), names)


def test_a_name_of_a_disease_is_no_lead_in_of_other_answers():
    assert read_yes_no("No. The image shows retinopathy").answer is None
    assert read_label("normal, DR", ["normal", "pneumonia"]).answer is None


def test_names_that_differ_in_accents_alone_are_read_as_they_are_written():
    assert read_label("côté", ["côte", "côté"]).answer == "côté"
    assert read_label("Réponse : côté", ["côte", "côté"]).answer is None


def test_a_letter_differs_from_the_word_with_the_same_spelling():
    choices = {letter: f"text {letter}" for letter in "ABCDE"}
    assert [read_choice(text, choices).answer for text in ("A resposta é B", "É", "E")] == ["B", None, "E"]
    assert read_yes_no("答案是：否", {"yes": ["是"], "no": ["否"]}).answer == "no"


@pytest.mark.parametrize(
    "answer", ["No answer.", "No image", "Yes, there is a chance", "[ ] Yes", ":( Yes", "≠Yes", "Y̶e̶s̶"]
)
def test_a_refusal_and_half_a_yes_are_no_answers(answer: str):
    assert read_yes_no(answer).answer is None
