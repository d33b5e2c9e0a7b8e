"""Single questions: what is asked of an image or a split, and how sure the answer is."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from vrft.api import predict, run
from vrft.data import PhantomSource
from vrft.errors import RunError, UserError
from vrft.evaluation.inference import ask, ask_model, ask_run, check_number_of_images
from vrft.images import BLANK
from vrft.policies import LoadedPolicy, decode, load_policy, token_probabilities
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.runs import RunDirectory
from vrft.sample import Sample, open_image
from vrft.tasks import Classification, Localization

BRIGHTNESS = {"kind": "classification", "labels": ["dark", "bright"]}
QUESTION = "What is the brightness of the finding?"


@pytest.fixture(scope="module")
def tiny() -> LoadedPolicy:
    return load_policy("tiny")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(PhantomSource("localization", sizes={"train": 0, "validation": 0, "test": 3}).samples("test"))


@pytest.fixture
def picture(samples: list[Sample], tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    open_image(samples[0].images[0]).save(path)
    return path


def test_probabilities_are_those_of_sampling_one_token_after_the_other(tiny: LoadedPolicy, samples: list[Sample]):
    image = open_image(samples[0].images[0])
    (tokens,) = decode(tiny, ["Where is the finding?"], [image], max_tokens=12)
    whole = token_probabilities(tiny, "Where is the finding?", image, tokens)
    steps = [token_probabilities(tiny, "Where is the finding?", image, tokens[: n + 1])[-1] for n in range(len(tokens))]
    assert whole == pytest.approx(steps, abs=1e-4)
    assert all(0 < probability <= 1 for probability in whole)


def test_the_end_of_turn_and_what_follows_it_are_left_out(
    tiny: LoadedPolicy, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
):
    end, pad = tiny.processor.tokenizer.eos_token_id, tiny.processor.tokenizer.pad_token_id
    words = tiny.processor.tokenizer("a b").input_ids[:2]
    written = torch.tensor([[*words, end, pad], [*words, *words]])

    def generate(input_ids: torch.Tensor, **options: object) -> torch.Tensor:
        return torch.cat([input_ids, written], dim=1)

    monkeypatch.setattr(tiny.model, "generate", generate)
    images = [open_image(sample.images[0]) for sample in samples[:2]]
    assert decode(tiny, ["Where?"] * 2, images, max_tokens=4) == [words, [*words, *words]]


def test_a_box_is_told_in_pixels_of_the_image(tiny: LoadedPolicy, samples: list[Sample]):
    row = ask(tiny, Localization("resized"), samples[0], max_tokens=60)
    assert row["boxes"] == row["answer"]
    assert row["image_size"] == [112, 112]
    assert 0 < row["confidence"] <= 1


def test_without_an_answer_there_is_no_confidence(tiny: LoadedPolicy, samples: list[Sample]):
    row = ask(tiny, Classification(("dark", "bright")), samples[0], max_tokens=3)
    assert (row["answer"], row["confidence"]) == (None, None)


def test_an_image_file_is_asked_about_by_options(picture: Path):
    ((sample, row),) = ask_model("tiny", [picture], BRIGHTNESS, question=QUESTION)
    assert sample.id == row["image"] == str(picture)
    assert row["answer"] in ("dark", "bright")
    assert row["reasoning"].startswith("1 ")


def test_several_files_are_one_sample(picture: Path, tmp_path: Path):
    other = tmp_path / "two.png"
    Image.new("RGB", (60, 40), "navy").save(other)
    asked = [[picture, other], picture, [picture]]
    rows = [row for _, row in ask_model("tiny", asked, {"kind": "localization"}, question="Where is it?")]
    assert [(row.get("image"), row.get("images")) for row in rows] == [
        (None, [str(picture), str(other)]),
        (str(picture), None),
        (None, [str(picture)]),
    ]
    assert [row["image_size"] for row in rows] == [[112, 112]] * 3
    assert [BLANK in row["problems"] for row in rows] == [True, False, False]
    assert rows[1]["completion"] == rows[2]["completion"]
    assert [row["images"] for row in predict("tiny", [(str(picture), other)], task=BRIGHTNESS, question=QUESTION)] == [
        [str(picture), str(other)]
    ]
    with pytest.raises(UserError, match="a sample has no image files"):
        list(ask_model("tiny", [[]], BRIGHTNESS, question=QUESTION))


def test_a_single_image_is_refused_where_the_samples_of_a_run_have_several(picture: Path):
    class Views:
        def samples(self, split: str) -> list[Sample]:
            return [Sample("a", (picture, picture), "Which?", "x", split)]

    asked = Sample(str(picture), picture, "Which?", (), "")
    with pytest.raises(UserError, match=r"is a single image, and the samples of the run have 2; .* --together"):
        check_number_of_images([asked], Views())  # type: ignore[arg-type]
    check_number_of_images([replace(asked, image=(picture, picture))], Views())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("section", "question", "words"),
    [
        (BRIGHTNESS, None, "give --question"),
        ({"kind": "clasification"}, QUESTION, "did you mean 'classification'"),
        ({"kind": "vqa", "answers": "yes_no"}, QUESTION, "cannot be asked yet"),
    ],
)
def test_what_is_missing_is_named(picture: Path, section: dict[str, str], question: str | None, words: str):
    with pytest.raises(UserError, match=words):
        list(ask_model("tiny", [picture], section, question=question))


def test_a_missing_image_is_named():
    with pytest.raises(UserError, match=r"nowhere\.png: there is no such file"):
        list(ask_model("tiny", [Path("nowhere.png")], BRIGHTNESS, question=QUESTION))


def test_a_run_is_asked_about_a_split_and_about_files(small_recipe: Path, picture: Path, tmp_path: Path):
    recipe = read_recipe(small_recipe, ["arms=[majority, sft]"])
    directory = RunDirectory(tmp_path / "run")
    run(recipe, directory.path, reporter=Reporter(quiet=True))
    rows = [row for _, row in ask_run(directory, [picture], split="test", limit=2)]
    assert [row["image"] for row in rows] == [str(picture), "phantom-0-test-00000", "phantom-0-test-00001"]
    assert ["target" in row for row in rows] == [False, True, True]
    with pytest.raises(RunError, match="has no policy of an arm 'rft'; it has sft"):
        list(ask_run(directory, [picture], arm="rft"))
    with pytest.raises(RunError, match="sft with seed 7 is not done"):
        list(ask_run(directory, [picture], seed=7))
    with pytest.raises(UserError, match="nothing to ask about"):
        list(ask_run(directory))


def test_a_volume_is_shown_as_the_run_shows_those_of_its_data(tmp_path: Path):
    for number in range(10):
        volume = np.random.default_rng(number).integers(0, 255, (40, 30, 20), np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"v{number}.nii.gz")
    rows = "".join(f"v{number}.nii.gz,{'ab'[number % 2]}\n" for number in range(10))
    (tmp_path / "t.csv").write_text(f"image,label\n{rows}")
    (tmp_path / "recipe.yaml").write_text(
        f"name: volumes\ndata: {{source: table, root: {tmp_path}, file: t.csv, axis: coronal, slices: 3, columns: "
        "{image: image, label: label}}\ntask: {kind: classification}\npolicy: {model: tiny}\nstages: [{kind: sft}]\n"
        "arms: [base]\n"
    )
    directory = RunDirectory(tmp_path / "run")
    run(read_recipe(tmp_path / "recipe.yaml"), directory.path, reporter=Reporter(quiet=True))
    (sample, row), *_ = ask_run(directory, [], split="test", limit=1)
    (asked, same) = next(iter(ask_run(directory, [tmp_path / f"{sample.id}.nii.gz"])))
    assert asked.images == sample.images
    assert (same["completion"], same["confidence"]) == (row["completion"], row["confidence"])
