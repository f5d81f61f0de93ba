"""The estimate of a recipe: hours, memory and disk from traces, without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.estimates.cards import CARDS, DENSE_RATE, GROUPED_RATE, gpu_seconds
from pipeline_steps.estimates.estimates import GIB, MEMORY_FACTOR, MEMORY_RESERVE, recipe_estimate
from pipeline_steps.estimates.memory import require_memory, require_training_memory
from pipeline_steps.estimates.sizes import area, fitted, largest, training_pixels
from pipeline_steps.estimates.text import one_line
from pipeline_steps.estimates.traces import known_traces, request
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.recipe.training import Augmentation
from pipeline_steps.run.result_files import ResultFiles
from pipeline_steps.starting.messages import plan_banner

CONFIG = Path(__file__).parents[2] / "config"
RECIPES = sorted(CONFIG.glob("*.yaml"))
NOTHING = lambda output: False  # noqa: E731


def challenge(**values):
    return resolve_recipe({"extends": "challenge.yaml", **values})


def estimate(recipe, exists=NOTHING):
    found = recipe_estimate(recipe, f"results/{recipe.name}", exists)
    assert not found.unknown
    return found


def hours(recipe, stage, exists=NOTHING, missing_only=False):
    found = estimate(recipe, exists)
    return sum(
        job.hours("V100")
        for job in found.jobs
        if job.stage == stage and not (missing_only and job.output in found.done)
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_detector_of_the_shipped_recipes_is_traced(path):
    """If this fails after a change of a detector file: python -m pipeline_steps.estimate --shipped."""
    found = estimate(load_recipe(path))
    assert all(job.total_flops > 0 and job.largest_memory > 0 for job in found.jobs)
    assert found.disk.total > 0


def test_planning_takes_no_torch_and_the_plan_shows_the_table():
    code = """
import sys
from pipeline_steps.recipe import load_recipe
from pipeline_steps.starting.messages import plan_banner
from pipeline_steps.run.result_files import ResultFiles
print(plan_banner(ResultFiles(load_recipe("config/challenge.yaml"))))
print([name for name in ("torch", "detectron2", "snakemake") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CONFIG.parent, capture_output=True, text=True, check=True)
    *table, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert any("LVIS fine-tuning: se154" in line for line in table)
    assert all(card in done.stdout for card in CARDS)


def test_the_rates_give_the_published_times_of_the_model_zoo():
    assert gpu_seconds({"dense": 1.239e12}, "V100", "fp32") == pytest.approx(0.261 / 2)
    assert gpu_seconds({"dense": 2.153e12, "grouped": 0.164e12}, "V100", "fp32") == pytest.approx(0.690 / 2)
    assert gpu_seconds({"deformable": GROUPED_RATE}, "V100", "bf16") == pytest.approx(1)
    assert gpu_seconds({"dense": DENSE_RATE}, "A100", "bf16") == pytest.approx(12 / 25)
    for precision in ("fp32", "fp16", "bf16"):
        speeds = [card.speed[precision] for card in CARDS.values()]
        assert speeds == sorted(speeds)


def test_training_hours_are_images_times_the_flops_of_their_size():
    one_size = {"shorter_edge": [1400], "shorter_edge_sampling": "choice"}
    recipe = challenge(training={"augmentation": one_size})
    (job,) = [job for job in estimate(recipe).jobs if (job.stage, job.name) == ("LVIS fine-tuning", "x101")]
    trace = known_traces()[request(recipe, "x101", "train").key]
    assert job.total_flops == pytest.approx(1_440_000 / 2 * sum(trace.flops_at(1056 * 1408).values()))
    assert job.memory < job.largest_memory
    double = challenge(training={"augmentation": one_size, "schedule": {"images": 2_880_000}})
    assert hours(double, "LVIS fine-tuning") == pytest.approx(2 * hours(recipe, "LVIS fine-tuning"))


def test_sizes_drawn_for_each_image_are_padded_to_the_largest_of_the_batch():
    ranged = Augmentation(shorter_edge=[400, 1400], shorter_edge_sampling="range", longer_edge=10_000)
    exact = 4 / 3 * (1400**3 - 400**3) / 3 / 1000
    assert training_pixels(ranged, 1) == pytest.approx(exact, rel=0.04)  # a little more: multiples of 32
    assert exact < training_pixels(ranged, 1)
    choice = Augmentation(shorter_edge=[320, 640], shorter_edge_sampling="choice", longer_edge=10_000)
    small, large = (area(fitted(edge, 10_000)) for edge in (320, 640))
    assert training_pixels(choice, 1) == (small + large) / 2
    assert training_pixels(choice, 2) == pytest.approx((small + 3 * large) / 4)


def test_the_largest_image_is_that_of_any_aspect():
    assert largest(800, 1333) == (800, 1344)
    assert largest(1400, 1400) == (1408, 1408)
    assert fitted(1400, 1400) == (1056, 1408)


def test_equal_scales_are_counted_once_and_mirrored_ones_twice():
    limit = {"longer_edge": 4000}
    one = challenge(testing={"box_scales": [1400], "mask_scales": [1400], **limit})
    three = challenge(testing={"box_scales": [1400, 1400, 700], "mask_scales": [1400], **limit})
    assert 1 < hours(three, "box testing") / hours(one, "box testing") < 1.5
    flipped = challenge(testing={**one.testing.model_dump(), "horizontal_flip": True})
    assert hours(flipped, "box testing") == pytest.approx(2 * hours(one, "box testing"))
    assert hours(flipped, "mask testing") == pytest.approx(2 * hours(one, "mask testing"))


def test_variants_count_the_boxes_that_they_share_with_the_recipe_or_each_other_once():
    one = {"testing": {"mask_scales": [1400], "mask_models": ["x101"], "keep_per_image": 900}}
    alone = {**one, "ensemble": {"members": [{"name": "x101"}]}}
    both = challenge(variants={"a": alone, "b": {**alone, "ensemble": {**alone["ensemble"], "iou": 0.6}}})
    of_variants = [job for job in estimate(both).jobs if job.stage == "variants for tables"]
    assert [job.name for job in of_variants] == ["x101", "a", "b"]
    shared = challenge(variants={"a": {"testing": {"mask_scales": [1400]}}})
    assert [job.name for job in estimate(shared).jobs if job.stage == "variants for tables"] == ["a"]


def test_what_is_on_the_disk_is_not_counted_again(tmp_path):
    recipe = challenge()
    done = tmp_path / "pretrain/x101_coco/model.pth"
    done.parent.mkdir(parents=True)
    done.touch()
    stage = "COCO pre-training"
    found = recipe_estimate(recipe, tmp_path)
    assert found.done == {"pretrain/x101_coco/model.pth"}
    assert found.hours("V100", missing_only=True) == pytest.approx(
        found.hours("V100") - next(job.hours("V100") for job in found.jobs if job.stage == stage)
    )


def test_a_recipe_that_does_not_fit_its_gpus_is_refused_with_the_keys_that_help():
    needed = {job.name: job.needed / GIB for job in estimate(challenge()).jobs if job.checkpoint_bytes}
    between = (needed["x101"] + needed["se154"]) / 2
    tight = challenge(compute={"gpu_memory_gb": between})
    with pytest.raises(UserError) as refused:
        require_memory(tight, estimate(tight))
    text = str(refused.value)
    assert "se154 (LVIS fine-tuning)" in text
    assert "x101 (" not in text
    for key in ("gpu_memory_gb", "max_images_per_gpu", "activation_checkpointing", "precision", "augmentation"):
        assert key in text
    fits = challenge(compute={"gpu_memory_gb": needed["se154"] + 1})
    require_memory(fits, estimate(fits))
    require_memory(challenge(), estimate(challenge()))  # nothing is known about the GPUs: nothing is refused


def test_one_training_is_judged_by_itself_before_its_first_step():
    a_gpu, results = 141 * GIB, "results/challenge"
    recipe = challenge(compute={"gpu_memory_gb": 17})
    assert require_training_memory(recipe, "coco_expert", 2, results, a_gpu) == ""
    with pytest.raises(UserError, match="se154 needs"):
        require_training_memory(recipe, "se154", 2, results, a_gpu)
    assert require_training_memory(recipe, "se154", 2, results, None) == ""  # on a CPU
    # Not set: the GPU that is there is no reason to refuse, but to warn.
    assert "max_images_per_gpu" in require_training_memory(challenge(), "se154", 2, results, 16 * GIB)
    assert require_training_memory(challenge(), "se154", 2, results, a_gpu) == ""
    assert require_training_memory(challenge(), "se154", 7, results, 16 * GIB) == ""  # not traced


def test_testing_is_refused_with_its_own_keys():
    recipe = challenge(compute={"gpu_memory_gb": 1.5})
    with pytest.raises(UserError, match=r"testing\.batch_images"):
        require_memory(recipe, estimate(recipe))


def test_a_card_needs_more_than_its_tensors():
    job = estimate(challenge()).jobs[0]
    assert job.needed == job.largest_memory * MEMORY_FACTOR + MEMORY_RESERVE


def test_an_unknown_detector_is_named_with_the_command(tmp_path):
    options = {"detector_options": ["MODEL.RPN.BATCH_SIZE_PER_IMAGE 128"]}
    found = recipe_estimate(challenge(training=options), tmp_path / "challenge")
    assert "not traced yet" in one_line(found)
    assert "python -m pipeline_steps.estimate --recipe" in plan_banner(
        ResultFiles(challenge(training=options), tmp_path / "c")
    )


def test_recipes_without_gpus_say_so():
    assert one_line(estimate(load_recipe(CONFIG / "mini.yaml"))).startswith("runs on CPUs")
