"""Names of results: one home, patterns that name files, and what a recipe makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.run.data_files import DatasetPaths
from pipeline_steps.run.result_files import Pattern, ResultFiles

ROOT = Path(__file__).parents[2]
MINI = "config/detectors/mini_basic_fpn.yaml"


@pytest.fixture
def recipe() -> Recipe:
    """Two models, of which one is a member; two experts, of which one is; a pre-training that nothing starts from."""
    coco = {"detector": MINI, "datasets": ["coco_train"]}
    return resolve_recipe(
        {
            "extends": "mini.yaml",
            "pretraining": [{"name": "coco", **coco}, {"name": "unused", **coco}],
            "weights": [{"name": "imagenet", "file": "{datasets_root}/weights/x.pth", "layout": "torchvision_resnet"}],
            "models": [
                {"name": "a", "detector": MINI, "init": "coco"},
                {"name": "b", "detector": MINI, "init": "imagenet"},
            ],
            "experts": [
                {"name": "of_coco", **coco, "category_table": "coco"},
                {
                    "name": "idle",
                    "detector": MINI,
                    "datasets": ["openimages_own_train"],
                    "category_table": "openimages",
                },
            ],
            "ensemble": {"members": [{"name": "of_coco"}, {"name": "a"}]},
            "testing": {"mask_models": ["b"]},
            "report": {"tables": {}},
        }
    )


def test_what_a_recipe_makes_is_told_in_the_order_of_the_recipe(recipe):
    files = ResultFiles(recipe)
    assert files.predicted == ["a", "b", "of_coco"]
    assert files.trained == ["coco", "a", "b", "of_coco"]
    assert {name: str(path) for name, path in files.evaluated.items()} == {
        "a": "results/mini/predictions/val/a/detections.parquet",
        "b": "results/mini/predictions/val/b/detections.parquet",
        "of_coco": "results/mini/predictions/val/of_coco/boxes.parquet",
        "ensemble": "results/mini/ensemble/val/detections.parquet",
    }
    assert files.masked == ["predictions/val/a", "predictions/val/b", "ensemble/val", "ensemble/test"]
    assert list(files.members_boxes("test")) == ["of_coco", "a"]
    assert list(files.mask_models("ensemble/val")) == ["b"]
    assert list(files.mask_models("predictions/val/a")) == ["a"]
    assert files.initial_weights("a") == [Path("results/mini/pretrain/coco/model.pth")]
    assert files.initial_weights("b") == [Path("results/mini/weights/imagenet.pth")]
    assert files.initial_weights("coco") == []


def test_a_row_of_a_table_that_nothing_evaluates_is_refused(recipe):
    values = recipe.model_dump()
    values["report"]["tables"] = {"table5": {"val": ["ensemble", "idle"]}}
    with pytest.raises(ValueError, match="'idle' is neither a model nor a variant, neither an expert of the ensemble"):
        Recipe.model_validate(values)


def test_a_pattern_names_a_file_only_with_all_its_wildcards():
    pattern = Pattern(Path("results/{odd}"), "{variant}predictions/{split}/x.parquet")
    assert str(pattern) == "results/{odd}/{variant}predictions/{split}/x.parquet"
    assert pattern.of(split="val") == Path("results/{odd}/predictions/val/x.parquet")
    assert pattern.of(split="val", variant="variants/v/") == Path("results/{odd}/variants/v/predictions/val/x.parquet")
    with pytest.raises(KeyError):
        pattern.of(variant="variants/v/")


def test_rules_name_no_result_of_their_own():
    spelled = r"results/|\.parquet|\.pth|\.tsv|\.log\b|\w/\w+\.html|\.zip|metrics\.json|submission\.json|\.csv|\.png"
    for file in (ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")):
        strings = re.findall(r'"([^"\n]*)"', re.sub(r"#.*|\{[^{}]*:q\}", "", file.read_text()))
        assert [text for text in strings if re.search(spelled, text)] == [], file.name


@pytest.mark.parametrize("source", ["download", "mini"])
def test_only_downloaded_data_have_manifests_of_their_checks(recipe, source):
    data = recipe.data.model_copy(update={"source": source})
    files = DatasetPaths(recipe.model_copy(update={"data": data})).everything()
    assert any("manifests" in path.parts for path in files) == (source == "download")
    assert len([path for path in files if path.name.startswith("openimages_own")]) == 1
