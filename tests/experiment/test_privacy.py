"""Names, ids, dates and texts of patients do not reach anything that a run, an audit or a report writes."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from typer.testing import CliRunner

from vrft.api import run
from vrft.cli.main import app
from vrft.progress import Reporter
from vrft.recipe import read_recipe
from vrft.report import write_report
from vrft.runs import RunDirectory

PLANTED = ("ZZQUUX", "ZZID4711", "19470123", "ZZHOSPITAL", "ZZNOTE", "ZZDOCTOR", "1.2.826.0.4711", "ZZFILE", "ZZSITE")

RECIPE = """
name: private
data:
  source: table
  root: {root}
  file: table.csv
  hash_names: true
  on_bad_sample: skip
  columns: {{image: image, label: label, split: split, patient: patient}}
task: {{kind: classification}}
policy: {{model: tiny}}
stages: [{{kind: rft, rewards: {{accuracy: 1.0, format: 0.5}}, steps: 1, group_size: 2, prompts_per_step: 2}}]
arms: [majority, base, rft]
evaluation: {{bootstrap: 100}}
"""


def dicom(path: Path, grey: int) -> None:
    """A file with planted names, ids, dates and texts, some of which are no valid values."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix="1.2.826.0.4711.")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID = generate_uid(prefix="1.2.826.0.4711.")
    data.PatientName, data.PatientID, data.PatientBirthDate = "ZZQUUX^ANNA", "ZZID4711", "19470123"
    data.InstitutionName, data.ReferringPhysicianName = "ZZHOSPITAL", "ZZDOCTOR^BERT"
    data.StudyDescription, data.ImageComments = "ZZNOTE seen", "ZZNOTE again"
    data.add_new(0x00091001, "LO", "ZZNOTE private")
    with pydicom.config.disable_value_validation():
        data.StudyDate = "ZZNOTE no date"
    data.Rows = data.Columns = 32
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    pixels = np.random.default_rng(grey).integers(0, 255, (32, 32), np.uint8)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    rows = ["image,label,split,patient"]
    for index in range(8):
        name = f"ZZFILE_QUUX_{index}.dcm"
        dicom(root / name, index)
        rows.append(f"{name},{'AB'[index % 2]},{'train' if index < 4 else 'test'},ZZQUUX^ANNA {index}")
    (root / "ZZFILE_DAMAGED.dcm").write_bytes((root / "ZZFILE_QUUX_0.dcm").read_bytes()[:-600])
    rows += ["ZZFILE_DAMAGED.dcm,A,test,ZZQUUX^X", "ZZFILE_GONE.dcm,A,test,ZZQUUX^Y"]
    (root / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


def found_in(folder: Path) -> list[str]:
    """The files below a folder that hold something planted, in their bytes or their names."""
    planted = [one.encode() for one in PLANTED]
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes() + str(path.relative_to(folder)).encode()
            if path.suffix == ".parquet":
                import pandas as pd

                content += pd.read_parquet(path).to_json().encode()
            found += [f"{path.relative_to(folder)}: {one.decode()}" for one in planted if one in content]
    return found


def test_nothing_of_a_patient_is_written(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VRFT_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=data), encoding="utf-8")
    directory = RunDirectory(tmp_path / "runs" / "private")
    done = run(read_recipe(recipe, []), directory.path, reporter=Reporter(quiet=False))
    write_report(directory)
    assert done.metrics["arms"]["rft"]["n"] == 4  # without the damaged and the missing image
    audited = CliRunner().invoke(app, ["audit", str(recipe), "--run", str(directory.path)])
    asked = CliRunner().invoke(app, ["predict", str(directory.path), "--split", "test"])
    assert asked.exit_code == 0
    assert (directory.path / "audit.json").exists()
    written = capfd.readouterr()
    assert [one for one in PLANTED if one in written.out + written.err + audited.output + asked.output] == []
    assert found_in(tmp_path / "runs") == []
    assert list((tmp_path / "runs").rglob("rollouts.parquet"))  # the search must see them


def test_the_search_finds_what_is_planted(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"id": "ZZFILE_1"}), encoding="utf-8")
    assert found_in(tmp_path) == ["a.json: ZZFILE"]
