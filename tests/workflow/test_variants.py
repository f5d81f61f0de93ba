"""Rows of a table that are other ways of testing the same models: run for real on the smallest recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

ALONE = {"members": [{"name": "basic"}], "alpha": {"rare": 0, "common": 0}}
TABLE = {
    "extends": "smoke.yaml",
    "variants": {
        "one_scale": {"testing": {"box_scales": [96], "mask_models": ["basic"]}, "ensemble": ALONE},
        "alone": {"testing": {"mask_models": ["basic"]}, "ensemble": ALONE},
    },
    "report": {"tables": {"table4": {"openimages": ["one_scale"], "multi_scale_boxes": ["alone"]}}},
}


@pytest.fixture(scope="module")
def table4(smoke: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the finished smallest recipe, with the overlay ``table4.yaml``."""
    copied = smoke.copy(tmp_path_factory.mktemp("variants") / "checkout")
    (copied.folder / "table4.yaml").write_text(yaml.safe_dump(TABLE))
    return copied


def metrics(checkout: Checkout, name: str) -> dict[str, float | None]:
    content = json.loads((checkout.folder / f"results/smoke/evaluation/{name}/metrics.json").read_text())
    return {key: value for key, value in content.items() if key.startswith("AP")}


def test_variants_train_nothing_predict_only_what_is_new_and_give_the_rows_of_the_table(table4):
    arguments = ("--configfile", "table4.yaml", "--", "table4")
    assert table4.planned(*arguments) == {
        "predict_boxes": 2,  # two shards of the one scale; the other variant has the recipe's own boxes
        "gather_boxes": 1,
        "rescore_ensemble": 2,
        "predict_masks": 4,
        "gather_masks": 2,
        "evaluate_lvis": 2,
        "tabulate_table": 1,
        "table4": 1,
    }
    result = table4.run("--cores", "2", *arguments)
    assert result.returncode == 0, result.stdout[-6000:]

    assert metrics(table4, "alone") == metrics(table4, "basic")
    boxes = Path("predictions/val/basic/boxes.parquet")
    results = table4.folder / "results/smoke"
    assert (results / "variants/one_scale" / boxes).read_bytes() != (results / boxes).read_bytes()
    assert not (results / "variants/alone" / boxes).exists()

    table = (results / "report/table4.md").read_text()
    assert table.count(" seed 0 ") == 2  # the rows that the recipe names, on data that are not the paper's
    assert "missing" not in table
    assert table4.planned(*arguments) == {}
    assert table4.planned("--configfile", "config/smoke.yaml", "--", "all") == {}
