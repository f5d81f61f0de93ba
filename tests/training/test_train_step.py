"""The training step as a user sees it: its files, interruptions, and files of a training with other settings."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import EXIT_STOPPED_EARLY, StoppedEarly, UserError
from pipeline_steps.modeling.weights import read_model_file
from pipeline_steps.train import main, parser
from pipeline_steps.training.checkpoint import checkpoints
from pipeline_steps.training.run import Job, train
from pipeline_steps.training.stopping import StopRequest
from tests.training.runs import ENVIRONMENT, ROOT, assert_same_bits, command, job, state
from tests.training.world import COCO_IDS, LVIS_IDS, make_recipe, write_recipe


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

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
    def test_a_signal_to_all_processes_saves_and_leaves_with_its_own_exit_code(self, world, tmp_path, number):
        recipe = write_recipe(tmp_path / "r.yaml", world, schedule={"images": 4000}, loader_workers=1)
        folder = tmp_path / "out"
        process = subprocess.Popen(
            command(recipe, "basic_coco", folder), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        while not checkpoints(folder) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, number)  # as Slurm does: loading processes get it too
        _, errors = process.communicate(timeout=60)
        assert process.returncode == EXIT_STOPPED_EARLY, errors
        assert f"received {number.name}); run the same command again to continue" in errors
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

    def test_stopping_before_the_time_limit_has_the_same_exit_code(self, world, tmp_path, capsys):
        recipe = write_recipe(tmp_path / "r.yaml", world)
        arguments = command(recipe, "basic_coco", tmp_path, "--stop-before-minutes", "0.001")[3:]
        assert call_step(parser, main, arguments) == EXIT_STOPPED_EARLY == 75
        assert "run the same command again to continue" in capsys.readouterr().err

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

    def test_checkpoints_of_another_model_are_refused(self, world, stopped):
        with pytest.raises(UserError, match="model: basic_coco -> bottleneck_coco"):
            train(job(world, stopped, "bottleneck_coco"))

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
