"""The audit on planted data: each fault is found under its code, and data without faults has no errors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from typer.testing import CliRunner

import vrft
from vrft.auditing import Audit, Finding, measured
from vrft.cli.main import app
from vrft.sample import Sample, patient_code


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Smooth noise: no two seeds are alike."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def folders(root: Path, labels: tuple[str, ...] = ("adenoma", "polyp"), count: int = 6) -> Path:
    """Class folders in three splits, all images different."""
    seed = 0
    for split in ("train", "val", "test"):
        for label in labels:
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                picture(seed).save(root / split / label / f"{split}{label[:2]}{index}.png")
                seed += 1
    return root


def written(path: Path, data: dict[str, Any], kind: str = "classification", **more: Any) -> Path:
    reward = "iou" if kind == "localization" else "accuracy"
    recipe = {
        "name": "audited",
        "data": data,
        "task": {"kind": kind},
        "stages": [{"kind": "rft", "rewards": {reward: 1.0, "format": 0.5}, "steps": 2}],
    }
    path.write_text(yaml.safe_dump(recipe | more))
    return path


def audited(tmp_path: Path, root: Path, **data: Any) -> Audit:
    return vrft.audit(written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(root), **data}))


def of(audit: Audit, code: str) -> Finding:
    (finding,) = [finding for finding in audit.findings if finding.code == code]
    return finding


def codes(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.findings if finding.severity != "note"}


def test_data_without_faults_has_neither_errors_nor_warnings(tmp_path: Path):
    audit = audited(tmp_path, folders(tmp_path / "set"))
    assert codes(audit) == set()
    assert audit.passed
    assert audit.counts["data"]["train"] == {"samples": 12, "images": 12, "targets": {"adenoma": 6, "polyp": 6}}
    assert audit.images["data"]["opened"] == 36
    assert audit.images["data"]["tokens"] == {"min": 20, "median": 20, "max": 20}  # 4 x 5 tokens of 28 pixels


def test_a_copy_in_test_and_another_split_is_an_error_that_names_both(tmp_path: Path):
    root = folders(tmp_path / "set")
    picture(0).save(root / "test/adenoma/copy.png")
    found = of(audited(tmp_path, root), "duplicate_across_splits")
    assert (found.severity, found.count) == ("error", 1)
    assert found.where == ["trainad0 (train) and copy (test)"]


def test_a_copy_in_validation_is_a_warning(tmp_path: Path):
    root = folders(tmp_path / "set")
    picture(0).save(root / "val/adenoma/copy.png")
    assert of(audited(tmp_path, root), "duplicate_in_validation").severity == "warning"


def test_a_copy_inside_a_split_is_a_warning(tmp_path: Path):
    root = folders(tmp_path / "set")
    picture(0).save(root / "train/adenoma/copy.png")
    assert codes(audited(tmp_path, root)) == {"duplicate"}


def test_equal_images_with_different_labels_contradict(tmp_path: Path):
    root = folders(tmp_path / "set")
    picture(0).save(root / "train/polyp/copy.png")
    found = of(audited(tmp_path, root), "contradicting_targets")
    assert (found.severity, found.where) == ("error", ["trainad0 (train): adenoma and copy (train): polyp"])


def test_the_same_image_with_another_question_does_not_contradict(tmp_path: Path):
    samples = [
        Sample(f"s{n}", tmp_path / "a.png", f"Question {n}?", label, split)
        for n, (label, split) in enumerate([("a", "train"), ("b", "train"), ("a", "test"), ("b", "test")])
    ]
    picture(0).save(tmp_path / "a.png")
    found = {finding.code for finding in of_source(tmp_path, samples).findings}
    assert "duplicate_across_splits" in found
    assert not {"contradicting_targets", "duplicate"} & found


@pytest.mark.parametrize(
    ("changed", "how"),
    [
        (lambda image: ImageEnhance.Contrast(image).enhance(1.2), "copy"),
        (lambda image: image.resize((70, 60)), "copy"),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "mirrored"),
        (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "upside down"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), "turned by 90 degrees"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_270), "turned by 270 degrees"),
        (lambda image: image.transpose(Image.Transpose.TRANSVERSE), "mirrored at the other diagonal"),
    ],
)
def test_a_changed_copy_in_another_split_is_a_warning(tmp_path: Path, changed: Any, how: str):
    root = folders(tmp_path / "set")
    changed(picture(3)).save(root / "test/adenoma/copy.jpg")
    audit = audited(tmp_path, root)
    found = of(audit, "near_duplicate_across_splits")
    assert (found.severity, found.count) == ("warning", 1)
    assert found.where == [f"trainad3 (train) and copy (test), {how}"]
    assert codes(audit) == {"near_duplicate_across_splits"}


def test_every_unreadable_image_is_named_and_the_others_are_audited(tmp_path: Path):
    root = folders(tmp_path / "set")
    whole = (root / "train/polyp/trainpo1.png").read_bytes()
    (root / "train/polyp/trainpo1.png").write_bytes(whole[: len(whole) // 2])
    (root / "test/polyp/testpo2.png").write_text("no image")
    audit = audited(tmp_path, root)
    found = of(audit, "unreadable")
    assert (found.severity, found.count) == ("error", 2)
    assert "trainpo1.png" in found.where[0]
    assert "testpo2.png" in found.where[1]
    assert audit.images["data"]["opened"] == 36


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (Image.new("RGB", (64, 64), (90, 90, 90)), "blank"),
        (picture(99, (20, 400)), "tiny"),
        (picture(98, (6500, 30)), "aspect"),
        (ImageEnhance.Brightness(picture(97)).enhance(0.06), "dark"),
        (Image.blend(picture(96), Image.new("RGB", (96, 80), "white"), 0.95), "bright"),
        (Image.blend(picture(95), Image.new("RGB", (96, 80), (120, 120, 120)), 0.97), "low_contrast"),
    ],
)
def test_images_that_show_little_are_found(tmp_path: Path, image: Image.Image, code: str):
    root = folders(tmp_path / "set")
    image.save(root / "train/polyp/unusual.png")
    audit = audited(tmp_path, root)
    assert of(audit, code).where == ["unusual (train)"]
    assert codes(audit) == {code}


def test_pixels_that_are_no_numbers_are_found(tmp_path: Path):
    root = folders(tmp_path / "set")
    values = np.asarray(picture(50).convert("L")).astype(np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(root / "train/polyp/nan.tif")
    assert of(audited(tmp_path, root), "not_finite").where == ["nan (train)"]


def test_printed_text_in_an_image_is_found(tmp_path: Path):
    root = folders(tmp_path / "set")
    image = ImageEnhance.Brightness(picture(60, (400, 300))).enhance(0.4)
    ImageDraw.Draw(image).text((10, 10), "DOE JANE 1970-01-01", fill="white", font=ImageFont.load_default(size=18))
    image.save(root / "train/polyp/named.png")
    found = of(audited(tmp_path, root), "burned_in_text")
    assert (found.severity, found.where) == ("warning", ["named (train)"])


@pytest.mark.parametrize(("tag", "count"), [("YES", 1), ("NO", 0), (None, 0)])
def test_a_dicom_file_that_states_burned_in_text_is_found(tmp_path: Path, tag: str | None, count: int):
    pydicom = pytest.importorskip("pydicom")
    samples = many(tmp_path)
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    if tag is not None:
        dataset.BurnedInAnnotation = tag
    dataset.save_as(tmp_path / "a.dcm")
    samples[0] = replace(samples[0], image=tmp_path / "a.dcm")
    found = [finding for finding in of_source(tmp_path, samples).findings if finding.code == "burned_in_tag"]
    assert len(found) == count


def test_labels_in_two_spellings_are_an_error_and_a_typing_error_is_a_warning(tmp_path: Path):
    root = folders(tmp_path / "set", ("adenoma", "polyp", "Polyp ", "adenmoa"), count=5)
    for image in sorted((root / "train/adenmoa").glob("*"))[1:]:
        image.unlink()
    for split in ("val", "test"):
        for image in (root / split / "adenmoa").glob("*"):
            image.unlink()
    audit = audited(tmp_path, root)
    assert of(audit, "label_spelling").where == ["'Polyp' 15, 'polyp' 15"]
    assert of(audit, "label_typing_error").where == ["'adenmoa' 1, 'adenoma' 15"]


def test_a_rare_class_a_missing_class_and_an_imbalance_are_warnings(tmp_path: Path):
    root = folders(tmp_path / "set")
    for image in (root / "test/polyp").glob("*"):
        image.unlink()
    for image in sorted((root / "train/polyp").glob("*"))[1:]:
        image.unlink()
    for index in range(20):
        picture(1000 + index).save(root / f"train/adenoma/more{index}.png")
    audit = audited(tmp_path, root)
    assert of(audit, "missing_class").where == ["polyp"]
    assert of(audit, "imbalance").where == ["adenoma: 26", "polyp: 1"]
    assert {"rare_class", "blind_reward"} <= codes(audit)


# --- a source in a program --------------------------------------------------------------------------------------------


class Given:
    """A source with the given samples."""

    levels = None
    question = "Which class?"

    def __init__(self, samples: list[Sample], labels: list[str] | None) -> None:
        self._samples, self.labels = samples, labels

    def check(self) -> None:
        """Nothing to check."""

    def samples(self, split: str) -> Iterator[Sample]:
        return iter([sample for sample in self._samples if sample.split == split])


def of_source(tmp_path: Path, samples: list[Sample], kind: str = "classification") -> Audit:
    labels = ["a", "b"] if kind == "classification" else None
    recipe = written(tmp_path / "recipe.yaml", {"source": "python"}, kind)
    return vrft.audit(recipe, source=Given(samples, labels))


def many(tmp_path: Path) -> list[Sample]:
    """Ten samples in each of train and test."""
    samples = []
    for index in range(20):
        path = tmp_path / f"{index}.png"
        picture(index).save(path)
        split = "train" if index < 10 else "test"
        samples.append(Sample(f"s{index}", path, "Which?", "ab"[index % 2], split, patient=f"Jane Doe {index}"))
    return samples


def test_a_patient_in_two_splits_is_an_error_and_is_named_by_a_code_alone(tmp_path: Path):
    samples = many(tmp_path)
    samples[15] = replace(samples[15], patient="Jane Doe 3")
    audit = of_source(tmp_path, samples)
    found = of(audit, "patient_overlap")
    assert (found.severity, found.count) == ("error", 1)
    assert found.where == [f"patient {patient_code('Jane Doe 3')} in train and test"]
    assert "Jane" not in json.dumps(audit.to_json())
    assert audit.counts["data"]["test"]["patients"] == 10


def test_the_patients_of_a_folder_are_counted_also_where_the_source_refuses_them(tmp_path: Path):
    root = folders(tmp_path / "set")
    for index in range(6):
        for split in ("train", "test"):
            old = root / split / "polyp" / f"{split}po{index}.png"
            old.rename(old.with_name(f"p{index}_{split}.png"))
    audit = audited(tmp_path, root, patient=r"^.*/([a-z]+\d+)[^/]*$")
    found = of(audit, "patient_overlap")
    assert (found.severity, found.count) == ("error", 6)
    assert audit.images["data"]["opened"] == 36
    allowed = audited(tmp_path, root, patient=r"^.*/([a-z]+\d+)[^/]*$", patient_overlap="allow")
    assert of(allowed, "patient_overlap").severity == "note"


def test_a_target_that_the_task_does_not_have_is_an_error(tmp_path: Path):
    samples = many(tmp_path)
    samples[4] = replace(samples[4], target="c")
    found = of(of_source(tmp_path, samples), "unlisted_target")
    assert (found.severity, found.where) == ("error", ["s4 (train)"])


def test_targets_that_are_read_as_each_other_are_an_error(tmp_path: Path):
    samples = [replace(sample, target="Grade 1" if sample.target == "a" else "grade-1") for sample in many(tmp_path)]
    recipe = written(tmp_path / "recipe.yaml", {"source": "python"})
    audit = vrft.audit(recipe, source=Given(samples, ["Grade 1", "grade-1"]))
    assert not audit.passed


@pytest.mark.parametrize(
    ("boxes", "code"),
    [
        (((10.0, 10.0, 10.0, 30.0),), "box_no_area"),
        (((30.0, 30.0, 10.0, 10.0),), "box_no_area"),
        (((200.0, 200.0, 220.0, 220.0),), "box_outside"),
        (((50.0, 50.0, 120.0, 70.0),), "box_leaves_image"),
        (((10.0, 10.0, 10.4, 40.0),), "box_tiny"),
        (((10.0, 10.0, 40.0, 40.0), (10.0, 10.0, 40.0, 40.0)), "box_duplicate"),
        (((10.0, 10.0, 60.0, 60.0), (10.0, 10.0, 60.5, 60.0)), "box_nearly_equal"),
        (((0.0, 0.0, 96.0, 80.0),), "box_whole_image"),
        ((), "no_boxes"),
    ],
)
def test_faults_of_boxes(tmp_path: Path, boxes: tuple[tuple[float, ...], ...], code: str):
    samples = [replace(sample, target=((10.0, 10.0, 50.0, 50.0),)) for sample in many(tmp_path)]
    samples[2] = replace(samples[2], target=boxes)  # type: ignore[arg-type]
    audit = of_source(tmp_path, samples, "localization")
    assert of(audit, code).where == ["s2 (train)"]
    assert {found.code for found in audit.findings if found.code.startswith(("box", "no_box"))} == {code}


def test_the_same_box_in_every_image_is_earned_without_seeing(tmp_path: Path):
    samples = [replace(sample, target=((10.0, 10.0, 50.0, 50.0),)) for sample in many(tmp_path)]
    audit = of_source(tmp_path, samples, "localization")
    assert audit.rewards["data"]["iou"]["shuffled"] == 1.0
    assert of(audit, "blind_reward").severity == "warning"


def test_shuffled_and_constant_answers_earn_what_the_shares_of_the_classes_say(tmp_path: Path):
    root = folders(tmp_path / "set")
    for image in sorted((root / "train/polyp").glob("*"))[2:]:
        image.unlink()
    figures = audited(tmp_path, root).rewards["data"]["accuracy"]
    assert figures["right"] == 1.0
    assert figures["constant"] == pytest.approx(6 / 8)
    assert figures["shuffled"] == pytest.approx((6 / 8) ** 2 + (2 / 8) ** 2)
    assert figures["answer"] == "adenoma"


# --- the data as a whole ----------------------------------------------------------------------------------------------


def test_data_that_is_not_there_is_a_finding(tmp_path: Path):
    found = of(audited(tmp_path, tmp_path / "nowhere"), "data")
    assert found.severity == "error"
    assert "nowhere" in found.message


def test_a_card_that_does_not_fit_is_a_finding(tmp_path: Path):
    data = {"source": "folder", "root": str(folders(tmp_path / "set"))}
    recipe = written(tmp_path / "recipe.yaml", data, knowledge={"card": "retinamnist"})
    assert of(vrft.audit(recipe), "knowledge").severity == "error"


def test_the_data_of_a_stage_are_audited_too(tmp_path: Path):
    data = {"source": "folder", "root": str(folders(tmp_path / "set"))}
    other = {"source": "voc", "root": str(tmp_path / "nowhere")}
    perception = {"kind": "rft", "task": {"kind": "localization"}, "data": other, "rewards": {"iou": 1.0}, "steps": 2}
    own = {"kind": "rft", "rewards": {"accuracy": 1.0}, "steps": 2}
    audit = vrft.audit(written(tmp_path / "recipe.yaml", data, stages=[perception, perception, own]))
    assert of(audit, "data").data == "stages.0.data"
    assert audit.counts["data"]["train"]["samples"] == 12


def test_a_limit_takes_samples_of_each_split(tmp_path: Path):
    recipe = written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(folders(tmp_path / "set"))})
    audit = vrft.audit(recipe, limit=5)
    assert [audit.counts["data"][split]["samples"] for split in ("train", "validation", "test")] == [5, 5, 5]
    assert set(audit.counts["data"]["train"]["targets"]) == {"adenoma", "polyp"}


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that are opened."""
    images: list[Any] = []
    measure = measured.measure

    def counting(image: Any) -> dict[str, Any]:
        images.append(image)
        return measure(image)

    monkeypatch.setattr(measured, "measure", counting)
    return images


def test_a_second_audit_opens_no_image_and_finds_the_same(tmp_path: Path, opened: list[Any]):
    root = folders(tmp_path / "set")
    picture(3).resize((70, 60)).save(root / "test/adenoma/copy.jpg")
    first = audited(tmp_path, root)
    assert len(opened) == 37
    second = audited(tmp_path, root)
    assert len(opened) == 37
    assert second.findings == first.findings


def test_an_audit_that_was_ended_goes_on(tmp_path: Path, opened: list[Any], cache: Path):
    root = folders(tmp_path / "set")
    first = audited(tmp_path, root)
    (file,) = (cache / "audit").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:20]) + lines[20][:100])  # half a line
    opened.clear()
    assert audited(tmp_path, root).findings == first.findings
    assert len(opened) == 16
    opened.clear()
    audited(tmp_path, root)
    assert not opened


def test_a_changed_image_is_opened_again(tmp_path: Path, opened: list[Any]):
    root = folders(tmp_path / "set")
    audited(tmp_path, root)
    opened.clear()
    picture(500, (50, 50)).save(root / "train/polyp/trainpo1.png")
    audited(tmp_path, root)
    assert opened == [root / "train/polyp/trainpo1.png"]


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path, cache: Path):
    cache.write_text("a file in place of the folder")
    root = folders(tmp_path / "set")
    audit = vrft.audit(written(tmp_path / "r.yaml", {"source": "medmnist", "dataset": "octmnist", "root": str(root)}))
    assert of(audit, "data")
    rows = measured.Measurements(cache / "audit" / "x.jsonl")
    paths = sorted((root / "train/polyp").glob("*"))
    assert len(list(rows.measure_all(paths, 2, lambda done: None))) == 6
    assert rows.thumbnail(0).shape == (measured.SIDE, measured.SIDE)


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["audit", *arguments])


def test_the_exit_code_is_2_with_an_error_and_0_with_warnings(tmp_path: Path):
    root = folders(tmp_path / "set")
    recipe = str(written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(root)}))
    picture(0).save(root / "train/adenoma/copy.png")
    done = command(recipe)
    assert done.exit_code == 0, done.output
    assert "warning duplicate: 1 image more than once in a split" in done.stdout
    picture(1).save(root / "test/adenoma/copy2.png")
    done = command(recipe)
    assert done.exit_code == 2
    assert "error duplicate_across_splits" in done.stdout


def test_the_json_has_the_keys_that_programs_read(tmp_path: Path):
    root = folders(tmp_path / "set")
    picture(1).save(root / "test/adenoma/copy2.png")
    recipe = str(written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(root)}))
    done = command(recipe, "--json", "--quiet", "--out", str(tmp_path / "out"))
    plain = json.loads(done.stdout)
    assert plain == json.loads((tmp_path / "out" / "audit.json").read_text())
    assert set(plain) == {
        *("format", "passed", "recipe", "findings", "counts", "images", "rewards", "seconds", "limit"),
    }
    assert set(plain["findings"][0]) == {"code", "severity", "message", "where", "count", "data"}
    assert plain["findings"][0]["severity"] == "error"
    assert plain["format"] == 1
    assert plain["passed"] is False


def test_an_audit_of_a_run_lies_in_its_directory(tmp_path: Path):
    recipe = str(written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(folders(tmp_path / "set"))}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text("{}")
    assert command(recipe, "--run", str(tmp_path / "run"), "--quiet").exit_code == 0
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["passed"] is True


def test_a_bad_row_is_named_and_the_others_are_audited(tmp_path: Path):
    root = folders(tmp_path / "set")
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    rows = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in names]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *rows, f"{names[0]},,train"]))
    data = {"source": "table", "root": str(root), "file": "labels.csv"}
    data["columns"] = {"image": "file", "label": "label", "split": "split"}
    audit = vrft.audit(written(tmp_path / "recipe.yaml", data))
    found = of(audit, "row")
    assert (found.severity, found.count) == ("error", 1)
    assert "labels.csv:38" in found.where[0]
    assert audit.images["data"]["opened"] == 36
    skipped = vrft.audit(written(tmp_path / "recipe.yaml", data | {"on_bad_sample": "skip"}))
    assert of(skipped, "row").severity == "warning"


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    recipe = str(written(tmp_path / "recipe.yaml", {"source": "folder", "root": str(folders(tmp_path / "set"))}))
    done = command(recipe, "--run", str(tmp_path / "out"))
    assert done.exit_code != 0
    assert not (tmp_path / "out").exists()
