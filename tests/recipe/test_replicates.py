"""Entries with seeds stand for one model per seed, paired with the pre-training of the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe, resolve_recipe
from pipeline_steps.recipe.load import recipe_text
from pipeline_steps.run.result_files import ResultFiles
from pipeline_steps.starting.messages import end_banner, plan_banner

DETECTOR = "config/detectors/mini_basic_fpn.yaml"


def make(**changes: Any) -> Recipe:
    values = {
        "extends": "mini.yaml",
        "pretraining": [
            {
                "name": "coco",
                "detector": DETECTOR,
                "datasets": ["coco_train"],
                "seeds": [3, 5],
                "training": {"loss": "softmax", "schedule": {"images": 100}},
            }
        ],
        "models": [
            {"name": "plain", "detector": DETECTOR, "seed": 9},
            {"name": "scratch", "detector": DETECTOR, "seeds": [5, 3]},
            {
                "name": "tuned",
                "detector": DETECTOR,
                "seeds": [3, 5],
                "init": "coco",
                "training": {"schedule": {"images": 60}},
            },
        ],
        "experts": [],
        "ensemble": {"members": [{"name": "tuned_s3"}]},
        **changes,
    }
    return resolve_recipe(values)


def test_every_seed_becomes_a_model_of_its_own_in_the_order_given():
    recipe = make()
    assert [(m.name, recipe.seed_of(m), m.replicate_of) for m in recipe.models] == [
        ("plain", 9, ""),
        ("scratch_s5", 5, "scratch"),
        ("scratch_s3", 3, "scratch"),
        ("tuned_s3", 3, "tuned"),
        ("tuned_s5", 5, "tuned"),
    ]
    assert [(m.name, m.seed) for m in recipe.pretraining] == [("coco_s3", 3), ("coco_s5", 5)]


def test_a_replicate_starts_from_the_pretraining_of_its_seed_and_keeps_the_entrys_settings():
    recipe = make()
    assert recipe.model("tuned_s5").init == "coco_s5"
    assert recipe.training_of(recipe.model("tuned_s5")).schedule.images == 60
    assert recipe.training_of(recipe.model("coco_s5")).loss == "softmax"


def test_images_seen_count_those_of_the_pretraining():
    recipe = make()
    assert recipe.images_seen(recipe.model("tuned_s3")) == 160
    assert recipe.images_seen(recipe.model("scratch_s3")) == recipe.training.schedule.images


def test_replicates_of_a_setting_or_the_one_model_of_that_name():
    recipe = make()
    assert [m.name for m in recipe.replicates("tuned")] == ["tuned_s3", "tuned_s5"]
    assert [m.name for m in recipe.replicates("plain")] == ["plain"]


def test_rows_of_the_reports_tables_name_all_replicates():
    recipe = make(report={"tables": {"table3": {"eql_pr": ["tuned"], "eql": ["plain", "scratch"]}}})
    assert recipe.report.tables["table3"] == {
        "eql_pr": ["tuned_s3", "tuned_s5"],
        "eql": ["plain", "scratch_s5", "scratch_s3"],
    }


def test_the_plan_names_replicates_once_with_their_number():
    text = plan_banner(ResultFiles(make()))
    assert "LVIS models:       plain, scratch (2 seeds), tuned (2 seeds)\n" in text
    assert "COCO pre-training: coco (2 seeds)\n" in text


def test_the_end_of_a_run_names_the_page_of_the_comparison(tmp_path: Path):
    assert "comparison" not in end_banner(ResultFiles(make(), tmp_path))
    page = tmp_path / "report/ablations/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("")
    assert f"comparison: {page}" in " ".join(end_banner(ResultFiles(make(), tmp_path)).split())


def test_a_resolved_recipe_reads_back_as_it_was():
    recipe = make()
    assert resolve_recipe(yaml.safe_load(recipe_text(recipe))) == recipe


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "a", "detector": DETECTOR, "seeds": [1, 1]}, "a: duplicate seed"),
        ({"name": "a", "detector": DETECTOR, "seeds": [1], "seed": 2}, "a: set seed or seeds, not both"),
        ({"name": "a", "detector": DETECTOR, "seeds": [3, 4, 6], "init": "coco"}, "pre-training coco has no seed 4, 6"),
        ({"name": "a", "detector": DETECTOR, "init": "coco"}, "init 'coco' is neither a model of pretraining"),
        ({"name": "a", "detector": DETECTOR, "seeds": ["x"]}, "models.0.seeds.0"),
        ({"name": "a", "detector": DETECTOR, "seeds": 3}, "models.0.seeds"),
        ({"name": "a", "detector": DETECTOR, "seeds": [-1]}, "a: negative seed"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(entry, expected):
    with pytest.raises(UserError) as error:
        make(models=[entry], ensemble={"members": [{"name": "a"}]})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_comparisons_of_unknown_settings_are_refused():
    with pytest.raises(UserError, match=r"report\.ablations\.comparisons: 'tune' is not a model"):
        make(report={"ablations": {"comparisons": {"scratch": ["tune"]}}})
