"""The typed recipe: layers, refusals with the nearest name, and derived files that cannot drift."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline_steps import document_config
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe, load_recipe, resolve_recipe
from pipeline_steps.recipe.detectors import detector_files
from pipeline_steps.recipe.document import readme_with_keys, sections
from pipeline_steps.recipe.layers import merged
from pipeline_steps.recipe.load import recipe_text
from pipeline_steps.run import stage_settings
from pipeline_steps.run.result_files import ResultFiles

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_in_config_is_valid_and_its_detectors_exist(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(f"config/{name}")
    for model in (*recipe.pretraining, *recipe.models, *recipe.experts):
        assert detector_files(recipe, model.name)[0] == model.detector


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_trades_time_for_memory_that_it_does_not_need(name):
    recipe = resolve_recipe({"extends": name})
    models = (*recipe.pretraining, *recipe.models, *recipe.experts)
    assert not [model.name for model in models if recipe.training_of(model).activation_checkpointing]


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The schema that the step writes for editors."""
    path = tmp_path_factory.mktemp("schema") / "recipe.schema.json"
    page = (ROOT / "config/README.md").read_bytes()
    document_config.main(document_config.parser.parse_args(["--schema", str(path)]))
    assert (ROOT / "config/README.md").read_bytes() == page
    return json.loads(path.read_text())


def test_schema_for_editors_has_every_key_of_the_declaration_with_its_description(schema):
    for section in sections(Recipe):
        properties = dict(
            schema["properties"] if section is Recipe else schema["$defs"][section.__name__]["properties"]
        )
        if section is Recipe:
            assert properties.pop("extends")
        assert properties.keys() == section.model_fields.keys()
        for name, field in section.model_fields.items():
            assert " ".join(field.description.split()) in " ".join(
                json.dumps(properties[name], ensure_ascii=False).replace("\\n", " ").replace('\\"', '"').split()
            )


def test_schema_for_editors_takes_every_recipe_and_every_layer_that_the_pipeline_takes(schema):
    validator = Draft202012Validator(schema)
    for name in RECIPES:
        assert list(validator.iter_errors(yaml.safe_load((ROOT / "config" / name).read_text()))) == []
    taken = {"models": {"basic": None, "bottleneck": {"seed": 1}}, "report": {"tables": {"table5": None}}, "seed": None}
    assert list(validator.iter_errors({"extends": "mini.yaml", **taken})) == []
    for wrong in ({"testing": {"box_scale": [1]}}, {"testing": None}, {"models": {"basic": {"loss": "eql"}}}):
        assert list(validator.iter_errors(wrong))
        with pytest.raises(UserError):
            resolve_recipe({"extends": "mini.yaml", **wrong})


def test_key_tables_are_what_the_declaration_generates():
    page = (ROOT / "config/README.md").read_text()
    assert page == readme_with_keys(page), "run: python -m pipeline_steps.document_config"


def test_every_key_is_described():
    assert not [
        f"{section.__name__}.{name}"
        for section in sections(Recipe)
        for name, field in section.model_fields.items()
        if not field.description
    ]


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"testing": {"box_scale": [1]}}, "unknown key 'testing.box_scale'; did you mean 'box_scales'?"),
        ({"ensembel": {}}, "did you mean 'ensemble'?"),
        ({"training": {"coco_ignore": {"betta": 1}}}, "did you mean 'beta'?"),
        ({"seed": "many"}, "seed: "),
        ({"training": {"loss": "focal"}}, "training.loss: "),
        ({"ensemble": {"members": [{"name": "nobody"}]}}, "'nobody' is neither a model nor an expert"),
        ({"testing": {"mask_models": ["nobody"]}}, "'nobody' is not a model"),
        ({"data": {"openimages": {"enabled": False}}}, "data.openimages.enabled is false"),
        (
            {
                "experts": [
                    {"name": "e", "detector": "d", "category_table": "openimages", "datasets": ["openimages_train"]}
                ]
            },
            "category_table 'openimages' maps the categories of openimages_own_train",
        ),
        (
            {"experts": [{"name": "e", "detector": "d", "category_table": "coco", "datasets": ["coco_train"] * 2}]},
            "set datasets to [coco_train]",
        ),
        (
            {"variants": {"a": {"testing": {"box_scale": [1]}}}},
            "variants.a.testing: unknown key 'box_scale'; did you mean",
        ),
        (
            {"variants": {"a": {"ensemble": {"members": [{"name": "x"}]}}}},
            "variants.a: ensemble member 'x' is neither a model",
        ),
        (
            {"variants": {"a": {"testing": {"mask_models": ["x"]}}}},
            "variants.a: testing.mask_models: 'x' is not a model",
        ),
        ({"variants": {"basic": {}}}, "variants: 'basic' is not valid"),
        (
            {"report": {"tables": {"table4": {"baseline": ["x"]}}}},
            "report.tables.table4.baseline: 'x' is neither a model nor a var",
        ),
    ],
)
def test_wrong_keys_and_values_are_refused_with_a_hint(overlay, expected):
    with pytest.raises(UserError) as error:
        resolve_recipe({"extends": "mini.yaml", **overlay})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_misspelt_key_in_the_overrides_of_one_model_names_model_and_nearest_key():
    values = {
        "extends": "mini.yaml",
        "models": [{"name": "basic", "detector": "d.yaml", "training": {"shedule": {"images": 1}}}],
        "ensemble": {"members": [{"name": "basic"}]},
    }
    with pytest.raises(UserError, match=r"training of basic: unknown key 'shedule'; did you mean 'schedule'"):
        resolve_recipe(values)


def test_unknown_initial_weights_are_refused():
    values = {"models": [{"name": "a", "detector": "d.yaml", "init": "b"}], "ensemble": {"members": [{"name": "a"}]}}
    with pytest.raises(UserError, match="init 'b' is neither a model of pretraining"):
        resolve_recipe({"name": "x", **values})


def test_names_must_be_unique_across_all_lists():
    model = {"name": "a", "detector": "d.yaml"}
    with pytest.raises(UserError, match="'a' is used twice"):
        resolve_recipe(
            {"name": "x", "pretraining": [model], "models": [model], "ensemble": {"members": [{"name": "a"}]}}
        )


def test_layers_merge_mappings_and_replace_lists():
    assert merged({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 1}


def test_overrides_of_a_model_are_laid_over_the_training_defaults():
    recipe = resolve_recipe({"extends": "mini.yaml", "training": {"schedule": {"images": 123}}})
    assert recipe.training_of(recipe.model("basic_coco")).loss == "softmax"
    assert recipe.training_of(recipe.model("basic_coco")).schedule.images == 123
    assert recipe.training_of(recipe.model("basic")).loss == "eql"


def test_variant_is_the_recipe_with_other_testing_and_merging_and_reads_back(tmp_path):
    overrides = {
        "testing": {"mask_scales": [96], "keep_per_image": 9},
        "ensemble": {"alpha": {"rare": 0}, "keep_per_image": {"val": 77}},
    }
    recipe = resolve_recipe({"extends": "mini.yaml", "variants": {"a": overrides}})
    variant = recipe.variant("a")
    assert (variant.testing.mask_scales, variant.testing.box_scales) == ([96], recipe.testing.box_scales)
    assert variant.testing.keep_per_image == 9
    assert variant.ensemble.keep_per_image.model_dump() == {"val": 77, "test": 100}
    assert variant.ensemble.alpha.model_dump() == {"rare": 0, "common": 0.05, "frequent": 0}
    assert (variant.name, variant.models) == (recipe.name, recipe.models)
    (tmp_path / "recipe.yaml").write_text(recipe_text(variant))
    assert load_recipe(tmp_path / "recipe.yaml") == variant


def test_boxes_made_with_equal_settings_are_shared_with_the_recipe_or_the_first_variant():
    one_scale = {"testing": {"box_scales": [128], "mask_scales": [96]}}
    variants = {"a": {"testing": {"mask_scales": [96]}}, "b": one_scale, "c": {**one_scale, "ensemble": {"iou": 0.6}}}
    files = ResultFiles(resolve_recipe({"extends": "mini.yaml", "variants": variants}))
    assert list(files.tested) == ["", "variants/a/", "variants/b/", "variants/c/"]
    boxes = [str(files.members_boxes("val", folder)["basic"]) for folder in files.tested]
    origins = [file.removeprefix("results/mini/").removesuffix("predictions/val/basic/boxes.parquet") for file in boxes]
    assert origins == ["", "", "variants/b/", "variants/b/"]


@pytest.mark.parametrize(("overlay", "base"), [("table4.yaml", "challenge.yaml"), ("mini_table4.yaml", "mini.yaml")])
def test_recipes_of_table_4_share_models_predictions_and_ensemble_with_the_entry(overlay, base):
    table, entry = resolve_recipe({"extends": overlay}), resolve_recipe({"extends": base})
    assert table.name == entry.name
    for model in (*entry.pretraining, *entry.models, *entry.experts):
        assert table.model(model.name) == model
        assert stage_settings.training_settings(table, model.name) == stage_settings.training_settings(
            entry, model.name
        )
    assert stage_settings.boxes_settings(table) == stage_settings.boxes_settings(entry)
    for split in ("val", "test"):
        assert stage_settings.ensemble_settings(table, split) == stage_settings.ensemble_settings(entry, split)
    assert stage_settings.masks_settings(table) == stage_settings.masks_settings(entry)
    assert table.mask_models() == entry.mask_models()


def test_every_row_of_table_4_adds_one_thing_to_the_row_above():
    """Members, whether they learned from OpenImages, scales of boxes, re-scoring and experts, scales of masks."""
    recipe = resolve_recipe({"extends": "table4.yaml"})
    facts = []
    for names in recipe.report.tables["table4"].values():
        row = recipe if names == ["ensemble"] else recipe.variant(*names)
        models = [m for m in row.models if m.name in {member.name for member in row.ensemble.members}]
        assert row.mask_models() == [model.name for model in models]
        facts.append(
            (
                sorted({Path(model.detector).stem for model in models}),
                {dataset for model in models for dataset in model.datasets},
                len(row.testing.box_scales),
                (row.ensemble.alpha.rare, len(row.ensemble.members) - len(models)),
                len(row.testing.mask_scales),
            )
        )
    x101, both = ["x101_dcn_fpn"], ["se154_dcn_fpn", "x101_dcn_fpn"]
    lvis, more = {"lvis_train"}, {"lvis_train", "openimages_train"}
    assert facts == [
        (x101, lvis, 1, (0, 0), 1),
        (both, lvis, 1, (0, 0), 1),
        (both, more, 1, (0, 0), 1),
        (both, more, 5, (0, 0), 1),
        (both, more, 5, (0.1, 2), 1),
        (both, more, 5, (0.1, 2), 5),
    ]


def test_extends_that_goes_round_or_nowhere_is_one_message(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match="circular"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "c.yaml")


@pytest.mark.parametrize("content", ["[1, 2]", "a: [1", ""])
def test_files_that_are_no_recipe_are_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_recipe(path)


def test_resolved_recipe_reads_back_equal(tmp_path):
    recipe = resolve_recipe({"extends": "mini.yaml"})
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_missing_base_of_a_detector_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d.yaml").write_text("_BASE_: base.yaml\n")
    recipe = resolve_recipe(
        {"name": "x", "models": [{"name": "a", "detector": "d.yaml"}], "ensemble": {"members": [{"name": "a"}]}}
    )
    with pytest.raises(UserError, match=r"base\.yaml"):
        detector_files(recipe, "a")
    Path("base.yaml").write_text(yaml.safe_dump({"MODEL": {}}))
    assert detector_files(recipe, "a") == ["d.yaml", "base.yaml"]


def test_slices_follow_what_decides_a_stage_and_nothing_else():
    base = resolve_recipe({"extends": "mini.yaml"})

    def changed(**overlay):
        return resolve_recipe({"extends": "mini.yaml", **overlay})

    weights = changed(ensemble={"alpha": {"rare": 0.3}})
    assert stage_settings.ensemble_settings(weights, "val") != stage_settings.ensemble_settings(base, "val")
    assert stage_settings.training_settings(weights, "basic") == stage_settings.training_settings(base, "basic")
    assert stage_settings.boxes_settings(weights) == stage_settings.boxes_settings(base)
    comfort = changed(compute={"threads": 2}, training={"log_images": 8, "loader_workers": 1})
    assert stage_settings.training_settings(comfort, "basic") == stage_settings.training_settings(base, "basic")
    seed = changed(seed=5)
    assert stage_settings.training_settings(seed, "basic") != stage_settings.training_settings(base, "basic")
    members_keep = changed(testing={"keep_per_image": 77})
    assert stage_settings.boxes_settings(members_keep) != stage_settings.boxes_settings(base)
    assert stage_settings.ensemble_settings(members_keep, "val") == stage_settings.ensemble_settings(base, "val")
    keep = changed(ensemble={"keep_per_image": {"val": 77}})
    assert stage_settings.boxes_settings(keep) == stage_settings.boxes_settings(base)
    assert stage_settings.ensemble_settings(keep, "val") != stage_settings.ensemble_settings(base, "val")
    assert stage_settings.ensemble_settings(keep, "test") == stage_settings.ensemble_settings(base, "test")


@pytest.mark.parametrize("in_variant", [False, True])
def test_a_cap_of_members_for_each_split_is_refused_with_what_to_write(in_variant):
    old = {"testing": {"keep_per_image": {"val": 400, "test": 50}}}
    values = {"extends": "mini.yaml", **({"variants": {"a": old}} if in_variant else old)}
    advice = r"keep_per_image: one number for both .* is ensemble: \{keep_per_image: \{val: 400, test: 50\}\}"
    with pytest.raises(UserError, match=advice):
        resolve_recipe(values)


def test_inference_runs_in_the_precision_of_each_models_training_unless_told_otherwise():
    recipe = resolve_recipe({"extends": "challenge.yaml"})
    assert {recipe.test_precision(model.name) for model in (*recipe.models, *recipe.experts)} == {"bf16"}
    values = {"extends": "mini.yaml", "training": {"precision": "fp16"}}
    experts = [{**e.model_dump(), "init": "", "training": {"precision": "fp32"}} for e in recipe.experts]
    mixed = resolve_recipe({**values, "experts": experts})
    assert [mixed.test_precision(name) for name in ("basic", "coco_expert")] == ["fp16", "fp32"]
    chosen = resolve_recipe({**values, "testing": {"precision": "bf16"}})
    assert chosen.test_precision("basic") == "bf16"
