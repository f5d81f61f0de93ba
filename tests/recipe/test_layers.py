"""Layers of a recipe: what they merge, replace, change by name and take away, and what they refuse to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe, load_recipe, resolve_recipe
from pipeline_steps.recipe.layers import merged
from pipeline_steps.recipe.load import CONFIG_FOLDER

TREES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), min_size=1, max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def changed(base: str = "mini.yaml", **layer: Any) -> Recipe:
    return resolve_recipe({"extends": base, **layer})


def places(tree: Any, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no mapping, by its place."""
    if not isinstance(tree, dict):
        return {at: tree}
    return {place: value for key, inner in tree.items() for place, value in places(inner, (*at, key)).items()}


@given(MAPPINGS, MAPPINGS)
def test_every_value_of_the_upper_layer_stands_and_those_of_the_lower_one_that_it_leaves_alone(base, overlay):
    above, below = places(overlay), places(base)

    def hidden(place: tuple[str, ...]) -> bool:
        """Whether the upper layer says something at the place, above or below it."""
        return any(place[: len(said)] == said or said[: len(place)] == place for said in above)

    assert places(merged(base, overlay)) == {**{p: v for p, v in below.items() if not hidden(p)}, **above}


def test_entries_of_named_lists_change_go_and_are_added_while_the_others_stay_as_they_were():
    base = changed()
    recipe = changed(
        models={
            "third": {"detector": "config/detectors/mini_basic_fpn.yaml"},
            "bottleneck": None,
            "basic": {"seed": 5, "training": {"schedule": {"images": 7}}},
        },
        experts={"coco_expert": None},
        ensemble={"members": {"bottleneck": None, "coco_expert": None, "basic": {"weight": 2}}},
        pretraining={"bottleneck_coco": None},
    )
    assert [model.name for model in recipe.models] == ["basic", "third"]
    assert recipe.model("basic") == base.model("basic").model_copy(
        update={"seed": 5, "training": {"schedule": {"images": 7}}}
    )
    assert [(member.name, member.weight) for member in recipe.ensemble.members] == [
        ("basic", 2),
        ("openimages_expert", 1),
    ]
    assert recipe.experts == base.experts[1:]
    assert recipe.pretraining == base.pretraining[:1]


def test_a_layer_above_changes_what_a_layer_below_has_changed(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: mini.yaml\nmodels: {third: {detector: a.yaml, seed: 1}}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nmodels: {third: {detector: b.yaml}, basic: {seed: 2}}\n")
    recipe = load_recipe(tmp_path / "b.yaml")
    assert [(m.name, m.seed) for m in recipe.models] == [("basic", 2), ("bottleneck", None), ("third", 1)]
    assert recipe.model("third").detector == "b.yaml"


def test_null_takes_away_entries_of_mappings_and_values_whose_default_then_holds():
    base = changed("mini_ablations.yaml")
    comparisons = base.report.ablations.comparisons
    recipe = changed(
        "mini_ablations.yaml",
        report={"ablations": {"comparisons": {"softmax": None}}, "tables": {"table1": None}},
        training={"schedule": {"images": None}},
    )
    assert recipe.report.ablations.comparisons == {k: v for k, v in comparisons.items() if k != "softmax"}
    assert recipe.report.tables == {name: rows for name, rows in base.report.tables.items() if name != "table1"}
    assert recipe.training.schedule.images == 1_440_000 != base.training.schedule.images


def test_the_example_of_the_documentation_does_what_it_says():
    page = (CONFIG_FOLDER / "README.md").read_text()
    example = yaml.safe_load(next(text for text in page.split("```")[1::2] if text.startswith("yaml\n  extends"))[4:])
    base, recipe = changed("challenge.yaml"), resolve_recipe(example)
    assert [model.name for model in recipe.models] == ["x101"]
    assert recipe.training_of(recipe.model("x101")).images_per_batch == 32
    assert recipe.ensemble.members == [member for member in base.ensemble.members if member.name != "se154"]


def test_null_is_a_value_where_the_key_has_it():
    assert changed(data={"openimages_own": {"max_images": None}}).data.openimages_own.max_images is None
    assert changed(compute={"gpu_memory_gb": None}).compute.gpu_memory_gb is None


def test_a_variant_takes_members_and_values_from_the_ensemble_that_it_is_laid_over():
    recipe = changed(variants={"less": {"ensemble": {"members": {"coco_expert": None}, "alpha": {"rare": None}}}})
    less = recipe.variant("less").ensemble
    assert [m.name for m in less.members] == [m.name for m in recipe.ensemble.members if m.name != "coco_expert"]
    assert less.alpha.rare == 0.1


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"models": {"botleneck": None}}, "models.botleneck: null takes away what is inherited, and there is no"),
        ({"models": {"botleneck": None}}, "did you mean 'bottleneck'?"),
        ({"models": {"basic": {"training": {"loss": None}}}}, "models.basic.training.loss: null takes away"),
        ({"models": {"basic": {"trainig": {}}}}, "did you mean 'training'?"),
        ({"models": {"basic": 3}}, "models.0: "),
        ({"report": {"tables": {"table3": None}}}, "report.tables.table3: null takes away"),
        ({"testing": None}, "testing is empty: give a key of it, or leave it out"),
        ({"models": None}, "models: Field required"),
        (
            {"models": {"basic": None}},
            "ensemble member 'basic' is neither a model nor an expert (configuration takes away basic",
        ),
        ({"pretraining": {"basic_coco": None}}, "basic: init 'basic_coco' is neither a model of pretraining"),
        (
            {"experts": {"coco_expert": None}, "report": {"tables": {"table5": {"val": ["coco_expert"]}}}},
            "'coco_expert' is neither a model nor an expert",
        ),
        (
            {"variants": {"a": {"ensemble": {"members": {"nobody": None}}}}},
            "variants.a.ensemble.members.nobody: null takes away",
        ),
        ({"variants": {"a": {"testing": {"shards": {"x": None}}}}}, "variants.a.testing"),
    ],
)
def test_what_cannot_be_taken_away_or_is_still_named_is_refused(layer, expected):
    with pytest.raises(UserError) as error:
        changed(**layer)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_files_lie_over_each_other_in_their_order_and_over_what_the_last_extends(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "extends: challenge.yaml\nname: own\nseed: 1\nexperts: {coco_expert: {seed: 4}}\n"
    )
    (tmp_path / "more.yaml").write_text("extends: mini.yaml\nseed: 2\nmodels: {bottleneck: {seed: 3}}\n")
    recipe = resolve_recipe({"recipe_version": 9}, files=[tmp_path / "own.yaml", tmp_path / "more.yaml"])
    assert (recipe.name, recipe.seed, recipe.recipe_version) == ("own", 2, 9)
    assert recipe.datasets_root == "datasets/mini"
    assert (recipe.model("bottleneck").seed, recipe.model("coco_expert").seed) == (3, 4)
