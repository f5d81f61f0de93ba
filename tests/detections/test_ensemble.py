"""The re-scored ensemble: mapping of experts, weights, merging, cap, and the step's command line."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pytest
import torch
from torchvision.ops import nms as torchvision_nms

from pipeline_steps.common.errors import UserError
from pipeline_steps.detections import table_writer
from pipeline_steps.detections.ensemble import EnsembleMember, EnsembleMerger, check_members
from pipeline_steps.detections.rescoring import alpha_by_category
from pipeline_steps.detections.table import TableReader
from pipeline_steps.recipe.testing import Ensemble, RescoringAlpha
from tests.detections.samples import A, B, C, image_of, random_image, write_table

FREQUENCIES = {1: "r", 2: "c", 3: "f", 4: "f", 5: "r"}
ALPHAS = alpha_by_category(FREQUENCIES, FREQUENCIES.values(), RescoringAlpha())
IDENTITY = {category_id: category_id for category_id in FREQUENCIES}
PLAIN = Ensemble(members=[])
NO_ALPHA = np.where(np.isnan(ALPHAS), np.nan, 0)


@pytest.fixture
def merge(tmp_path):
    """Merges images given as {member: [images]}; returns the merged images."""
    with ExitStack() as stack:

        def run(tables, settings=PLAIN, alphas=ALPHAS, keep=300, maps=None, weights=None, experts=()):
            members = [
                EnsembleMember(
                    name,
                    stack.enter_context(TableReader(write_table(tmp_path / f"{name}.parquet", images))),
                    (maps or {}).get(name, IDENTITY),
                    name in experts,
                    (weights or {}).get(name, 1.0),
                )
                for name, images in tables.items()
            ]
            return list(EnsembleMerger(members, settings, alphas, keep))

        yield run


def test_the_merged_table_is_nms_per_category_then_rescoring_then_the_cap(merge):
    rng = np.random.default_rng(0)
    tables = {name: [random_image(rng, i, 40) for i in range(3)] for name in ("one", "two", "three")}
    merged = merge(tables, keep=30)
    assert [image.image_id for image in merged] == [0, 1, 2]
    for image in merged:
        rows = []
        parts = [tables[name][image.image_id].sorted() for name in tables]
        boxes = np.concatenate([part.boxes for part in parts]).astype(np.float64)
        scores = np.concatenate([part.scores for part in parts])
        categories = np.concatenate([part.category_ids for part in parts])
        for category in FREQUENCIES:
            own = np.flatnonzero(categories == category)
            # All members have the same scores here: torchvision sorts stably, so the earlier member wins.
            kept = torchvision_nms(torch.from_numpy(boxes[own]), torch.from_numpy(scores[own].astype(np.float64)), 0.5)
            alpha = {"r": 0.1, "c": 0.05, "f": 0.0}[FREQUENCIES[category]]
            rows += [(np.float32(float(scores[i]) + alpha), scores[i], -i, category) for i in own[kept.numpy()]]
        rows = sorted(rows, reverse=True)[:30]
        np.testing.assert_array_equal(image.rank_scores, [row[0] for row in rows])
        np.testing.assert_array_equal(image.scores, [row[1] for row in rows])
        np.testing.assert_array_equal(image.boxes, [boxes[-row[2]] for row in rows])
        np.testing.assert_array_equal(image.category_ids, [row[3] for row in rows])
        assert image.sources.tolist() == [list(tables)[-row[2] // 40] for row in rows]


def test_with_the_cap_binding_a_rare_detection_takes_the_place_of_the_frequent_one_it_passes(merge):
    tables = {"one": [image_of(7, (3, 0.42, A), (4, 0.35, A), (1, 0.33, A))]}
    (plain,) = merge(tables, alphas=NO_ALPHA, keep=2)
    (rescored,) = merge(tables, keep=2)
    assert plain.category_ids.tolist() == [3, 4]
    assert rescored.category_ids.tolist() == [1, 3]
    np.testing.assert_array_equal(rescored.scores, np.array([0.33, 0.42], np.float32))


def test_an_experts_own_categories_become_lvis_categories_and_others_are_left_out(merge):
    coco = image_of(1, (17, 0.9, A), (44, 0.8, B), (90, 0.7, B))
    (merged,) = merge({"coco": [coco]}, alphas=NO_ALPHA, maps={"coco": {17: 3, 44: 1}}, experts={"coco"})
    assert merged.category_ids.tolist() == [3, 1]
    assert merged.sources.tolist() == ["coco", "coco"]


def test_two_own_categories_that_map_to_one_are_merged(merge):
    coco = image_of(1, (17, 0.8, A), (44, 0.9, A))
    (merged,) = merge({"coco": [coco]}, maps={"coco": {17: 3, 44: 3}}, experts={"coco"})
    np.testing.assert_array_equal(merged.scores, np.array([0.9], np.float32))


def test_the_expert_replaces_a_weaker_box_of_a_model_and_the_source_tells(merge):
    tables = {"model": [image_of(1, (3, 0.5, A), (4, 0.6, B))], "expert": [image_of(1, (3, 0.7, A))]}
    (merged,) = merge(tables, experts={"expert"})
    assert list(zip(merged.category_ids.tolist(), merged.sources.tolist())) == [(3, "expert"), (4, "model")]


def test_a_model_with_unknown_categories_is_refused(merge):
    with pytest.raises(UserError, match=r"member one: .* has categories that the data set does not have \(6\)"):
        merge({"one": [image_of(1, (6, 0.5, A))]})


def test_equal_weights_change_nothing_whatever_their_value(merge):
    rng = np.random.default_rng(1)
    tables = {name: [random_image(rng, 1, 40)] for name in ("one", "two")}
    for fusion in ("nms", "wbf", "soft_nms"):
        settings = Ensemble(members=[], fusion=fusion)
        (plain,), (weighted,) = (
            merge(tables, settings, weights=dict.fromkeys(tables, weight)) for weight in (1.0, 2.0)
        )
        np.testing.assert_array_equal(plain.scores, weighted.scores)
        np.testing.assert_array_equal(plain.boxes, weighted.boxes)


def test_weights_scale_scores_relative_to_the_largest(merge):
    tables = {"one": [image_of(1, (3, 0.8, A))], "two": [image_of(1, (3, 0.7, A), (4, 0.4, B))]}
    for weight, sources, scores in ((2.0, ["two", "two"], [0.7, 0.4]), (0.5, ["one", "two"], [0.8, 0.2])):
        (merged,) = merge(tables, weights={"one": 1.0, "two": weight})
        assert merged.sources.tolist() == sources
        np.testing.assert_allclose(merged.scores, scores, rtol=1e-6)


def test_weighted_fusion_averages_boxes_and_lowers_what_few_members_found(merge):
    shifted = (2, 0, 12, 10)
    tables = {"one": [image_of(1, (3, 0.6, A))], "two": [image_of(1, (3, 0.2, shifted), (4, 0.4, B))]}
    (merged,) = merge(tables, Ensemble(members=[], fusion="wbf"))
    np.testing.assert_allclose(merged.boxes[0], [0.5, 0, 10.5, 10], rtol=1e-6)
    np.testing.assert_allclose(merged.scores, [0.4, 0.2], rtol=1e-6)
    assert merged.sources.tolist() == ["one", "two"]


def test_weighted_fusion_never_leaves_the_image_by_a_rounding_error(merge):
    generator = np.random.default_rng(0)
    edge = (94.5, 5.25, 128.0, 40.5)
    tables = {
        name: [image_of(number, (3, generator.random(), edge), (4, generator.random(), edge)) for number in range(300)]
        for name in ("one", "two", "three", "four", "five")
    }
    weights = {"one": 0.7, "two": 1.1, "three": 0.9}
    merged = merge(tables, Ensemble(members=[], fusion="wbf"), weights=weights)
    assert len(merged) == 300
    for image in merged:
        np.testing.assert_array_equal(image.boxes, np.float32([edge, edge]))


def test_weighted_fusion_counts_only_members_that_know_the_category(merge):
    tables = {"model": [image_of(1, (3, 0.6, A), (4, 0.6, A))], "expert": [image_of(1, (17, 0.1, B))]}
    (merged,) = merge(tables, Ensemble(members=[], fusion="wbf"), maps={"expert": {17: 4}}, experts={"expert"})
    scores = dict(zip(zip(merged.category_ids.tolist(), merged.sources.tolist()), merged.scores.tolist()))
    assert scores[3, "model"] == pytest.approx(0.6)
    assert scores[4, "model"] == pytest.approx(0.3)


def test_soft_nms_lowers_overlapping_scores_instead_of_dropping_them(merge):
    tables = {"one": [image_of(1, (3, 0.8, A), (4, 0.5, A))], "two": [image_of(1, (3, 0.6, A))]}
    (merged,) = merge(tables, Ensemble(members=[], fusion="soft_nms"))
    np.testing.assert_allclose(merged.scores, [0.8, 0.5, 0.6 * np.exp(-2)], rtol=1e-6)


def test_boxes_without_area_take_no_place(merge):
    (merged,) = merge({"one": [image_of(1, (3, 0.9, C), (3, 0.5, A))]}, keep=1)
    np.testing.assert_array_equal(merged.boxes, [A])


def test_images_come_in_ascending_id_whatever_the_members_order_and_gaps(merge, tmp_path):
    rng = np.random.default_rng(3)
    images = {name: {i: random_image(rng, i, 9) for i in ids} for name, ids in (("one", (9, 2, 5)), ("two", (5, 1)))}
    merged = merge({name: list(own.values()) for name, own in images.items()})
    assert [image.image_id for image in merged] == [1, 2, 5, 9]
    shuffled = merge({name: [own[i] for i in sorted(own)] for name, own in images.items()})
    for first, second in zip(merged, shuffled):
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_array_equal(first.rank_scores, second.rank_scores)


@pytest.mark.parametrize("fusion", ["nms", "wbf", "soft_nms"])
def test_members_without_detections_in_an_image_are_no_trouble(merge, fusion):
    tables = {"one": [image_of(1, (3, 0.5, A))], "two": [], "three": [image_of(2, (3, 0.5, C))]}
    merged = merge(tables, Ensemble(members=[], fusion=fusion))
    assert [(image.image_id, len(image)) for image in merged] == [(1, 1), (2, 0)]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(table_writer, "ROWS_PER_GROUP", 100)
    peaks = []
    for count in (10, 100):
        path = write_table(
            tmp_path / f"{count}.parquet", [random_image(np.random.default_rng(0), i, 50) for i in range(count)]
        )
        with TableReader(path) as reader:
            before, peak = pa.total_allocated_bytes(), 0
            for _ in EnsembleMerger([EnsembleMember("one", reader, IDENTITY)] * 2, PLAIN, ALPHAS, 300):
                peak = max(peak, pa.total_allocated_bytes() - before)
        peaks.append(peak)
    assert peaks[1] <= 1.5 * peaks[0]


def test_tables_of_other_splits_models_or_images_are_refused(tmp_path):
    image = random_image(np.random.default_rng(0), 1, 3)
    other = random_image(np.random.default_rng(0), 2, 3)
    right = {"split": "val", "model": "one"}

    def members(*tables):
        return [
            EnsembleMember(
                name, TableReader(write_table(tmp_path / f"{name}.parquet", images, arguments=arguments)), IDENTITY
            )
            for name, images, arguments in tables
        ]

    check_members(members(("one", [image], right), ("two", [image], {})), "val")
    with pytest.raises(UserError, match=r"written for split 'val', not 'test'"):
        check_members(members(("one", [image], right)), "test")
    with pytest.raises(UserError, match=r"written for model 'one', not 'two'"):
        check_members(members(("two", [image], right)), "val")
    with pytest.raises(UserError, match="no image in common"):
        check_members(members(("one", [image], right), ("two", [other], {})), "val")
    one, two = members(("one", [image], right), ("two", [image], {}))
    one.table.metadata["inputs"] = {"annotations": "abc"}
    two.table.metadata["inputs"] = {"annotations": "def"}
    with pytest.raises(UserError, match="were predicted from different annotation files"):
        check_members([one, two], "val")
    with pytest.raises(UserError, match="none of the members' tables has a detection"):
        check_members(members(("one", [], right)), "val")
