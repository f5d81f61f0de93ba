"""The FiftyOne data set, against a real database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.errors import ERRORS
from pipeline_steps.inspect_dataset import main, parser
from pipeline_steps.inspection.database import URI, link_openssl, prepare_database
from tests.report.fabricated import fabricate
from tests.report.tiny_world import write_tiny_world

READ_BACK = """
import json, fiftyone as fo
data = fo.load_dataset("tiny_val")
found = {"persistent": data.persistent, "images": len(data), "views": data.list_saved_views()}
found["true"] = data.count_label_tags("predictions_a_b.detections")
found["missed"] = data.count_label_tags("ground_truth.detections")
sample = data.exists("ground_truth").sort_by("image_id").first()
found["masks"] = [d.mask.shape for d in sample.ground_truth.detections]
found["boxes"] = [d.bounding_box for d in sample.ground_truth.detections]
misses = data.load_saved_view("rare misses: a-b")
found["rare"] = sorted({d.frequency for s in misses for d in s.ground_truth.detections})
mistakes = data.load_saved_view("confident mistakes: a-b")
found["mistakes"] = [d.confidence for s in mistakes for d in s.predictions_a_b.detections]
found["counts"] = [data.sum("predictions_a_b_true"), data.sum("predictions_a_b_false")]
views = {name: data.load_saved_view(name) for name in data.list_saved_views() if " errors: " in name}
kinds = {name: view.distinct("predictions_a_b.detections.error") for name, view in views.items()}
found["errors"] = {name: kind for name, kind in kinds.items() if kind and not name.startswith("missed")}
found["kinds"] = data.count_values("predictions_a_b.detections.error")
scheme = data.app_config.color_scheme
found["scheme"] = [scheme.color_by, scheme.opacity, scheme.fields]
found["verdicts"] = [data.distinct(f"{field}.detections.verdict") for field in ("ground_truth", "predictions_a_b")]
found["fields"] = {name: sorted(data.load_saved_view(name).get_field_schema()) for name in data.list_saved_views()}
# What FiftyOne itself would have stored for the same samples.
again = fo.Dataset()
again.add_samples([sample.copy() for sample in data], dynamic=True)
own = {"_id", "_dataset_id", "_rand", "created_at", "last_modified_at"}
def bare(value):
    if isinstance(value, dict):
        return {key: bare(part) for key, part in value.items() if key not in own}
    return [bare(part) for part in value] if isinstance(value, list) else value
stored = [[bare(d) for d in one._sample_collection.find().sort("image_id")] for one in (data, again)]
found["as_fiftyone"] = stored[0] == stored[1]
found["schema"] = data.get_field_schema(flat=True).keys() == again.get_field_schema(flat=True).keys()
found["files"] = all(__import__("os").path.exists(p) for p in data.values("filepath"))
print(json.dumps(found))
"""


def test_a_database_named_by_the_user_is_left_alone() -> None:
    environment = {URI: "mongodb://somewhere:27017"}
    assert prepare_database(environment) is None
    assert environment == {URI: "mongodb://somewhere:27017"}


def test_openssl_is_linked_under_the_names_that_mongod_asks_for(tmp_path: Path) -> None:
    carrier = tmp_path / "opencv.libs"
    carrier.mkdir()
    for name in ("libcrypto-a1.so.1.1.1k", "libssl-b2.so.1.1.1k"):
        (carrier / name).write_text(name)
    for _ in range(2):  # a second time changes nothing
        link_openssl(tmp_path / "links", carrier)
    assert (tmp_path / "links/libcrypto.so.1.1").read_text() == "libcrypto-a1.so.1.1.1k"
    assert (tmp_path / "links/libssl.so.1.1").read_text() == "libssl-b2.so.1.1.1k"


def test_without_openssl_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{URI}=mongodb"):
        link_openssl(tmp_path / "links", tmp_path)


def test_bad_input_is_refused_before_fiftyone_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_tiny_world(tmp_path)
    (tmp_path / "datasets/lvis/lvis_v0.5_val.json").unlink()
    monkeypatch.setitem(sys.modules, "fiftyone", None)  # an import would fail
    assert call_step(parser, main, ["--recipe", str(recipe), "--detections", "a=b.parquet"]) == 2
    assert "lvis_v0.5_val.json" in capsys.readouterr().err


def _environment(folder: Path) -> dict[str, str]:
    own = {"FIFTYONE_DATABASE_DIR": str(folder / "db"), "FIFTYONE_DO_NOT_TRACK": "true", "PYTHONPATH": str(Path.cwd())}
    return {**{k: v for k, v in os.environ.items() if k != URI}, **own}


@pytest.mark.slow
def test_data_set_stays_in_a_real_database_with_tags_and_views(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path)
    table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")
    step = [sys.executable, "-m", "pipeline_steps.inspect_dataset", "--recipe", str(recipe), "--min-score", "0.2"]
    environment = _environment(tmp_path)
    for _ in range(2):  # the second run replaces the data set of the first
        done = subprocess.run(
            [*step, "--detections", f"a-b={table}"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    prepare_database(environment)
    read = subprocess.run(
        [sys.executable, "-c", READ_BACK], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(read.stdout.splitlines()[-1])
    assert found["persistent"]
    assert found["files"]
    assert found["images"] == 10
    errors = {f"{error} errors: a-b" for error in ERRORS}
    assert set(found["views"]) == {"rare misses: a-b", "confident mistakes: a-b", "not exhaustive", *errors}
    always = {"id", "filepath", "tags", "metadata", "created_at", "last_modified_at"}
    assert {name: set(fields) - always for name, fields in found["fields"].items()} == {
        "rare misses: a-b": {"ground_truth", "predictions_a_b", "predictions_a_b_missed"},
        "confident mistakes: a-b": {"ground_truth", "predictions_a_b", "predictions_a_b_false"},
        "not exhaustive": {"ground_truth", "not_exhaustive"},
        **{name: {"ground_truth", "predictions_a_b"} for name in errors},
    }
    assert found["errors"] == {f"{error} errors: a-b": [error] for error in ERRORS[:-1] if found["kinds"].get(error)}
    assert sum(count for error, count in found["kinds"].items() if error) == found["true"]["false@0.5"]
    assert 0 < found["missed"]["missed:a-b"] <= found["missed"]["missed@0.5:a-b"]
    assert found["as_fiftyone"]
    assert found["schema"]
    by, opacity, coloured = found["scheme"]
    assert by == "value"
    assert opacity <= 0.35
    assert [(field["path"], field["colorByAttribute"]) for field in coloured] == [
        ("ground_truth", "verdict"),
        ("predictions_a_b", "verdict"),
    ]
    for field, verdicts in zip(coloured, found["verdicts"]):
        colours = {pair["value"]: pair["color"] for pair in field["valueColors"]}
        assert len({colours[verdict] for verdict in verdicts}) == len(verdicts) > 1
    assert found["counts"] == [found["true"]["true@0.5"], found["true"]["false@0.5"]]
    assert found["true"]["true@0.5"] > found["true"].get("true@0.75", 0) > 0
    truth = json.loads((tmp_path / "datasets/lvis/lvis_v0.5_val.json").read_text())
    assert found["missed"]["missed@0.5:a-b"] == len(truth["annotations"]) - found["true"]["true@0.5"]
    assert found["rare"] == ["rare"]
    assert min(found["mistakes"]) >= 0.5
    for (height, width), box in zip(found["masks"], found["boxes"]):
        assert width / box[2] == pytest.approx(round(width / box[2]), abs=1e-6)
        assert height / box[3] == pytest.approx(round(height / box[3]), abs=1e-6)


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_one_message(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path)
    table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")
    environment = {**_environment(tmp_path), URI: "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"}
    step = [sys.executable, "-m", "pipeline_steps.inspect_dataset", "--recipe", str(recipe), "--detections"]
    done = subprocess.run([*step, f"a={table}"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert URI in done.stderr
    assert "Traceback" not in done.stderr
