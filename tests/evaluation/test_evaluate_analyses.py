"""AP_pool, intervals, errors and calibration by the evaluate step, and the comparison of systems by its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps import compare_results, evaluate
from pipeline_steps.common.cli import call_step
from pipeline_steps.evaluation.errors import ERRORS, NEAR_SYNONYM
from tests.evaluation.worlds import World, make_world, write_table, write_world

OPTIONS = ["--pool", "--bootstrap", "50", "--errors", "--calibration"]


def run_evaluate(folder: Path, truth: Path, results: Path, *options: str) -> dict:
    output = folder / "metrics.json"
    files = ["--annotations", str(truth), "--detections", str(results), "--output", str(output)]
    asked = ["--iou-type", "segm", *([] if "--pool" in options else ["--no-pool"]), *options]
    assert call_step(evaluate.parser, evaluate.main, [*files, *asked]) == 0
    return json.loads(output.read_text())


def parents_file(folder: Path, world: World) -> Path:
    """Even and odd categories are kinds of two things."""
    rows = [f"{c['name']},{'even' if c['id'] % 2 == 0 else 'odd'}\n" for c in world[0]["categories"]]
    path = folder / "parents.csv"
    path.write_text("category,parent\n" + "".join(rows))
    return path


def test_the_analyses_add_keys_and_leave_the_others_in_every_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    world = make_world(1, most=60)
    truth, _ = write_world(tmp_path, world)
    table = write_table(tmp_path / "table.parquet", world[1])
    plain = run_evaluate(tmp_path, truth, table)
    capsys.readouterr()
    full = run_evaluate(tmp_path, truth, table, *OPTIONS, "--parents", str(parents_file(tmp_path, world)))
    further = ["AP_pool", "APr_pool", "APc_pool", "APf_pool", "bootstrap", "errors", "calibration"]
    assert list(full) == [*plain, *further]
    assert json.dumps({key: full[key] for key in plain}) == json.dumps(plain)
    half = full["bootstrap"]["intervals"]["AP"]["half_width"]
    assert f"AP {full['AP']:.2f} ± {half:.2f}" in capsys.readouterr().out
    assert set(full["errors"]["groups"]["all"]["errors"]) == {*ERRORS, NEAR_SYNONYM}
    for confusion in full["errors"]["confusions"]:
        assert confusion["near_synonym"] == (confusion["true"] % 2 == confusion["predicted"] % 2)
    own, ranked = (full["calibration"][score]["all"] for score in ("score", "rank_score"))
    assert own["detections"] == ranked["detections"]
    assert own["ece"] != ranked["ece"]  # raw scores of the table are 1 - rank score


def test_each_analysis_is_made_only_if_it_is_asked_for(tmp_path: Path) -> None:
    files = write_world(tmp_path, make_world(1, images=6, most=30))
    plain = set(run_evaluate(tmp_path, *files))
    for option, key in (("--pool", "AP_pool"), ("--errors", "errors"), ("--calibration", "calibration")):
        assert key in set(run_evaluate(tmp_path, *files, option)) - plain
    assert set(run_evaluate(tmp_path, *files, "--bootstrap", "2")) - plain == {"bootstrap"}


def test_a_table_of_parents_without_these_categories_leaves_near_synonyms_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = write_world(tmp_path, make_world(1, images=6, most=30))
    (tmp_path / "parents.csv").write_text("category,parent\nacorn.n.01,fruit.n.01\n")
    metrics = run_evaluate(tmp_path, *files, "--errors", "--parents", str(tmp_path / "parents.csv"))
    assert set(metrics["errors"]["groups"]["all"]["errors"]) == set(ERRORS)
    assert "near-synonyms are not told apart" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bootstrap", "1"], "at least 2 resamples"),
        (["--errors", "--format", "coco"], "need --format lvis"),
        (["--errors", "--parents", "no.csv"], "no.csv"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    truth, results = write_world(tmp_path, make_world(1, images=4, most=10))
    files = ["--annotations", str(truth), "--detections", str(results), "--output", str(tmp_path / "metrics.json")]
    assert call_step(evaluate.parser, evaluate.main, [*files, "--iou-type", "segm", *options]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


def compare(folder: Path, truth: Path, systems: dict[str, Path], *options: str) -> int:
    pairs = [f"{name}={path}" for name, path in systems.items()]
    files = ["--annotations", str(truth), "--detections", *pairs, "--output", str(folder / "comparison.json")]
    return call_step(compare_results.parser, compare_results.main, [*files, *options])


def write_results(path: Path, results: list[dict]) -> Path:
    path.write_text(json.dumps(results))
    return path


def test_a_system_that_loses_most_detections_is_worse_and_itself_is_no_different(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    world = make_world(3, images=40, most=40)
    for category in world[0]["categories"]:
        category["frequency"] = "c" if category["frequency"] == "r" else category["frequency"]
    truth, results = write_world(tmp_path, world)
    right = [r for r in world[1] if r["category_id"] != 9999]
    spoiled = write_results(tmp_path / "spoiled.json", [{**r, "score": 1 - r["score"]} for r in right[::4]])
    systems = {"first": results, "same": results, "spoiled": spoiled}
    assert compare(tmp_path, truth, systems, "--bootstrap", "200") == 0
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert set(comparison["differences"]) == {"same", "spoiled"}
    for key, told in comparison["differences"]["same"].items():
        if key.startswith("APr"):
            assert told is None
        else:
            assert (told["difference"], told["low"], told["high"]) == (0, 0, 0)
            assert told["verdict"] == "no difference shown"
    told = comparison["differences"]["spoiled"]["AP"]
    assert told["verdict"] == "worse"
    assert told["low"] < told["difference"] < told["high"] < 0
    for name, system in comparison["systems"].items():
        alone = run_evaluate(tmp_path, truth, systems[name])
        assert all(system[key] == (alone[key] and pytest.approx(alone[key], abs=1e-4)) for key in system)
    printed = capsys.readouterr().out
    assert "spoiled beside first, 200 resamples" in printed
    assert "APr             -  no objects" in printed


def test_pairing_tells_a_small_steady_gain_that_single_intervals_do_not(tmp_path: Path) -> None:
    truth, results = make_world(5, images=60, most=30)
    rng = np.random.default_rng(0)
    weaker = [r for r in results if rng.random() < 0.93]
    paths = write_world(tmp_path, (truth, results))
    systems = {"weaker": write_results(tmp_path / "weaker.json", weaker), "whole": paths[1]}
    assert compare(tmp_path, paths[0], systems, "--bootstrap", "200") == 0
    told = json.loads((tmp_path / "comparison.json").read_text())["differences"]["whole"]["AP"]
    single = run_evaluate(tmp_path, *paths, "--bootstrap", "200")["bootstrap"]["intervals"]["AP"]
    assert told["half_width"] < single["half_width"] / 2


def test_systems_on_different_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth, results = write_world(tmp_path, make_world(2, images=20, most=20))
    rows = json.loads(results.read_text())
    images = sorted({r["image_id"] for r in rows})
    part = write_results(tmp_path / "part.json", [r for r in rows if r["image_id"] in images[:10]])
    assert compare(tmp_path, truth, {"whole": results, "part": part}) != 0
    assert "were not tested on the same images" in capsys.readouterr().err
    assert compare(tmp_path, truth, {"whole": results}) != 0
    assert "two or more systems" in capsys.readouterr().err
