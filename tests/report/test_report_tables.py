"""Summary table and the paper's tables beside ours."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_steps.analysis.published import TABLES
from pipeline_steps.common.cli import call_step
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.grid import MISSING, markdown_table, number, with_spread
from pipeline_steps.tabulate import main, parser


def write_metrics(path: Path, ap: float, **other: object) -> Path:
    """A metrics file whose figures follow from ``ap``."""
    figures = {"AP": ap, "APr": ap - 10, "APc": ap + 1, "APf": ap + 2}
    figures |= {f"{key}_fixed": value - 0.5 for key, value in figures.items()}
    settings = {"format": "lvis", "iou_type": "segm", "recipe": "tiny", "max_detections": 300}
    path.write_text(
        json.dumps({**figures, **settings, "fixed_per_category": 10000, "detections_per_image": 120, **other})
    )
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe on LVIS, evaluated as the paper evaluates."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "extends: mini.yaml\nname: tiny\ndata: {source: download}\nevaluation: {max_detections: 300}\n"
        "training: {schedule: {images: 8000}}\nvariants: {not_run: {}}\n"
        "models:\n- {name: basic, detector: config/detectors/mini_basic_fpn.yaml, init: basic_coco}\n"
        "- {name: bottleneck, detector: config/detectors/mini_basic_fpn.yaml, init: basic_coco, seed: 5}\n"
        "report: {tables: {table2: {eql: [basic, bottleneck], sigmoid: [not_run]}, table5: {vall: [ensemble]}}}\n"
    )
    return path


def run(folder: Path, recipe: Path, *options: str) -> int:
    paths = ["--recipe", str(recipe), "--output", str(folder / "t.md"), "--csv", str(folder / "t.csv")]
    return call_step(parser, main, [*paths, *options])


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "t.csv").open() as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def test_summary_has_a_row_per_evaluation_in_markdown_csv_and_on_screen(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    basic = write_metrics(tmp_path / "basic.json", 30.25)
    assert run(tmp_path, recipe, "--metrics", f"basic={basic}") == 0
    assert rows_of(tmp_path)["basic"]["AP_r_fixed"] == "19.75"
    assert rows_of(tmp_path)["basic"]["detections_per_image"] == "120"
    text = (tmp_path / "t.md").read_text()
    cells = [cell.strip() for cell in next(line for line in text.splitlines() if "| basic" in line).split("|")]
    assert cells[1:7] == ["basic", "masks, LVIS val", "30.2", "20.2", "31.2", "32.2"]
    assert text.strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "not found"),
        ('{"AP": 1', "not complete JSON"),
        ("[1]", "not a metrics file"),
        ('{"AP": 5, "recipe": "other"}', "'other'"),
    ],
)
def test_missing_damaged_and_foreign_metrics_are_rows_that_say_so(
    tmp_path: Path, recipe: Path, content: str | None, told: str
) -> None:
    good, bad = write_metrics(tmp_path / "good.json", 20), tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    assert run(tmp_path, recipe, "--metrics", f"basic={good}", f"bottleneck={bad}") == 0
    rows = rows_of(tmp_path)
    assert rows["bottleneck"]["AP"] == ""
    assert rows["basic"]["AP"] == "20.0"
    note = next(line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("- bottleneck"))
    assert "missing" in note
    assert told in note


def test_summary_in_csv_has_ap_at_one_iou_and_by_size(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 20, AP50=41.5, AP75=19, APs=1, APm=2, APl=None)
    run(tmp_path, recipe, "--metrics", f"basic={path}")
    shown = [rows_of(tmp_path)["basic"][key] for key in ("AP50", "AP75", "AP_s", "AP_m", "AP_l")]
    assert shown == ["41.5", "19.0", "1.0", "2.0", ""]


def test_groups_without_ground_truth_are_dashes(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 20, APr=None, APr_fixed=None)
    run(tmp_path, recipe, "--metrics", f"basic={path}")
    assert rows_of(tmp_path)["basic"]["AP_r"] == ""
    assert "|    – |" in (tmp_path / "t.md").read_text()


def test_coco_evaluation_is_marked_as_not_comparable(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 40, format="coco", iou_type="bbox")
    run(tmp_path, recipe, "--metrics", f"coco_expert={path}")
    text = (tmp_path / "t.md").read_text()
    assert "boxes, COCO val" in text
    assert "cannot be compared" in text


def test_comparison_has_mean_spread_and_difference_from_the_report(tmp_path: Path, recipe: Path) -> None:
    pairs = [f"{n}={write_metrics(tmp_path / f'{n}.json', ap)}" for n, ap in (("basic", 20), ("bottleneck", 22))]
    assert run(tmp_path, recipe, "--table", "table2", "--metrics", *pairs) == 0
    row = rows_of(tmp_path)["eql"]
    assert float(row["AP_report"]) == 22.8
    assert float(row["AP_ours"]) == 21
    assert float(row["AP_sd"]) == pytest.approx(2**0.5)
    assert float(row["AP_difference"]) == pytest.approx(21 - 22.8)
    assert float(row["AP_r_difference"]) == pytest.approx(11 - 10.1)
    assert (row["runs"], row["seeds"], row["images_seen"]) == ("2", "0 5", "8000")
    assert "21.0 ± 1.4" in (tmp_path / "t.md").read_text()
    assert " seeds 0, 5 |" in (tmp_path / "t.md").read_text()


def test_one_seed_does_not_read_as_their_number(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 20)
    assert run(tmp_path, recipe, "--table", "table2", "--metrics", f"basic={path}") == 0
    (ours,) = [line for line in (tmp_path / "t.md").read_text().splitlines() if "| ours " in line]
    assert "seed 0" in [cell.strip() for cell in ours.split("|")]


@pytest.mark.parametrize(
    ("change", "named"),
    [("data: {source: download}", "mini"), ("max_detections: 300", "LVIS"), ("lvis_version: v0.5", "LVIS v1")],
)
def test_figures_of_other_data_or_under_another_cap_are_not_set_beside_the_reports(
    tmp_path: Path, recipe: Path, change: str, named: str
) -> None:
    other = {"data: {source: download}": "data: {source: mini}", "max_detections: 300": "max_detections: 100"}
    text = f"lvis_version: v0.5\n{recipe.read_text()}"
    recipe.write_text(text.replace(change, other.get(change, "lvis_version: v1")))
    cap = 100 if "max" in change else 300
    path = write_metrics(tmp_path / "m.json", 20, max_detections=cap)
    assert run(tmp_path, recipe, "--table", "table2", "--metrics", f"basic={path}") == 0
    rows = rows_of(tmp_path)
    assert rows["eql"]["AP_ours"] == "20.0"
    assert not [column for column in rows["eql"] if column.endswith(("_report", "_difference"))]
    text = (tmp_path / "t.md").read_text()
    assert "22.8" not in text  # the paper's AP
    assert "-2.8" not in text
    assert "ours: missing" not in text
    assert run(tmp_path, recipe, "--metrics", f"basic={path}") == 0
    assert rows_of(tmp_path)["basic"]["evaluated"] == f"masks, {named} val"


def test_published_results_on_v1_stand_beside_a_recipe_on_v1_and_no_other(tmp_path: Path, recipe: Path) -> None:
    rows = "report: {tables: {lvis_v1: {eql: [basic], rfs: [bottleneck]}}}"
    text = recipe.read_text()
    text = text[: text.index("report:")] + rows
    path = write_metrics(tmp_path / "m.json", 20)
    for version in ("v1", "v0.5"):
        recipe.write_text(f"lvis_version: {version}\n{text}\n")
        assert run(tmp_path, recipe, "--table", "lvis_v1", "--metrics", f"basic={path}") == 0
        found, shown = rows_of(tmp_path), (tmp_path / "t.md").read_text()
        assert found["eql"]["AP_ours"] == "20.0"
        if version == "v1":
            assert list(found) == ["softmax", "rfs", "eql", "eqlv2", "seesaw", "seesaw_r101"]
            assert float(found["eql"]["AP_difference"]) == pytest.approx(20 - 18.6)
            assert (found["seesaw"]["AP_report"], found["seesaw"]["AP_r_report"]) == ("26.8", "")
            assert "Published results: Mask R-CNN with FPN on LVIS v1 val" in shown
            assert "| published " in shown
            assert "of the paper" not in shown
        else:
            assert "AP_difference" not in found["eql"]
            assert "The published figures are of LVIS v1 val" in shown
            assert "18.6" not in shown


def test_metrics_under_another_cap_than_the_recipes_are_not_compared(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 20, max_detections=100)
    run(tmp_path, recipe, "--table", "table2", "--metrics", f"basic={path}")
    assert rows_of(tmp_path)["eql"]["AP_ours"] == ""


def test_a_table_without_any_row_on_other_data_is_refused(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(recipe.read_text().replace("source: download", "source: mini"))
    assert run(tmp_path, recipe, "--table", "table1") == 2
    assert "report.tables.table1 names no evaluations" in capsys.readouterr().err


def test_mini_recipe_is_evaluated_on_mini_and_compares_with_no_table(tmp_path: Path) -> None:
    mini = tmp_path / "tiny.yaml"
    mini.write_text("extends: mini.yaml\nname: tiny\n")
    basic = write_metrics(tmp_path / "m.json", 30, max_detections=100)
    expert = write_metrics(tmp_path / "e.json", 40, format="coco", iou_type="bbox")
    assert run(tmp_path, mini, "--metrics", f"basic={basic}", f"coco_expert={expert}") == 0
    assert rows_of(tmp_path)["basic"]["evaluated"] == "masks, mini val"
    assert rows_of(tmp_path)["coco_expert"]["evaluated"] == "boxes, mini COCO val"
    text = (tmp_path / "t.md").read_text()
    assert "LVIS val" not in text
    assert "mini world" in text
    recipe = load_recipe(mini)
    assert not any(names for rows in recipe.report.tables.values() for names in rows.values())


def test_rows_without_figures_are_shown_as_missing(tmp_path: Path, recipe: Path) -> None:
    run(tmp_path, recipe, "--table", "table2")
    rows = rows_of(tmp_path)
    assert list(rows) == ["sigmoid", "eql"]
    assert rows["sigmoid"]["AP_ours"] == ""
    text = (tmp_path / "t.md").read_text()
    assert text.count("ours: missing") == 2
    assert "20.1" in text


def test_box_ap_is_not_put_beside_mask_ap(tmp_path: Path, recipe: Path) -> None:
    path = write_metrics(tmp_path / "m.json", 50, iou_type="bbox")
    run(tmp_path, recipe, "--table", "table2", "--metrics", f"basic={path}")
    assert rows_of(tmp_path)["eql"]["AP_ours"] == ""


def test_unknown_tables_rows_and_repeated_names_are_refused(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_metrics(tmp_path / "m.json", 50)
    assert run(tmp_path, recipe, "--table", "table7") == 2
    assert "table5" in capsys.readouterr().err
    assert run(tmp_path, recipe, "--table", "table5") == 2
    assert "did you mean 'val'" in capsys.readouterr().err
    assert run(tmp_path, recipe, "--metrics", f"a={path}", f"a={path}") == 2
    assert "given twice" in capsys.readouterr().err


def test_published_gains_are_those_that_the_report_states_in_its_text() -> None:
    rows = TABLES["table3"].rows
    assert round(rows["eql_rs_pr"].AP - rows["sigmoid"].AP, 1) == 5.1
    assert round(rows["eql_rs_pr"].APr - rows["sigmoid"].APr, 1) == 11.4
    assert round(rows["eql_ig"].APr - rows["eql"].APr, 1) == 4.7
    assert round(rows["eql_rs"].AP - rows["sigmoid"].AP, 1) == 3.2
    assert TABLES["table2"].rows["eql"] == TABLES["table3"].rows["eql"].__class__(
        "Equalization loss", *[getattr(rows["eql"], key) for key in ("AP", "APr", "APc", "APf")]
    )
    last = TABLES["table4"].rows["multi_scale_masks"]
    assert (last.AP, last.APr, last.APc, last.APf) == (36.4, 25.5, 38.6, 38.1)
    assert TABLES["table5"].rows["test"].AP == 28.9


def test_markdown_cells_are_escaped_and_aligned() -> None:
    lines = markdown_table(["name", "x"], [["a|b", "1.0"], ["c", "10.0"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| a\\|b |  1.0 |"


def test_numbers_are_counts_with_commas_or_one_decimal_and_missing_ones_a_dash() -> None:
    assert [number(value) for value in (1234567, np.int64(4000), 0.05, 12.0)] == ["1,234,567", "4,000", "0.1", "12.0"]
    assert [number(value, signed=True) for value in (3.0, -0.26, 0.0)] == ["+3.0", "-0.3", "+0.0"]
    assert {number(value) for value in (None, float("nan"), pd.NA)} == {MISSING}
    assert [with_spread(1.0, 0.24), with_spread(0.5, np.nan, 2), with_spread(np.nan, np.nan)] == [
        "1.0 ± 0.2",
        "0.50",
        MISSING,
    ]
