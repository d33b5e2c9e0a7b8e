"""R_recite: how much of the knowledge a reasoning repeats."""

import pytest

from vrft.rewards import RECITATIONS, missing_for, recitation_reward

KNOWN = "An oval mass with a smooth margin that is wider than it is tall."


def written(reasoning: str) -> str:
    return f"<think>{reasoning}</think><answer>benign</answer>"


@pytest.mark.parametrize("measure", RECITATIONS)
def test_a_copy_is_1_a_part_is_less_and_other_words_least(measure: str):
    texts = [KNOWN, "An oval mass with a smooth margin.", "Nothing here looks like that."]
    copy, part, other = recitation_reward([written(text) for text in texts], knowledge=KNOWN, recite=measure)
    assert copy == pytest.approx(1.0)
    assert 1.0 > part > other >= 0.0  # type: ignore[operator]
    assert other < 0.35  # type: ignore[operator]


def test_embeddings_see_the_same_said_in_other_words_where_no_word_is_shared():
    texts = [written("This is a circular, bright lump."), written("The train leaves at noon.")]
    known = "A round pale mass."
    same, other = recitation_reward(texts, knowledge=known, recite="embedding")
    assert same > other + 0.1  # type: ignore[operator]
    assert recitation_reward(texts[:1], knowledge=known, recite="rouge_l")[0] <= 0.25  # type: ignore[operator]


def test_embeddings_of_a_model_in_a_directory(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import BoW, Normalize

    SentenceTransformer(modules=[BoW(vocab=["oval", "round", "mass"]), Normalize()]).save(str(tmp_path))
    paid = recitation_reward(
        [written("oval mass"), written("round")], knowledge="oval mass", recite="embedding", recite_model=str(tmp_path)
    )
    assert paid == pytest.approx([1.0, 0.0])


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no modules\.json"):
        recitation_reward([written("a")], knowledge="a", recite="embedding", recite_model=str(tmp_path))


def test_a_missing_package_of_embeddings_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("vrft.rewards.recitation.find_spec", lambda name: None)
    assert missing_for("bleu") is None
    assert "pip install 'vrft[embeddings]'" in (missing_for("embedding") or "")


def test_capitals_do_not_count():
    assert recitation_reward([written(KNOWN.upper())], knowledge=KNOWN) == pytest.approx([1.0])


def test_only_the_reasoning_counts():
    outside = f"{KNOWN}<think>Hm.</think><answer>{KNOWN}</answer>"
    assert recitation_reward([outside, f"<answer>{KNOWN}</answer>", ""], knowledge=KNOWN) == pytest.approx(
        [0, 0, 0], abs=0.05
    )


def test_without_knowledge_it_does_not_apply():
    assert recitation_reward([written(KNOWN)] * 2, knowledge=[None, KNOWN]) == [None, pytest.approx(1.0)]
    assert recitation_reward([written(KNOWN)]) == [None]


def test_bleu_is_near_0_against_a_card_far_longer_than_the_reasoning():
    (paid,) = recitation_reward([written("An oval mass.")], knowledge=" ".join([KNOWN] * 12))
    assert paid < 1e-3  # type: ignore[operator]


def test_any_function_can_measure_and_is_held_between_0_and_1():
    paid = recitation_reward([written("a")] * 2, knowledge=["x", "y"], recite=lambda r, k: 7.0 if k == "x" else -1.0)
    assert paid == [1.0, 0.0]


def test_an_unknown_measure_is_named():
    with pytest.raises(ValueError, match="expected one of bleu, rouge_l, chrf"):
        recitation_reward([written("a")], knowledge="a", recite="blue")


def test_long_text_is_paid_in_time():
    for measure in RECITATIONS:
        (paid,) = recitation_reward([written("oval mass " * 50_000)], knowledge=KNOWN, recite=measure)
        assert paid is not None


def test_reasoning_that_begins_in_the_prompt_counts():
    completion = f"{KNOWN}</think><answer>benign</answer>"
    assert recitation_reward([completion], knowledge=KNOWN, prompt_end="<think>\n") == pytest.approx([1.0])
    assert recitation_reward([completion], knowledge=KNOWN) == [0.0]
