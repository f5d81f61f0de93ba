"""Building detectors from recipes: errors of users, and the switches that change speed or memory but no result."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.build import build_detector, detector_config, read_detector_file
from pipeline_steps.recipe.load import load_recipe, resolve_recipe
from tests.modeling.samples import CATEGORIES, sample, tiny_recipe


class TestConfiguration:
    @pytest.mark.parametrize("recipe_file", ["config/mini.yaml", "config/challenge.yaml"])
    def test_every_model_of_a_recipe_has_a_detector(self, recipe_file):
        recipe = load_recipe(recipe_file)
        for model in (*recipe.pretraining, *recipe.models, *recipe.experts):
            cfg = detector_config(recipe, model.name, 1230)
            training = recipe.training_of(model)
            assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1230
            assert training.loss == cfg.LVIS.LOSS
            assert training.box_head_loss_scale == cfg.LVIS.BOX_HEAD_LOSS_SCALE
            assert recipe.testing.proposals == cfg.MODEL.RPN.POST_NMS_TOPK_TEST

    def test_unknown_model_is_named(self):
        with pytest.raises(UserError, match="'x102'"):
            detector_config(tiny_recipe(), "x102", 10)

    def test_missing_detector_file_is_named(self):
        with pytest.raises(UserError, match="detector file not found: config/detectors/x102"):
            read_detector_file("config/detectors/x102.yaml")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("MODEL: {RPM: {NMS_THRESH: 0.7}}\nVERSION: 2\n", "RPM"),
            ("MODEL: {RPN: {NMS_THRESH: high}}\nVERSION: 2\n", "NMS_THRESH"),
            ("MODEL: {RPN: [\n", "while parsing"),
            ("_BASE_: nothing.yaml\nVERSION: 2\n", "nothing.yaml"),
        ],
        ids=["unknown key", "wrong type", "no yaml", "missing base"],
    )
    def test_wrong_detector_files_are_explained(self, tmp_path, content, message):
        path = tmp_path / "detector.yaml"
        path.write_text(content)
        with pytest.raises(UserError, match=message) as failure:
            read_detector_file(str(path))
        assert "detector.yaml" in str(failure.value)

    @pytest.mark.parametrize("options", [["MODEL.RPN.NMS_TRESH 0.5"], ["MODEL.RPN.NMS_THRESH"]])
    def test_wrong_options_are_explained(self, options):
        with pytest.raises(UserError, match="detector_options"):
            detector_config(tiny_recipe(detector_options=options), "basic", 10)

    @pytest.mark.parametrize("options", [["MODEL.RPN.NMS_THRESH 0.6"], ["MODEL.RPN.NMS_THRESH", "0.6"]])
    def test_options_are_applied(self, options):
        assert detector_config(tiny_recipe(detector_options=options), "basic", 10).MODEL.RPN.NMS_THRESH == 0.6

    def test_backbone_options_that_do_not_exist_are_refused(self):
        recipe = resolve_recipe(
            {
                "extends": "mini.yaml",
                "models": [
                    {
                        "name": "basic",
                        "detector": "config/detectors/r50_fpn.yaml",
                        "training": {"detector_options": ["MODEL.RESNETS.DEPTH 18"]},
                    }
                ],
                "ensemble": {"members": [{"name": "basic"}]},
            }
        )
        with pytest.raises(UserError, match="DEPTH is 18"):
            build_detector(recipe, "basic", 10)

    def test_class_specific_masks_are_refused(self):
        recipe = tiny_recipe(detector_options=["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK False"])
        with pytest.raises(UserError, match="CLS_AGNOSTIC_MASK"):
            build_detector(recipe, "basic", CATEGORIES)


def step(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses, gradients and buffers after one training step on fixed samples."""
    torch.manual_seed(1)
    with EventStorage(0):
        losses = model([sample(seed) for seed in range(2)])
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {k: v.detach() for k, v in losses.items()}, gradients, dict(model.named_buffers())


def built(name: str = "bottleneck", **training: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_detector(tiny_recipe(**training), name, CATEGORIES)


class TestSwitches:
    def test_activation_checkpointing_changes_no_loss_gradient_or_running_statistic(self):
        plain, checkpointed = step(built()), step(built(activation_checkpointing=True))
        for expected, result in zip(plain, checkpointed):
            assert expected.keys() == result.keys()
            for key, value in expected.items():
                torch.testing.assert_close(result[key], value, rtol=1e-5, atol=1e-6, msg=key)

    def test_activation_checkpointing_keeps_less_for_the_backward_pass(self):
        def kept(model: torch.nn.Module) -> int:
            storages: dict[int, int] = {}

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            images = model.preprocess_image([sample(0)])
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                features = model.extract_features(images)
            del features
            return sum(storages.values())

        parameters = sum(p.nbytes for p in built().backbone.parameters())
        assert kept(built(activation_checkpointing=True)) - parameters < 0.5 * (kept(built()) - parameters)

    def test_activation_checkpointing_does_nothing_in_testing(self):
        plain, checkpointed = built().eval(), built(activation_checkpointing=True).eval()
        images = plain.preprocess_image([sample(0)])
        for key, value in plain.extract_features(images).items():
            assert torch.equal(checkpointed.extract_features(images)[key], value)

    def test_channels_last_changes_the_layout_and_no_result(self):
        plain, channels_last = built(), built(channels_last=True)
        images = channels_last.preprocess_image([sample(0)])
        assert images.tensor.is_contiguous(memory_format=torch.channels_last)
        expected, result = step(plain), step(channels_last)
        for key, value in expected[0].items():
            torch.testing.assert_close(result[0][key], value, rtol=1e-4, atol=1e-5, msg=key)

    def test_compiling_keeps_the_names_of_parameters_and_is_applied_to_the_backbone_only(self):
        plain, compiled = built(), built(compile_backbone=True)
        assert list(compiled.state_dict()) == list(plain.state_dict())
        assert compiled.backbone._compiled_call_impl is not None
        assert compiled.roi_heads._compiled_call_impl is None

    def test_a_detector_can_be_copied(self):
        model = built(activation_checkpointing=True)
        step(copy.deepcopy(model))
        assert all(parameter.grad is None for parameter in model.parameters())
