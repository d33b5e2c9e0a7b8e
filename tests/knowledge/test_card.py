"""Cards of knowledge: what is shipped is sound, and what is wrong with a card is said."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft.cli.main import app
from vrft.data.medmnist import FACTS
from vrft.errors import KnowledgeError
from vrft.knowledge import card_names, check_against, read_card
from vrft.knowledge.card import sentences
from vrft.tasks import read_section, task_from

CARD = """\
title: Spots
modality: photograph
written_by: {kind: person, name: A. Writer}
checked_by: null
date: 2026-11-25
licence: CC0-1.0
sources: {atlas: An atlas of spots}
biases: [Seen by one person.]
classes:
  red:
    synonyms: [crimson]
    description: {colour: "Red all over. [atlas]", size: "About 2.5 mm. [atlas]"}
  blue:
    description: {colour: "Blue. [atlas]"}
"""


def card(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CARD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "spots.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", card_names())
def test_shipped_cards_are_sound(name: str):
    shipped = read_card(name)
    labels = list(shipped.classes)
    if not all(label.isdecimal() for label in labels):  # synonyms go into the section task as they are
        task_from(read_section({"kind": "classification", "labels": labels, "synonyms": shipped.synonyms}))
    assert all(shipped.text_of(label) and "[" not in shipped.text_of(label) for label in labels)


@pytest.mark.parametrize("name", FACTS)
def test_every_medmnist_set_has_a_card_for_all_its_classes(name: str):
    check_against(read_card(name), name, FACTS[name]["labels"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("written_by: {kind: person, name: A. Writer}\n", ""), "written_by is missing"),
        (("licence: CC0-1.0\n", ""), "licence is missing"),
        (("biases: [Seen by one person.]", "biases: []"), "spots.yaml:8: biases"),
        (("Red all over. [atlas]", "Red all over."), r"spots.yaml:12: the sentence 'Red all over\.' has no source"),
        (("Blue. [atlas]", "Blue. [atals]"), "Did you mean 'atlas'"),
        (("{atlas: An atlas of spots}", "{atlas: An atlas, book: A book}"), "'book' is used by no sentence"),
        (("synonyms: [crimson]", "synonyms: [Blue]"), "names both"),
        (('colour: "Blue', 'color: "Blue'), "spots.yaml:14: classes.blue.description"),
        (("date: 2026-11-25", "date: soon"), "spots.yaml:5: date is 'soon'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, change: tuple[str, str], words: str):
    with pytest.raises(KnowledgeError, match=words):
        read_card(card(tmp_path, change))


def test_a_misspelt_name_gets_the_nearest_card():
    with pytest.raises(KnowledgeError, match="Did you mean 'retinamnist'"):
        read_card("retinamist")


def test_the_prompt_reads_without_sources_and_with_chosen_attributes(tmp_path: Path):
    spots = read_card(card(tmp_path))
    assert spots.text_of("red") == "Red all over. About 2.5 mm."
    assert spots.text_of("red", ["size"]) == "About 2.5 mm."
    assert spots.synonyms == {"red": ["crimson"]}


def test_a_card_is_compared_with_the_data(tmp_path: Path):
    spots = read_card(card(tmp_path, ("Blue. [atlas]", "Blue, as in img-7. [atlas]")))
    check_against(spots, "spots", ["red", "blue"], ["img-8"])
    with pytest.raises(KnowledgeError) as wrong:
        check_against(spots, "spots", ["red", "bleu"], ["img-7"])
    assert [fault.message for fault in wrong.value.faults] == [
        "describes 'blue'; the data have red, bleu.",
        "says nothing about 'bleu'.",
        "names the image 'img-7'; a card speaks of classes alone.",
    ]


def test_an_image_is_found_in_whatever_case_and_wherever_and_words_and_numbers_are_none(tmp_path: Path):
    told = read_card(card(tmp_path))
    named = told.model_copy(update={"title": "Seen in CASE_07.PNG"})
    with pytest.raises(KnowledgeError, match="names the image 'case_07'"):
        check_against(named, "my", told.classes, ["case_07"])
    check_against(told.model_copy(update={"title": "Seen 7 times in a mass"}), "my", told.classes, ["7", "mass"])


@pytest.mark.parametrize("title", ["A T1-weighted image", "Tissue of the AT1 type", "Stage T12"])
def test_a_word_that_holds_the_name_of_an_image_is_not_that_name(tmp_path: Path, title: str):
    found = read_card(card(tmp_path))
    check_against(found.model_copy(update={"title": title}), "my", found.classes, ["t1"])


def test_a_recipe_that_pays_for_recitation_can_be_checked_against(tmp_path: Path, small_recipe: Path):
    path = tmp_path / "recite.yaml"
    path.write_text(
        "name: recite\ndata: {source: phantom}\ntask: {kind: classification}\nknowledge: {card: phantom}\n"
        "stages: [{kind: rft, rewards: {accuracy: 1.0, recitation: -0.2}}]\narms: [rft+PA_p]\n"
    )
    result = CliRunner().invoke(app, ["knowledge", "check", "octmnist", "--recipe", str(path)])
    assert isinstance(result.exception, KnowledgeError)  # of another data set, and of nothing else
    assert all("describes" in one.message or "says nothing" in one.message for one in result.exception.faults)


def test_sentences_end_where_a_reader_thinks():
    text = "Round, 2.5 mm wide [a]. Sharp! [a, b] Is it red? [b] No end"
    assert sentences(text) == ["Round, 2.5 mm wide [a].", "Sharp! [a, b]", "Is it red? [b]", "No end"]


def test_the_commands_list_show_and_check(tmp_path: Path, small_recipe: Path):
    run = CliRunner().invoke
    assert "retinamnist" in run(app, ["knowledge", "list"]).output
    shown = run(app, ["knowledge", "show", "octmnist"]).output
    assert "[spaide] Spaide RF" in shown
    assert "not checked by a person" in shown
    assert "2 classes, 1 sources, not checked" in run(app, ["knowledge", "check", str(card(tmp_path))]).output
    against = run(app, ["knowledge", "check", "retinamnist", "--recipe", str(small_recipe)])
    assert against.exit_code == 0, against.output
    assert isinstance(
        run(app, ["knowledge", "check", "octmnist", "--recipe", str(small_recipe)]).exception, KnowledgeError
    )
