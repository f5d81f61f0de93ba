"""Recipes, data and memory that a training cannot go on with: one message that says what to do, no traceback."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import EXIT_USER_ERROR, UserError
from pipeline_steps.data.loader import load_training_set
from pipeline_steps.modeling.weights import read_model_file
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from pipeline_steps.train import main, parser
from pipeline_steps.training.checkpoint import checkpoints
from pipeline_steps.training.run import train
from tests.training.runs import command, job
from tests.training.world import make_recipe, recipe_values, write_recipe


class TestBadInput:
    def call(self, world: Path, tmp_path: Path, capsys, model: str, *more: str, **settings: Any) -> str:
        recipe = write_recipe(tmp_path / "recipe.yaml", world, **settings)
        code = call_step(parser, main, command(recipe, model, tmp_path / "out", *more)[3:])
        errors = capsys.readouterr().err
        assert code == EXIT_USER_ERROR, errors
        assert "Traceback" not in errors
        return errors

    def test_unknown_model_lists_the_models(self, world, tmp_path, capsys):
        assert "it has basic_coco, bottleneck_coco, basic" in self.call(world, tmp_path, capsys, "basik")

    def test_the_step_asks_whether_the_memory_suffices_before_anything_is_loaded(
        self, world, tmp_path, capsys, monkeypatch
    ):
        asked = []

        def refuse(recipe, name, images, results, on_gpu):
            asked.append((recipe.name, name, images, results, on_gpu))
            raise UserError("too large")

        monkeypatch.setattr("pipeline_steps.estimates.memory.require_training_memory", refuse)
        monkeypatch.setattr("pipeline_steps.training.run.load_training_set", None)
        settings = {"images_per_batch": 6, "max_images_per_gpu": 4}
        assert "too large" in self.call(world, tmp_path, capsys, "basic_coco", **settings)
        assert asked == [("tiny", "basic_coco", 3, tmp_path.parent, None)]

    def test_missing_initial_weights_are_asked_for(self, world, tmp_path, capsys):
        assert "starts from 'basic_coco': name its file with --init" in self.call(world, tmp_path, capsys, "basic")

    def test_initial_weights_of_another_detector_are_refused(self, world, pretrained, tmp_path, capsys):
        errors = self.call(
            world, tmp_path, capsys, "basic", "--init", str(pretrained / "model.pth"), detector_options=[]
        )
        assert "was made for another detector" in errors

    def test_truncated_initial_weights_are_named(self, world, pretrained, tmp_path, capsys):
        init = tmp_path / "short.pth"
        init.write_bytes((pretrained / "model.pth").read_bytes()[:2000])
        assert "short.pth is truncated" in self.call(world, tmp_path, capsys, "basic", "--init", str(init))

    def test_nan_in_an_annotation_names_the_file_and_the_place(self, world, tmp_path, capsys):
        broken = tmp_path / "world"
        shutil.copytree(world, broken)
        path = broken / "coco/annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"][4]["bbox"][0] = math.nan
        path.write_text(json.dumps(content))
        errors = self.call(broken, tmp_path, capsys, "basic_coco")
        assert "instances_train2017.json" in errors
        assert "NaN at byte " in errors
        assert '"id": 5' in errors

    def test_missing_data_say_what_to_do(self, tmp_path, capsys):
        assert "lvis_v0.5_val.json (check datasets_root" in self.call(
            tmp_path / "nowhere", tmp_path, capsys, "basic_coco"
        )

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
        content = yaml.safe_load(values.read_text())
        detector = "config/detectors/mini_basic_fpn.yaml"
        content["models"] = [
            {"name": "m", "detector": detector, "datasets": ["coco_train"], "training": {"loss": "eql"}}
        ]
        content |= {"experts": [], "ensemble": {"members": [{"name": "m"}]}}
        values.write_text(yaml.safe_dump(content))
        code = call_step(parser, main, command(values, "m", tmp_path / "out")[3:])
        assert code == EXIT_USER_ERROR
        assert "loss 'eql' needs LVIS categories" in capsys.readouterr().err

    def test_a_training_that_diverges_names_iteration_losses_images_and_remedy(self, world, tmp_path, capsys):
        """The weights of the first update overflow; whichever of losses and proposals shows it first."""
        schedule = {"images": 40, "warmup_images": 0, "learning_rate": 1e12, "clip_gradient_norm": 0}
        errors = self.call(world, tmp_path, capsys, "basic_coco", schedule=schedule)
        assert "a loss is not finite in iteration " in errors
        assert "train2017/000000000" in errors
        assert "lower training.schedule.learning_rate" in errors
        assert not (tmp_path / "out/model.pth").exists()

    def test_proposals_that_are_not_finite_are_reported_in_the_same_way(self, world, tmp_path, capsys, monkeypatch):
        from pipeline_steps.modeling.rcnn import LvisRPN

        def poisoned(self: LvisRPN, anchors: Any, deltas: Any, original: Any = LvisRPN._decode_proposals) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            proposals = original(self, anchors, deltas)
            return [boxes * math.inf for boxes in proposals] if self.calls == 3 else proposals

        monkeypatch.setattr(LvisRPN, "_decode_proposals", poisoned)
        errors = self.call(world, tmp_path, capsys, "basic_coco")
        assert "a loss is not finite in iteration 3: " in errors
        assert "loss_rpn_cls nan" in errors
        assert "train2017/000000000" in errors
        assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint_00000002.pth"]

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
        values |= {"experts": [], "ensemble": {"members": [{"name": "m"}]}}
        for own in ("coco_train", "openimages_own_train"):
            values["models"] = [{**model, "datasets": [own, "lvis_train"]}]
            with pytest.raises(UserError, match=f"{own} has its own categories and cannot be mixed"):
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
