"""Model files: loading with a report, refusing what does not fit, converting public weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline_steps import convert_weights
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import EXIT_USER_ERROR, UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.modeling.build import build_detector, build_from_config, read_detector_file
from pipeline_steps.modeling.weights import load_model_weights
from tests.modeling.samples import tiny_recipe

AGNOSTIC = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"]
SPECIFIC = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG False"]
PREDICTOR = "roi_heads.box_predictor."


def detector(categories: int = 8, name: str = "basic", seed: int = 0, **training: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_detector(tiny_recipe(**training), name, categories)


def saved(folder: Path, model: torch.nn.Module, **entries: Any) -> Path:
    path = folder / "model.pth"
    torch.save({"format": 1, "model": model.state_dict(), **entries}, path)
    return path


class TestLoading:
    def test_same_detector_loads_everything(self, tmp_path):
        first, second = detector(seed=0), detector(seed=1)
        report = load_model_weights(second, saved(tmp_path, first))
        assert report.reinitialised == ()
        assert report.unused == ()
        assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())

    @pytest.mark.parametrize("categories", [8, 5])
    @pytest.mark.parametrize(
        ("options", "layers"), [(AGNOSTIC, ("cls_score",)), (SPECIFIC, ("bbox_pred", "cls_score"))]
    )
    def test_start_for_other_categories_leaves_those_layers_and_only_those(self, tmp_path, options, layers, categories):
        """Also when the numbers of categories happen to be equal: the categories are not."""
        coco = detector(8, seed=0, detector_options=options)
        lvis = detector(categories, seed=1, detector_options=options)
        before = {name: tensor.clone() for name, tensor in lvis.state_dict().items()}
        report = load_model_weights(lvis, saved(tmp_path, coco), new_categories=True)
        expected = sorted(f"{PREDICTOR}{layer}.{kind}" for layer in layers for kind in ("bias", "weight"))
        assert list(report.reinitialised) == expected
        for name, tensor in lvis.state_dict().items():
            source = before if name in expected else coco.state_dict()
            assert torch.equal(tensor, source[name]), name

    def test_softmax_pretraining_starts_a_sigmoid_detector(self, tmp_path):
        coco = detector(8, loss="softmax")
        report = load_model_weights(detector(5, loss="eql"), saved(tmp_path, coco), new_categories=True)
        assert len(report.reinitialised) == 2

    def test_other_categories_are_refused_where_none_are_expected(self, tmp_path):
        with pytest.raises(UserError, match=r"other categories: roi_heads\.box_predictor\.cls_score\.\w+ \(8"):
            load_model_weights(detector(5), saved(tmp_path, detector(8)))

    @pytest.mark.parametrize("new_categories", [True, False])
    def test_another_backbone_is_refused(self, tmp_path, new_categories):
        path = saved(tmp_path, detector(name="bottleneck"))
        with pytest.raises(UserError, match="another detector"):
            load_model_weights(detector(), path, new_categories=new_categories)

    def test_a_refused_file_changes_nothing(self, tmp_path):
        model = detector(seed=1)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(UserError):
            load_model_weights(model, saved(tmp_path, detector(name="bottleneck")))
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_additional_entries_are_refused(self, tmp_path):
        state = {**detector().state_dict(), "roi_heads.mask_head.extra.weight": torch.zeros(1)}
        path = tmp_path / "m.pth"
        torch.save({"format": 1, "model": state}, path)
        with pytest.raises(UserError, match=r"also has roi_heads\.mask_head\.extra"):
            load_model_weights(detector(), path)


class TestDamagedFiles:
    @pytest.mark.parametrize("keep", [0, 10, 5000, -100])
    def test_truncated_file(self, tmp_path, keep):
        path = saved(tmp_path, detector())
        content = path.read_bytes()
        path.write_bytes(content[:keep])
        with pytest.raises(UserError, match=r"model\.pth .*(truncated|damaged)"):
            load_model_weights(detector(), path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(UserError, match="model file not found"):
            load_model_weights(detector(), tmp_path / "none.pth")

    @pytest.mark.parametrize(
        "content", [{"a": torch.zeros(1)}, [1], {"model": {}}], ids=["tensors", "list", "no format"]
    )
    def test_file_of_another_program(self, tmp_path, content):
        path = tmp_path / "other.pth"
        torch.save(content, path)
        with pytest.raises(UserError, match="not a model file of this pipeline"):
            load_model_weights(detector(), path)

    def test_file_of_a_newer_format(self, tmp_path):
        with pytest.raises(UserError, match="format 2"):
            load_model_weights(detector(), saved(tmp_path, detector(), format=2))

    def test_file_that_would_run_code_is_refused(self, tmp_path):
        path = tmp_path / "evil.pth"
        torch.save({"format": 1, "model": {}, "metadata": Path("x")}, path)
        with pytest.raises(UserError, match=r"evil\.pth"):
            load_model_weights(detector(), path)


@pytest.fixture(scope="module")
def public_resnet50(tmp_path_factory) -> Path:
    """A file as torchvision publishes it, with random weights."""
    import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("download") / "resnet50-1234abcd.pth"
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), path)
    return path


def recipe_file(folder: Path, weights_file: Path, **entry: Any) -> Path:
    path = folder / "recipe.yaml"
    entry = {"name": "imagenet_r50", "file": str(weights_file), "layout": "torchvision_resnet", **entry}
    path.write_text(yaml.safe_dump({"extends": "mini.yaml", "weights": [entry]}))
    return path


def convert(recipe: Path, output: Path, name: str = "imagenet_r50") -> int:
    arguments = ["--recipe", str(recipe), "--name", name, "--output", str(output)]
    return call_step(convert_weights.parser, convert_weights.main, arguments)


class TestConvertWeightsStep:
    def test_converted_file_starts_the_detector_it_was_made_for(self, tmp_path, public_resnet50, caplog):
        caplog.set_level("INFO")
        output = tmp_path / "out" / "imagenet_r50.pth"
        recipe = recipe_file(tmp_path, public_resnet50, sha256=file_digest(public_resnet50)[:8])
        assert convert(recipe, output) == 0
        assert "not used: fc.weight, fc.bias" in caplog.text
        cfg = read_detector_file("config/detectors/r50_fpn.yaml")
        model = build_from_config(cfg)
        report = load_model_weights(model, output)
        assert {name.split(".")[0] for name in report.loaded} == {"backbone"}
        assert not any(name.startswith("backbone.bottom_up") for name in report.reinitialised)
        public = torch.load(public_resnet50, weights_only=True)
        bottom_up = model.backbone.bottom_up
        assert torch.equal(bottom_up.stem.conv1.weight, public["conv1.weight"].flip(1))
        assert torch.equal(bottom_up.res3[0].shortcut.norm.running_var, public["layer2.0.downsample.1.running_var"])
        metadata = torch.load(output, weights_only=True)["metadata"]
        assert metadata["input_format"] == cfg.INPUT.FORMAT
        assert metadata["source_sha256"] == file_digest(public_resnet50)

    def test_deformable_detector_takes_the_plain_weights_and_leaves_offsets_at_zero(self, tmp_path, public_resnet50):
        output = tmp_path / "w.pth"
        assert convert(recipe_file(tmp_path, public_resnet50), output) == 0
        cfg = read_detector_file("config/detectors/r50_fpn.yaml")
        cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, True, True, True]
        model = build_from_config(cfg)
        report = load_model_weights(model, output)
        left = {name for name in report.reinitialised if name.startswith("backbone.bottom_up")}
        assert left == {name for name in model.state_dict() if ".conv2.offset." in name}
        assert len(left) == 2 * (4 + 6 + 3)
        assert (model.backbone.bottom_up.res4[0].conv2.offset.weight == 0).all()

    def test_detector_with_other_pixel_statistics_is_refused(self, tmp_path, public_resnet50):
        output = tmp_path / "w.pth"
        convert(recipe_file(tmp_path, public_resnet50), output)
        cfg = read_detector_file("config/detectors/r50_fpn.yaml")
        cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
        with pytest.raises(UserError, match="PIXEL_MEAN"):
            load_model_weights(build_from_config(cfg), output)

    def test_backbone_of_another_network_is_refused(self, tmp_path, public_resnet50):
        output = tmp_path / "w.pth"
        convert(recipe_file(tmp_path, public_resnet50), output)
        cfg = read_detector_file("config/detectors/r50_fpn.yaml")
        cfg.MODEL.RESNETS.DEPTH = 101
        with pytest.raises(UserError, match=r"another detector: it lacks backbone\.bottom_up\.res4\.10"):
            load_model_weights(build_from_config(cfg, "meta"), output)

    def test_file_in_the_format_of_old_torch_versions_is_read(self, tmp_path, public_resnet50):
        """Weights published before 2020, as timm's SENet-154, are no zip archives."""
        path = tmp_path / "old.pth"
        state = torch.load(public_resnet50, weights_only=True)
        torch.save(state, path, _use_new_zipfile_serialization=False)
        assert convert(recipe_file(tmp_path, path), tmp_path / "w.pth") == 0
        converted = torch.load(tmp_path / "w.pth", weights_only=True)["model"]
        assert torch.equal(converted["backbone.bottom_up.res2.0.conv1.weight"], state["layer1.0.conv1.weight"])

    def check_refused(self, capsys, folder: Path, weights: Path, message: str, **entry: Any) -> None:
        output = folder / "w.pth"
        assert convert(recipe_file(folder, weights, **entry), output) == EXIT_USER_ERROR
        assert message in capsys.readouterr().err
        assert not output.exists()

    def test_wrong_hash_is_refused(self, tmp_path, public_resnet50, capsys):
        self.check_refused(capsys, tmp_path, public_resnet50, "not with 1234abcd", sha256="1234abcd")

    def test_wrong_layout_is_refused(self, tmp_path, public_resnet50, capsys):
        message = "is not torchvision ResNeXt-101 64x4d"
        self.check_refused(capsys, tmp_path, public_resnet50, message, layout="torchvision_resnext")

    def test_truncated_file_is_refused(self, tmp_path, public_resnet50, capsys):
        path = tmp_path / "short.pth"
        path.write_bytes(public_resnet50.read_bytes()[:100000])
        self.check_refused(capsys, tmp_path, path, "short.pth is damaged")

    def test_missing_file_is_named_with_the_step_that_fetches_it(self, tmp_path, capsys):
        self.check_refused(capsys, tmp_path, tmp_path / "none.pth", "run the download step")

    def test_unknown_name_lists_those_that_exist(self, tmp_path, public_resnet50, capsys):
        assert convert(recipe_file(tmp_path, public_resnet50), tmp_path / "w.pth", name="r51") == EXIT_USER_ERROR
        assert "imagenet_r50" in capsys.readouterr().err
