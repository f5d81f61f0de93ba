"""Bootstrap, AP_pool and calibration against evaluators and loops that take their time."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps.evaluation.analyses import BINS, calibration, pooled_ap, reliability
from pipeline_steps.evaluation.bootstrap import (
    BETTER,
    OPEN,
    WORSE,
    image_weights,
    interval,
    intervals,
    measured,
    resample,
    verdict,
)
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.matching import FALSE, TRUE, match_detections, verdicts
from pipeline_steps.evaluation.precision import IOU_THRESHOLDS, summarize
from pipeline_steps.evaluation.results import read_results
from tests.evaluation.test_evaluation_matched import match_world
from tests.evaluation.test_evaluation_official import fixed_selection
from tests.evaluation.worlds import World, make_world, write_world

ALL = 10**9


def without_ties(world: World, seed: int) -> World:
    truth, results = copy.deepcopy(world)
    for result, score in zip(results, np.random.default_rng(seed).permutation(len(results)).tolist()):
        result["score"] = (score + 1) / (len(results) + 1)
    return truth, results


def resampled_world(world: World, weights: np.ndarray) -> World:
    """The data set with each image as often as it is drawn."""
    truth, results = world
    copies = {
        image["id"]: [1000 * position + k for k in range(weights[position])]
        for position, image in enumerate(sorted(truth["images"], key=lambda image: image["id"]))
    }
    drawn = {
        "categories": truth["categories"],
        "images": [{**image, "id": new} for image in truth["images"] for new in copies[image["id"]]],
        "annotations": [{**a, "image_id": new} for a in truth["annotations"] for new in copies[a["image_id"]]],
    }
    for number, annotation in enumerate(drawn["annotations"]):
        annotation["id"] = number + 1
    return drawn, [{**r, "image_id": new} for r in results for new in copies[r["image_id"]]]


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_resample_has_the_ap_of_the_evaluator_on_repeated_images(tmp_path: Path, seed: int, iou_type: str) -> None:
    world = without_ties(make_world(seed, images=12, most=60), seed)
    truth, read, (capped, fixed) = match_world(tmp_path, world, iou_type, 40, ALL)
    whole = summarize(evaluate_lvis(truth, read, iou_type, 40, ALL).capped, truth.frequencies)
    assert measured(capped, truth.frequencies) == [pytest.approx(whole[k]) for k in ("AP", "APr", "APc", "APf")]
    values = resample({"capped": capped, "fixed": fixed}, truth.frequencies, 6, seed=seed)
    for sample in range(6):
        weights = image_weights(len(truth.images), seed, sample)
        assert weights.sum() == len(truth.images)
        paths = write_world(tmp_path, resampled_world(world, weights))
        again, results = read_ground_truth(paths[0], iou_type), read_results(paths[1], iou_type)
        naive = evaluate_lvis(again, results, iou_type, 40, ALL)
        for name, accumulated in (("capped", naive.capped), ("fixed", naive.fixed)):
            expected = summarize(accumulated, again.frequencies)
            for found, key in zip(values[name][sample], ("AP", "APr", "APc", "APf"), strict=True):
                assert (None if np.isnan(found) else found) == pytest.approx(expected[key], abs=1e-9), (sample, key)


def test_the_interval_is_seeded_holds_most_resamples_and_is_null_for_an_empty_group(tmp_path: Path) -> None:
    world = make_world(2, images=10, most=40)
    for category in world[0]["categories"]:
        category["frequency"] = "f" if category["frequency"] == "r" else category["frequency"]
    truth, _, tables = match_world(tmp_path, world, "bbox")
    first, again, other = (intervals(*tables, truth.frequencies, 200, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first["intervals"]["APr"] is None
    values = resample({"": tables[0]}, truth.frequencies, 200)[""][:, 0]
    values += measured(tables[0], truth.frequencies)[0] - values.mean()
    one = first["intervals"]["AP"]
    assert np.mean((values >= one["low"] - 1e-4) & (values <= one["high"] + 1e-4)) == pytest.approx(0.95, abs=0.011)
    assert one["half_width"] == pytest.approx((one["high"] - one["low"]) / 2, abs=1e-4)


def test_only_the_counted_categories_are_resampled(tmp_path: Path) -> None:
    truth, results, tables = match_world(tmp_path, make_world(2, images=8, most=40), "bbox")
    counted = np.arange(len(truth.categories)) % 2 == 0
    values = resample({"": tables[0]}, truth.frequencies, 3, counted=counted)[""]
    letters = np.where(counted, truth.frequencies, "x")
    part = tables[0].take(counted[tables[0].categories])
    restricted = evaluate_lvis(truth, results, "bbox").capped.restricted_to(counted)
    assert part.precision()[:, :, counted].max() == restricted.precision[..., 0].max()
    assert np.isnan(values[:, 1:]).any(axis=0).tolist() == [(letters == f).sum() == 0 for f in "rcf"]


def test_a_verdict_needs_an_interval_on_one_side_of_zero() -> None:
    assert verdict(interval(np.linspace(3, 5, 50), 1.1)) == BETTER
    assert verdict(interval(np.linspace(-2, -0.1, 50), -1.05)) == WORSE
    assert verdict(interval(np.linspace(3, 5, 50), 0.5)) == OPEN
    assert verdict(interval(np.full(5, np.nan), 0.0)) is None


def judged_detections(world: World, threshold: float, chosen: list[dict]) -> list[tuple[dict, str]]:
    """Detections with their verdicts, image by image, by the matching that draws pictures."""
    truth, _ = world
    verdicts_of = []
    for image in sorted(truth["images"], key=lambda image: image["id"]):
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"] and a["area"] > 0]
        found = [r for r in chosen if r["image_id"] == image["id"] and r["bbox"][2] * r["bbox"][3] > 0]
        categories = np.array([r["category_id"] for r in found], int)
        matches = match_detections(
            np.array([a["category_id"] for a in mine], int),
            [a["bbox"] for a in mine],
            categories,
            np.array([r["score"] for r in found]),
            [r["bbox"] for r in found],
            [threshold],
        )[0]
        present = {a["category_id"] for a in mine}
        told = verdicts(matches, categories, present, image["neg_category_ids"], image["not_exhaustive_category_ids"])
        verdicts_of += list(zip(found, told))
    return verdicts_of


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pooled_ap_is_that_of_one_long_list(tmp_path: Path, seed: int) -> None:
    world = make_world(seed, images=8, most=120)
    truth, _, (_, fixed) = match_world(tmp_path, world, "bbox", fixed=60)
    ours = pooled_ap(fixed, truth.frequencies)
    letters = {category["id"]: category["frequency"] for category in world[0]["categories"]}
    for key, group in (("AP_pool", "rcf"), ("APr_pool", "r"), ("APc_pool", "c"), ("APf_pool", "f")):
        objects = sum(letters[a["category_id"]] in group for a in world[0]["annotations"] if a["area"] > 0)
        areas = []
        for threshold in IOU_THRESHOLDS:
            ranked = [
                (r, told)
                for r, told in judged_detections(world, threshold, fixed_selection(world[1], 60))
                if told in (TRUE, FALSE) and letters[r["category_id"]] in group
            ]
            ranked.sort(key=lambda pair: (-pair[0]["score"], pair[0]["category_id"]))  # stable: image, file order
            right, points = 0, []
            for place, (_, told) in enumerate(ranked, 1):
                right += told == TRUE
                points.append((right / objects, right / place))
            levels = [max((p for r, p in points if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
            areas.append(np.mean(levels))
        assert ours[key] == pytest.approx(100 * np.mean(areas), abs=1e-9), key
        assert ours[key] > 0


def test_pooled_ap_of_an_empty_group_is_null(tmp_path: Path) -> None:
    truth, _, (_, fixed) = match_world(tmp_path, make_world(0, images=4, most=20), "bbox")
    assert pooled_ap(fixed, np.where(truth.frequencies == "r", "", truth.frequencies))["APr_pool"] is None


def test_calibration_counts_judged_detections_in_their_bins(tmp_path: Path) -> None:
    world = make_world(4, images=8, most=200)
    truth, _, (capped, _) = match_world(tmp_path, world, "bbox")
    own = np.random.default_rng(0).random(len(world[1])) * 1.2
    ours = calibration(capped, truth.frequencies, own)
    letters = {category["id"]: category["frequency"] for category in world[0]["categories"]}
    counted = [(r, v == TRUE) for r, v in judged_detections(world, 0.5, world[1]) if v in (TRUE, FALSE)]
    place = {id(result): k for k, result in enumerate(world[1])}
    for name in ("rank_score", "score"):
        for group in ("all", "r", "c", "f"):
            mine = [(r, ok) for r, ok in counted if group in ("all", letters[r["category_id"]])]
            score = [own[place[id(r)]] if name == "score" else r["score"] for r, _ in mine]
            gaps = 0.0
            for k in range(BINS):
                inside = [i for i, s in enumerate(score) if min(int(s * BINS), BINS - 1) == k]
                gaps += abs(sum(mine[i][1] for i in inside) - sum(score[i] for i in inside))
            assert ours[name][group]["detections"] == len(mine) > 20
            assert ours[name][group]["ece"] == pytest.approx(100 * gaps / len(mine), abs=1e-3)


def test_calibrated_scores_have_no_error_and_overconfident_ones_their_excess() -> None:
    true = np.arange(1000) % 10 < 3
    assert reliability(np.full(1000, 0.3), true)["ece"] == pytest.approx(0, abs=1e-9)
    assert reliability(np.full(1000, 0.9), true)["ece"] == pytest.approx(60)
    assert reliability(np.full(1000, 1.1), true)["bins"][0]["from"] == 0.9
    assert reliability(np.zeros(0), np.zeros(0, bool)) is None


def test_a_monotone_change_of_a_categorys_scores_cannot_move_ap_fixed_but_moves_ap_and_ap_pool(tmp_path: Path) -> None:
    truth, results = without_ties(make_world(7, images=8, most=300), 7)
    changed = [{**r, "score": r["score"] ** (1 + r["category_id"] % 4)} for r in results]
    measured = []
    for scored in (results, changed):
        ground, read, (_, fixed) = match_world(tmp_path, (truth, scored), "bbox", 30, 150)
        evaluation = evaluate_lvis(ground, read, "bbox", 30, 150)
        ap = summarize(evaluation.capped, ground.frequencies)["AP"]
        measured.append((evaluation.fixed.precision, ap, pooled_ap(fixed, ground.frequencies)["AP_pool"]))
    assert np.array_equal(measured[0][0], measured[1][0])
    assert measured[0][1] != measured[1][1]
    assert measured[0][2] != measured[1][2]
