"""Trainings of several processes: the result of one, and one message when they fail."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_steps.common.errors import EXIT_USER_ERROR
from pipeline_steps.data.loader import data_order, load_training_set
from pipeline_steps.modeling.build import build_detector
from pipeline_steps.training.checkpoint import seed_all
from pipeline_steps.training.run import train
from tests.training.runs import ENVIRONMENT, ROOT, command, job, state
from tests.training.world import COCO_IDS, SMALL_DETECTOR, make_recipe, write_recipe, write_world


class TestResult:
    def test_two_processes_of_four_images_equal_one_of_eight(self, world, tmp_path):
        """Batch statistics, the normalisation of every loss, and the draws of anchors and proposals included.

        The processes draw unequal numbers of proposals and of foreground: means of local means would be another loss.
        """
        square = _square_images_with_unequal_objects(tmp_path / "world")
        settings = {
            "images_per_batch": 8,
            "schedule": {"images": 24, "warmup_images": 0, "learning_rate": 0.005},
            "augmentation": {"shorter_edge": [64], "longer_edge": 64, "horizontal_flip": True},
            "detector_options": [*SMALL_DETECTOR, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 256"],
            "record_gradients": 1,
        }
        train(job(square, tmp_path / "one", max_images_per_gpu=8, **settings))
        recipe = write_recipe(tmp_path / "recipe.yaml", square, **settings, max_images_per_gpu=4)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", _free_port()]
        result = subprocess.run(
            [*launcher, *command(recipe, "basic_coco", tmp_path / "two")[1:]],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert "2 process(es), 4 images at once, 1 accumulation step(s)" in result.stderr
        records = [np.loadtxt(tmp_path / name / "gradients.csv", delimiter=",", skiprows=1) for name in ("one", "two")]
        np.testing.assert_allclose(*records, rtol=0.02)
        one, two = state(tmp_path / "one"), state(tmp_path / "two")
        seed_all(0)
        start = build_detector(make_recipe(square, **settings), "basic_coco", len(COCO_IDS)).state_dict()
        for name, tensor in one.items():
            if tensor.is_floating_point():
                moved = (tensor - start[name]).norm()
                assert (two[name] - tensor).norm() <= 2e-3 * moved + 1e-7, name
        a, b = (
            [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
            for name in ("one", "two")
        )
        for x, y in zip(a, b, strict=True):
            for key in ("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"):
                assert x[key] == pytest.approx(y[key], rel=1e-4, abs=1e-6)


class TestFailures:
    def launch(self, *arguments: Any) -> subprocess.CompletedProcess[str]:
        """The step in two processes, as the workflow starts it."""
        launcher = ["-m", "pipeline_steps.launch", "--gpus", "2", "--threads", "2"]
        rest = [*command(*arguments)[2:]]
        step = rest[0].rpartition(".")[2]
        return subprocess.run(
            [sys.executable, *launcher, step, *rest[1:]],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def test_an_error_of_one_process_ends_all_with_its_message_and_its_exit_code(self, world, tmp_path):
        broken = tmp_path / "world"
        shutil.copytree(world, broken)
        first = _order_of(broken)[:4]  # the second process's share of the first batch of four
        damaged = broken / f"coco/train2017/{first[2]:012d}.jpg"
        damaged.write_bytes(b"")
        recipe = write_recipe(tmp_path / "recipe.yaml", broken, max_images_per_gpu=2)
        recipe.write_text(recipe.read_text() + "data: {max_unreadable_images: 0}\n")
        result = self.launch(recipe, "basic_coco", tmp_path / "out")
        assert result.returncode == EXIT_USER_ERROR, result.stderr
        assert f"1 images cannot be read, 0 are allowed (data.max_unreadable_images): {damaged}" in result.stderr
        assert "process 0 lost the connection to another process" in result.stderr
        assert "Traceback" not in result.stderr
        assert "Warning" not in result.stderr

    def test_a_number_of_processes_that_does_not_divide_the_batch_is_one_message(self, world, tmp_path):
        recipe = write_recipe(tmp_path / "recipe.yaml", world, images_per_batch=5)
        result = self.launch(recipe, "basic_coco", tmp_path / "out")
        assert result.returncode == EXIT_USER_ERROR, result.stderr
        assert result.stderr.count("images_per_batch 5 cannot be divided among 2 GPUs: use 1 or 5") == 1
        assert "Traceback" not in result.stderr


def _square_images_with_unequal_objects(root: Path) -> Path:
    """A world of images of one size (padding would tell batches apart), some with one object and some with three."""
    write_world(root, images=12, openimages=0, size=64)
    path = root / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"] = [image for image in content["images"] if image["height"] == image["width"]]
    kept = {image["id"] for image in content["images"]}
    several = {image_id for image_id in kept if image_id % 2}
    content["annotations"] = [
        a for a in content["annotations"] if a["image_id"] in several or (a["image_id"] in kept and a["id"] % 3 == 0)
    ]
    path.write_text(json.dumps(content))
    return root


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _order_of(world: Path) -> list[int]:
    """Ids of the first images that the COCO pre-training sees."""
    recipe = make_recipe(world)
    images = load_training_set(recipe, "basic_coco").images
    order = data_order(images, recipe.training_of(recipe.model("basic_coco")), recipe.seed)
    return [int(images.image_ids[order[position]]) for position in range(8)]
