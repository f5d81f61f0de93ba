"""The command line of rescore_ensemble: experts through the recipe's tables, metadata, cap, and wrong members."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline_steps import rescore_ensemble
from pipeline_steps.common.cli import call_step
from pipeline_steps.detections.ensemble import EnsembleMember, EnsembleMerger
from pipeline_steps.detections.rescoring import alpha_by_category
from pipeline_steps.detections.table import TableReader, iter_images, read_metadata, read_table
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.precision import summarize
from pipeline_steps.evaluation.results import read_results
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.testing import Ensemble, RescoringAlpha
from tests.detections.samples import A, B, image_of, write_table
from tests.evaluation.worlds import UNKNOWN_CATEGORY, make_world, write_world
from tests.evaluation.worlds import write_table as write_results

FREQUENCIES = {1: "r", 2: "c", 3: "f", 4: "f", 5: "r"}


@pytest.fixture
def world(tmp_path):
    """A recipe, its LVIS categories and category tables, and a command line with four member tables."""
    recipe = {
        "extends": "mini.yaml",
        "name": "sample",
        "datasets_root": str(tmp_path / "data"),
        "ensemble": {"fusion": "nms", "keep_per_image": {"val": 20, "test": 5}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    categories = [
        {"id": i, "name": f"thing{i}", "synset": f"thing{i}.n.01", "frequency": letter, "image_count": 5}
        for i, letter in FREQUENCIES.items()
    ]
    (tmp_path / "lvis.json").write_text(json.dumps({"categories": categories, "images": [], "annotations": []}))
    tables = tmp_path / "data" / "categories"
    tables.mkdir(parents=True)
    header = "source_id,source_name,lvis_synset,relation,verdict,note\n"
    (tables / "coco_to_lvis.csv").write_text(
        f"{header}17,cat,thing3.n.01,equal,use,\n18,dog,thing4.n.01,equal,doubtful,not sure\n"
    )
    (tables / "openimages_to_lvis.csv").write_text(f"{header}/m/01,Thing,thing5.n.01,equal,use,\n")
    classes = tmp_path / "data" / "openimages" / "class-descriptions-boxable.csv"
    classes.parent.mkdir()
    classes.write_text("/m/02,Other\n/m/03,More\n/m/01,Thing\n")  # the third class is LVIS category 5
    images = {
        "basic": [image_of(i, (1, 0.3, A), (3, 0.6, A), (4, 0.2, B)) for i in (2, 1)],
        "bottleneck": [image_of(i, (3, 0.5, A), (4, 0.7, B)) for i in (1, 2)],
        "coco_expert": [image_of(1, (17, 0.9, A), (18, 0.95, B), (1, 0.99, B))],
        "openimages_expert": [image_of(1, (3, 0.4, B), (2, 0.97, B), (5, 0.98, B))],
    }
    argv = ["--recipe", str(tmp_path / "recipe.yaml"), "--categories", str(tmp_path / "lvis.json"), "--split", "val"]
    argv += ["--output", str(tmp_path / "out.parquet"), "--detections"]
    for name, own in images.items():
        path = write_table(tmp_path / f"{name}.parquet", own, arguments={"split": "val", "model": name})
        argv.append(f"{name}={path}")
    return tmp_path, argv


def run(argv):
    return call_step(rescore_ensemble.parser, rescore_ensemble.main, argv)


def test_the_step_merges_models_and_experts_through_the_recipes_tables(world):
    folder, argv = world
    assert run(argv) == 0
    first, second = iter_images(folder / "out.parquet")
    rows = list(zip(first.category_ids.tolist(), first.sources.tolist(), first.rank_scores.round(4).tolist()))
    assert [(category, source) for category, source, _ in rows] == [
        (3, "coco_expert"),  # COCO 17; COCO 18 is doubtful and COCO 1 not in the table
        (4, "bottleneck"),
        (5, "openimages_expert"),  # its own category 3; LVIS has none of its other categories
        (1, "basic"),
    ]
    assert [rank for _, _, rank in rows] == [pytest.approx(x, abs=1e-4) for x in (0.9, 0.7, 0.5, 0.4)]
    assert second.sources.tolist() == ["bottleneck", "basic", "basic"]
    metadata = read_metadata(folder / "out.parquet")
    assert metadata["recipe"] == "sample"
    assert metadata["step"] == "rescore_ensemble"
    assert metadata["arguments"]["split"] == "val"
    assert metadata["arguments"]["keep_per_image"] == 20
    assert metadata["arguments"]["ensemble"]["alpha"] == {"rare": 0.1, "common": 0.05, "frequent": 0.0}
    assert set(metadata["inputs"]) == {
        *("categories", "coco_to_lvis", "openimages_to_lvis", "class-descriptions-boxable"),
        *("basic", "bottleneck", "coco_expert", "openimages_expert"),
    }


def test_running_the_step_again_gives_the_same_bytes(world):
    folder, argv = world
    assert run(argv) == 0
    first = (folder / "out.parquet").read_bytes()
    assert run(argv) == 0
    assert (folder / "out.parquet").read_bytes() == first


def test_the_cap_is_that_of_the_split(world):
    folder, argv = world
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["ensemble"]["keep_per_image"]["val"] = 2
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run(argv) == 0
    assert read_table(folder / "out.parquet").num_rows == 4


def test_rescoring_saves_rare_detections_that_the_final_cap_would_have_cut_from_the_members(world):
    """With the caps of the mini recipe: a member's 350 boxes, none of which overlap, cut as predict_boxes cuts them."""
    folder, argv = world
    recipe = {"extends": "mini.yaml", "datasets_root": str(folder / "data")}
    recipe["ensemble"] = {"members": [{"name": "basic"}], "fusion": "nms"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    caps = load_recipe(folder / "recipe.yaml")
    generator = np.random.default_rng(0)
    categories = generator.integers(1, 6, 350)
    rows = [(c, s, (9 * i, 0, 9 * i + 8, 8)) for i, (c, s) in enumerate(zip(categories, np.linspace(0.9, 0.1, 350)))]
    alpha = {"r": 0.1, "c": 0.05, "f": 0.0}
    best = sorted(rows, key=lambda row: -np.float32(np.float32(row[1]) + alpha[FREQUENCIES[row[0]]]))
    best = best[: caps.ensemble.keep_per_image.test]

    def merged(member_keeps):
        path = write_table(folder / "basic.parquet", [image_of(1, *rows[:member_keeps])])
        assert run([*argv[: argv.index("--detections")], "--detections", f"basic={path}", "--split", "test"]) == 0
        (image,) = iter_images(folder / "out.parquet")
        return [box[0] // 9 for box in image.boxes.tolist()]

    assert merged(caps.testing.keep_per_image) == [box[0] // 9 for _, _, box in best]
    saved = set(merged(caps.testing.keep_per_image)) - set(merged(caps.ensemble.keep_per_image.test))
    assert len(saved) > 5
    assert {FREQUENCIES[categories[int(place)]] for place in saved} == {"r"}


def test_what_val_keeps_beyond_the_cap_of_the_test_server_changes_ap_fixed_only(tmp_path):
    world_truth, results = make_world(3, most=80)
    known = [result for result in results if result["category_id"] != UNKNOWN_CATEGORY]
    truth_file, _ = write_world(tmp_path, (world_truth, known))
    truth = read_ground_truth(truth_file, "bbox")
    alphas = alpha_by_category(truth.category_ids, truth.frequencies, RescoringAlpha())
    ids = {category_id: category_id for category_id in truth.category_ids.tolist()}
    evaluations = {}
    with TableReader(write_results(tmp_path / "member.parquet", known, masks=False)) as member:
        for keep in (15, 60):
            merger = EnsembleMerger([EnsembleMember("basic", member, ids)], Ensemble(members=[]), alphas, keep)
            merged = write_table(tmp_path / f"{keep}.parquet", merger)
            evaluations[keep] = evaluate_lvis(truth, read_results(merged, "bbox"), "bbox", 15, 1000)
    assert np.array_equal(evaluations[15].capped.precision, evaluations[60].capped.precision)
    assert not np.array_equal(evaluations[15].fixed.precision, evaluations[60].fixed.precision)
    assert summarize(evaluations[60].capped, truth.frequencies)["AP"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda argv: argv[:-1], "no file for the members openimages_expert of ensemble.members"),
        (lambda argv: [*argv, "stranger=x.parquet"], "stranger not among ensemble.members (basic, bottleneck"),
        (lambda argv: [*argv, "basic=x.parquet"], "given twice: basic"),
        (lambda argv: [*argv[:-1], "openimages_expert=missing.parquet"], "detections table not found: missing.parquet"),
        (
            lambda argv: [word.replace("val", "test") if word == "val" else word for word in argv],
            "for split 'val', not 'test'",
        ),
        (lambda argv: [word.replace("lvis.json", "none.json") for word in argv], "not found"),
    ],
)
def test_wrong_members_are_one_clear_line_and_no_output(world, capsys, change, message):
    folder, argv = world
    assert run(change(argv)) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out.parquet").exists()


def test_an_experts_table_without_any_shared_category_is_refused(world, capsys):
    folder, argv = world
    write_table(folder / "coco_expert.parquet", [image_of(1, (3, 0.9, A))])
    assert run(argv) == 2
    assert "none of the 1 detections in" in capsys.readouterr().err
    assert not (folder / "out.parquet").exists()


def test_one_shard_of_a_member_is_refused(world, capsys):
    folder, argv = world
    write_table(folder / "basic.parquet", [image_of(1, (3, 0.9, A))], shard={"index": 1, "count": 3})
    assert run(argv) == 2
    assert "is shard 1 of 3: gather all of them first" in capsys.readouterr().err


def test_a_truncated_member_is_named(world, capsys):
    folder, argv = world
    path: Path = folder / "basic.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    assert run(argv) == 2
    assert "basic.parquet is truncated" in capsys.readouterr().err


def test_lvis_categories_without_frequency_are_refused(world, capsys):
    folder, argv = world
    content = json.loads((folder / "lvis.json").read_text())
    for category in content["categories"]:
        del category["frequency"], category["image_count"]
    (folder / "lvis.json").write_text(json.dumps(content))
    assert run(argv) == 2
    assert "frequency" in capsys.readouterr().err
