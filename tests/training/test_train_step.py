"""The training step as a user sees it: files, resuming after any interruption, processes, and bad input."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import EXIT_STOPPED_EARLY, EXIT_USER_ERROR, StoppedEarly, UserError
from pipeline_steps.data.loader import load_training_set
from pipeline_steps.modeling.build import build_detector
from pipeline_steps.modeling.weights import read_model_file
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from pipeline_steps.train import build_parser, main
from pipeline_steps.training.checkpoint import checkpoints
from pipeline_steps.training.randomness import seed_all
from pipeline_steps.training.run import Job, train
from pipeline_steps.training.stopping import StopRequest
from tests.training.world import (
    COCO_IDS,
    LVIS_IDS,
    SMALL_DETECTOR,
    make_recipe,
    recipe_values,
    write_recipe,
    write_world,
)

ROOT = Path(__file__).parents[2]


def job(root: Path, output: Path, model: str = "basic_coco", **values: Any) -> Job:
    keys = {"init", "stop_before_minutes", "on_mismatch"}
    options = {key: values.pop(key) for key in list(values) if key in keys}
    return Job(make_recipe(root, **values), model, output / "model.pth", **options)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return read_model_file(folder / "model.pth")["model"]


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def command(recipe: Path, model: str, output: Path, *more: str) -> list[str]:
    arguments = [
        "-m",
        "pipeline_steps.train",
        "--recipe",
        recipe,
        "--model",
        model,
        "--output",
        output / "model.pth",
        *more,
    ]
    return [sys.executable, *map(str, arguments)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def pretrained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    train(job(world, folder))
    return folder


class TestOutcome:
    def test_model_file_says_what_it_is_and_no_checkpoint_is_left(self, world, pretrained):
        content = read_model_file(pretrained / "model.pth")
        assert content["category_ids"] == COCO_IDS
        assert content["images_seen"] == 40
        assert (content["recipe_name"], content["model_name"]) == ("tiny", "basic_coco")
        assert content["detector"] == "config/detectors/mini_basic_fpn.yaml"
        assert content["metadata"]["settings"]["training"]["schedule"]["images"] == 40
        assert checkpoints(pretrained) == []
        lines = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
        assert [line["iteration"] for line in lines] == [1, 2, 4, 6, 8, 10]
        assert all(line["loss_mask"] > 0 for line in lines)
        assert list(pretrained.glob("events.out.tfevents.*"))

    def test_running_a_complete_training_again_does_nothing(self, world, pretrained, caplog):
        before = (pretrained / "model.pth").stat().st_mtime_ns
        with caplog.at_level(logging.INFO):
            train(job(world, pretrained))
        assert "nothing to do" in caplog.text
        assert (pretrained / "model.pth").stat().st_mtime_ns == before

    def test_fine_tuning_on_lvis_and_openimages_starts_from_the_pre_training(self, world, pretrained, tmp_path, caplog):
        with caplog.at_level(logging.INFO):
            train(job(world, tmp_path, "basic", init=pretrained / "model.pth", schedule={"images": 4}))
        assert read_model_file(tmp_path / "model.pth")["category_ids"] == LVIS_IDS
        assert "left at their initial values: roi_heads.box_predictor.cls_score" in caplog.text
        assert "18 images" in caplog.text
        backbone = "backbone.bottom_up.stem.conv1.weight"
        moved = (state(tmp_path)[backbone] - state(pretrained)[backbone]).abs().max()
        assert 0 <= moved < 0.05

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_number_of_loading_processes_does_not_change_a_bit(self, world, pretrained, tmp_path, workers):
        train(job(world, tmp_path, loader_workers=workers))
        assert_same_bits(state(tmp_path), state(pretrained))

    def test_another_seed_trains_another_model(self, world, pretrained, tmp_path):
        recipe = make_recipe(world)
        train(Job(recipe.model_copy(update={"seed": 1}), "basic_coco", tmp_path / "model.pth"))
        name = "roi_heads.box_head.fc1.weight"
        assert not torch.equal(state(tmp_path)[name], state(pretrained)[name])


class TestInterruptions:
    def test_killed_at_random_moments_and_started_again_it_ends_with_the_same_bits(self, world, pretrained, tmp_path):
        settings = {"schedule": {"images": 160, "warmup_images": 8}, "repeat_factor_threshold": 0.5}
        init = ["--init", str(pretrained / "model.pth")]
        recipe = write_recipe(tmp_path / "recipe.yaml", world, **settings)
        straight, killed = tmp_path / "straight", tmp_path / "killed"
        train(job(world, straight, "basic", init=pretrained / "model.pth", **settings))
        generator = random.Random(time.time_ns())
        for checkpoint in (1, 2):
            process = subprocess.Popen(command(recipe, "basic", killed, *init), cwd=ROOT, env=ENVIRONMENT)
            while process.poll() is None and (not checkpoints(killed) or _newest(killed) < 8 * checkpoint):
                time.sleep(0.005)
            time.sleep(generator.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert 1 <= len(checkpoints(killed)) <= 2
            assert not (killed / "model.pth").exists()
        result = subprocess.run(
            command(recipe, "basic", killed, *init), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "continuing from checkpoint_" in result.stderr
        assert_same_bits(state(killed), state(straight))
        assert (killed / "model.pth").read_bytes() == (straight / "model.pth").read_bytes()
        a, b = ((f / "metrics.jsonl").read_text().splitlines() for f in (straight, killed))
        changing = {"iterations_per_second", "peak_memory_mb"}
        a, b = ([{k: v for k, v in json.loads(line).items() if k not in changing} for line in x] for x in (a, b))
        assert a == b

    def test_a_signal_to_all_processes_saves_and_leaves_with_its_own_exit_code(self, world, tmp_path):
        recipe = write_recipe(tmp_path / "r.yaml", world, schedule={"images": 4000}, loader_workers=1)
        folder = tmp_path / "out"
        process = subprocess.Popen(
            command(recipe, "basic_coco", folder), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        while not checkpoints(folder) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)  # as Slurm does: loading processes get it too
        _, errors = process.communicate(timeout=60)
        assert process.returncode == EXIT_STOPPED_EARLY, errors
        assert "received SIGTERM); run the same command again to continue" in errors
        assert "Traceback" not in errors

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    def test_signals_are_wishes_to_stop_and_are_handed_back_afterwards(self, number):
        before = signal.getsignal(number)
        with StopRequest().listening() as stop:
            assert not stop.wanted()
            signal.raise_signal(number)
            assert stop.wanted()
            assert stop.reason == f"received {number.name}"
        assert signal.getsignal(number) == before

    def test_a_second_ctrl_c_does_not_wait(self):
        with StopRequest().listening():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_time_budget_stops_before_it_is_over(self, world, tmp_path):
        with pytest.raises(StoppedEarly, match=r"stopped after iteration 1 of 10 \(time budget of 0.001 minutes\)"):
            train(job(world, tmp_path, stop_before_minutes=0.001))
        assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_00000001.pth"]

    def test_budget_keeps_back_time_for_saving(self):
        stop = StopRequest(10.0, start=time.monotonic())
        assert 530 < stop.seconds_left() <= 540
        stop.slowest_checkpoint, stop.slowest_iteration = 100, 5
        assert 320 < stop.seconds_left() <= 330
        assert not stop.wanted()
        stop.slowest_checkpoint = 400
        assert stop.wanted()


def _newest(folder: Path) -> int:
    return int(checkpoints(folder)[0].stem.removeprefix("checkpoint_"))


@pytest.fixture
def stopped(world: Path, tmp_path: Path) -> Path:
    """A training stopped after its fifth iteration, with checkpoints 4 and 5."""
    folder = tmp_path / "stopped"
    stops = iter([False] * 4 + [True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "wanted", lambda self: next(stops))
        with pytest.raises(StoppedEarly):
            train(job(world, folder))
    assert [_newest(folder), len(checkpoints(folder))] == [5, 2]
    return folder


class TestOtherSettings:
    def test_checkpoints_of_other_settings_are_refused_naming_what_differs(self, world, stopped):
        with pytest.raises(UserError) as caught:
            train(job(world, stopped, schedule={"images": 40, "warmup_images": 8, "learning_rate": 0.5}))
        assert "training.schedule.learning_rate: 0.06 -> 0.5" in str(caught.value)
        assert "--on-mismatch discard" in str(caught.value)
        assert len(checkpoints(stopped)) == 2

    def test_discard_starts_from_the_beginning(self, world, stopped, pretrained):
        (stopped / ".checkpoint_00000006.unfinished-elsewhere-7.pth").write_bytes(b"half")
        train(job(world, stopped, on_mismatch="discard", schedule={"images": 8, "warmup_images": 8}))
        lines = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
        assert [line["iteration"] for line in lines] == [1, 2]
        assert sorted(path.suffix for path in stopped.iterdir() if "tfevents" not in path.name) == [".jsonl", ".pth"]

    def test_a_model_of_other_settings_is_not_overwritten(self, world, pretrained):
        with pytest.raises(
            UserError,
            match=r"model\.pth belongs to a training with other settings: training\.augmentation\.longer_edge: 80 ->",
        ):
            train(job(world, pretrained, augmentation={"longer_edge": 64}))

    def test_settings_that_do_not_matter_may_change(self, world, stopped, pretrained):
        train(job(world, stopped, log_images=20, checkpoint_images=400, loader_workers=1))
        assert_same_bits(state(stopped), state(pretrained))

    def test_changed_annotations_are_noticed(self, stopped, world, tmp_path):
        changed = tmp_path / "world"
        shutil.copytree(world, changed)
        path = changed / "coco/annotations/instances_train2017.json"
        path.write_text(path.read_text().replace('"category_id": 18', '"category_id": 3', 1))
        with pytest.raises(UserError, match="data: "):
            train(job(changed, stopped))

    @pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[:-30]])
    def test_a_truncated_checkpoint_is_passed_over(self, world, stopped, pretrained, caplog, damage):
        newest = checkpoints(stopped)[0]
        newest.write_bytes(damage(newest.read_bytes()))
        with caplog.at_level(logging.INFO):
            train(job(world, stopped))
        assert f"{newest} cannot be read" in caplog.text
        assert "continuing from checkpoint_00000004.pth" in caplog.text
        assert_same_bits(state(stopped), state(pretrained))

    def test_only_damaged_checkpoints_are_an_error_unless_discarded(self, world, stopped, pretrained):
        for path in checkpoints(stopped):
            path.write_bytes(b"damaged")
        with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
            train(job(world, stopped))
        train(job(world, stopped, on_mismatch="discard"))
        assert_same_bits(state(stopped), state(pretrained))


class TestProcesses:
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


class TestSwitches:
    """COCO Ignore, group-of boxes, unknown categories: each alone changes what the samples say and nothing else."""

    def facts(self, world: Path, **training: Any) -> tuple[list[float], int]:
        """Weights of all regions, and number of pairs (image, category) without any loss."""
        images = load_training_set(make_recipe(world, **training), "basic").images
        known = images.known_sets[images.known_set]
        return sorted(images.region_weights.tolist()), int((~known).sum())

    def test_each_switch_has_its_own_effect(self, world):
        groups, boxes, unknown = [0.0] * 6, [0.5] * 12, 6 * 2
        off = {"coco_ignore": {"enabled": False}, "ignore_group_boxes": False, "ignore_unknown_categories": False}
        assert self.facts(world, **off) == ([], 0)
        assert self.facts(world, **off | {"coco_ignore": {"enabled": True}}) == (boxes, 0)
        assert self.facts(world, **off | {"coco_ignore": {"enabled": True, "beta": 0.25}}) == ([0.25] * 12, 0)
        assert self.facts(world, **off | {"ignore_group_boxes": True}) == (groups, 0)
        assert self.facts(world, **off | {"ignore_unknown_categories": True}) == ([], unknown)
        assert self.facts(world) == (groups + boxes, unknown)


class TestBadInput:
    def call(self, world: Path, tmp_path: Path, capsys, model: str, *more: str, **settings: Any) -> str:
        recipe = write_recipe(tmp_path / "recipe.yaml", world, **settings)
        code = call_step(build_parser(), main, command(recipe, model, tmp_path / "out", *more)[3:])
        errors = capsys.readouterr().err
        assert code == EXIT_USER_ERROR, errors
        assert "Traceback" not in errors
        return errors

    def test_unknown_model_lists_the_models(self, world, tmp_path, capsys):
        assert "it has basic_coco, bottleneck_coco, basic" in self.call(world, tmp_path, capsys, "basik")

    def test_missing_initial_weights_are_asked_for(self, world, tmp_path, capsys):
        assert "starts from 'basic_coco': name its file with --init" in self.call(world, tmp_path, capsys, "basic")

    def test_initial_weights_of_another_detector_are_refused(self, world, pretrained, tmp_path, capsys):
        errors = self.call(
            world, tmp_path, capsys, "basic", "--init", str(pretrained / "model.pth"), detector_options=[]
        )
        assert "was made for another detector" in errors

    def test_missing_data_say_what_to_do(self, tmp_path, capsys):
        assert "instances_train2017.json" in self.call(tmp_path / "nowhere", tmp_path, capsys, "basic_coco")

    def test_truncated_images_are_skipped_up_to_the_limit_and_then_stop_the_training(self, world, tmp_path, capsys):
        broken = tmp_path / "world"
        shutil.copytree(world, broken)
        files = sorted((broken / "coco/train2017").iterdir())
        files[0].write_bytes(files[0].read_bytes()[:700])
        train(job(broken, tmp_path / "one"))
        assert list(read_model_file(tmp_path / "one/model.pth")["metadata"]["unreadable_images"]) == [str(files[0])]
        for path in files[:11]:
            path.write_bytes(path.read_bytes()[:700])
        errors = self.call(broken, tmp_path, capsys, "basic_coco", loader_workers=1)
        assert "11 images cannot be read, 10 are allowed (data.max_unreadable_images)" in errors
        assert files[3].name in errors

    def test_equalization_loss_on_coco_is_refused(self, world, tmp_path, capsys):
        values = write_recipe(tmp_path / "recipe.yaml", world)
        import yaml

        content = yaml.safe_load(values.read_text())
        detector = "config/detectors/mini_basic_fpn.yaml"
        content["models"] = [
            {"name": "m", "detector": detector, "datasets": ["coco_train"], "training": {"loss": "eql"}}
        ]
        content |= {"experts": [], "ensemble": {"members": [{"name": "m"}]}}
        values.write_text(yaml.safe_dump(content))
        code = call_step(build_parser(), main, command(values, "m", tmp_path / "out")[3:])
        assert code == EXIT_USER_ERROR
        assert "loss 'eql' needs LVIS categories" in capsys.readouterr().err

    def test_memory_errors_name_the_settings_to_lower(self, world, tmp_path, capsys, monkeypatch):
        def full(*_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

        monkeypatch.setattr("pipeline_steps.training.loop.Trainer._forward_backward", full)
        errors = self.call(world, tmp_path, capsys, "basic_coco")
        assert "lower training.max_images_per_gpu first" in errors
        assert "training.augmentation" in errors

    def test_a_killed_loading_process_names_what_to_change(self, world, tmp_path, capsys, monkeypatch):
        def killed(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr("pipeline_steps.data.mapper.TrainingMapper.__call__", killed)
        errors = self.call(world, tmp_path, capsys, "basic_coco", loader_workers=1)
        assert "a loading process ended unexpectedly" in errors
        assert "training.loader_workers" in errors

    def test_coco_cannot_be_mixed_with_other_data_sets(self, world):
        values = recipe_values(world)
        values["pretraining"] = []
        model = {"name": "m", "detector": "config/detectors/mini_basic_fpn.yaml", "training": {"loss": "sigmoid"}}
        values["models"] = [{**model, "datasets": ["coco_train", "lvis_train"]}]
        values |= {"experts": [], "ensemble": {"members": [{"name": "m"}]}}
        with pytest.raises(UserError, match="cannot be mixed"):
            load_training_set(resolve_recipe(values, CONFIG_FOLDER), "m")

    def test_a_file_without_usable_annotations_is_nothing_to_train_on(self, world, tmp_path):
        shutil.copytree(world, tmp_path / "world")
        path = tmp_path / "world/coco/annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"] = []
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="nothing to train on"):
            load_training_set(make_recipe(tmp_path / "world"), "basic_coco")

    def test_a_full_disk_leaves_nothing_half_written(self, world, tmp_path, capsys, monkeypatch):
        def full(content: Any, file: Any) -> None:
            file.write(b"x" * 100)
            raise OSError(28, "No space left on device", file.name)

        monkeypatch.setattr("pipeline_steps.training.checkpoint.torch.save", full)
        assert "no space left on the disk" in self.call(world, tmp_path, capsys, "basic_coco")
        assert not list((tmp_path / "out").glob("*.pth"))
        assert not list((tmp_path / "out").glob(".*"))
