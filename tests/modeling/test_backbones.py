"""Backbones against torchvision's and timm's own networks with the same random weights; deformable convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.backbones.deformable import DeformableConv2d
from pipeline_steps.modeling.build import build_from_config, read_detector_file
from pipeline_steps.modeling.conversion import PIXEL_MEAN, PIXEL_STD, convert, plain_backbone
from pipeline_steps.modeling.weights import BACKBONE_PREFIX


def public_network(layout: str, device: str = "cpu") -> nn.Module:
    import timm
    import torchvision

    with torch.device(device):
        if layout == "timm_senet154":
            return timm.create_model("legacy_senet154", pretrained=False)
        name = {"torchvision_resnet": "resnet50", "torchvision_resnext": "resnext101_64x4d"}[layout]
        return torchvision.models.get_model(name, weights=None)


def public_features(network: nn.Module, layout: str, image: Tensor) -> list[Tensor]:
    if layout == "timm_senet154":
        return network.forward_intermediates(image, indices=[1, 2, 3, 4], intermediates_only=True)
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    features = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        features.append(x)
    return features


def randomise_statistics(network: nn.Module) -> None:
    """Fresh normalisation layers have means 0 and variances 1, with which mixed-up statistics would go unnoticed."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.6)


@pytest.mark.parametrize("layout", ["torchvision_resnet", "torchvision_resnext", "timm_senet154"])
def test_converted_backbone_gives_the_public_networks_features_on_the_same_picture(layout):
    torch.manual_seed(0)
    public = public_network(layout).eval()
    randomise_statistics(public)
    weights, unused = convert(public.state_dict(), layout, "w.pth")
    ours = plain_backbone(layout, device="cpu").eval()
    state = {name.removeprefix(BACKBONE_PREFIX): tensor for name, tensor in weights.items()}
    ours.load_state_dict(state, strict=layout != "timm_senet154")
    picture = torch.randint(0, 256, (1, 3, 64, 64)).float()  # red, green, blue
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for_public = (picture / 255 - mean[:, None, None]) / std[:, None, None]
    for_ours = (picture.flip(1) - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]
    with torch.no_grad():
        expected = public_features(public, layout, for_public)
        features = ours(for_ours)
    for name, reference in zip(("res2", "res3", "res4", "res5"), expected):
        scale = reference.abs().max()
        torch.testing.assert_close(features[name] / scale, reference / scale, rtol=0, atol=2e-5, msg=name)
    assert all(name.startswith(("fc.", "last_linear.")) for name in unused)
    assert len(unused) == 2


@pytest.mark.parametrize(
    ("layout", "published"),
    [("torchvision_resnet", 25_557_032), ("torchvision_resnext", 83_455_272), ("timm_senet154", 115_088_984)],
)
def test_parameter_count_with_classifier_is_the_published_one(layout, published):
    ours = plain_backbone(layout)
    classifier = 2048 * 1000 + 1000
    assert sum(parameter.numel() for parameter in ours.parameters()) + classifier == published


class TestConversionRefuses:
    def state(self, layout: str = "torchvision_resnet") -> dict[str, Tensor]:
        return public_network(layout, "meta").state_dict()

    def test_weights_of_a_deeper_network(self):
        import torchvision

        with torch.device("meta"):
            deeper = torchvision.models.resnet101(weights=None).state_dict()
        with pytest.raises(UserError, match=r"is not torchvision ResNet-50: it also has: layer3\.6"):
            convert(deeper, "torchvision_resnet", "w.pth")

    def test_weights_of_a_narrower_network(self):
        import torchvision

        with torch.device("meta"):
            narrower = torchvision.models.resnext101_32x8d(weights=None).state_dict()
        with pytest.raises(UserError, match=r"other shapes: layer1\.0\.conv2\.weight .* check weights\.layout"):
            convert(narrower, "torchvision_resnext", "w.pth")

    def test_missing_tensors(self):
        state = self.state()
        del state["layer2.0.bn1.running_var"]
        with pytest.raises(UserError, match=r"lacks: res3\.0\.conv1\.norm\.running_var"):
            convert(state, "torchvision_resnet", "w.pth")


class TestDeformableConvolution:
    @pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 4)])
    def test_with_zero_offsets_is_the_plain_convolution(self, stride, groups):
        torch.manual_seed(0)
        layer = DeformableConv2d(8, 12, stride=stride, groups=groups, norm="")
        x = torch.randn(2, 8, 10, 13, requires_grad=True)
        plain = nn.functional.conv2d(x, layer.weight, stride=stride, padding=1, groups=groups)
        deformable = layer(x)
        torch.testing.assert_close(deformable, plain, rtol=1e-5, atol=1e-5)
        seed = torch.randn_like(plain)
        for ours, theirs in zip(
            torch.autograd.grad(deformable, (x, layer.weight), seed),
            torch.autograd.grad(plain, (x, layer.weight), seed),
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_whole_pixel_offsets_shift_what_is_sampled(self):
        torch.manual_seed(0)
        layer = DeformableConv2d(2, 3, stride=1, groups=1, norm="")
        with torch.no_grad():
            layer.offset.bias.view(9, 2)[:, 1] = 1.0  # pairs of (y, x) per tap: one pixel to the right
        x = torch.randn(1, 2, 9, 9)
        shifted = torch.zeros_like(x)
        shifted[..., :-1] = x[..., 1:]
        plain = nn.functional.conv2d(shifted, layer.weight, padding=1)
        torch.testing.assert_close(layer(x)[..., 1:-1], plain[..., 1:-1], rtol=1e-5, atol=1e-5)

    def test_offsets_learn(self):
        layer = DeformableConv2d(4, 4, stride=1, groups=1, norm="")
        layer(torch.randn(1, 4, 8, 8)).square().sum().backward()
        assert (layer.offset.weight.grad != 0).any()

    def test_runs_under_bfloat16_autocast_and_keeps_the_type(self):
        layer = DeformableConv2d(4, 4, stride=1, groups=1, norm="BN")
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.randn(1, 4, 8, 8).bfloat16())
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()


class TestChallengeDetectors:
    def build(self, name: str) -> nn.Module:
        return build_from_config(read_detector_file(f"config/detectors/{name}.yaml"), "meta")

    @pytest.mark.parametrize("name", ["x101_dcn_fpn", "se154_dcn_fpn"])
    def test_deformable_in_every_block_of_stages_3_to_5_and_nowhere_else(self, name):
        bottom_up = self.build(name).backbone.bottom_up
        for stage in ("res2", "res3", "res4", "res5"):
            deformable = [isinstance(block.conv2, DeformableConv2d) for block in getattr(bottom_up, stage)]
            assert all(deformable) if stage != "res2" else not any(deformable)

    @pytest.mark.parametrize("name", ["x101_dcn_fpn", "se154_dcn_fpn"])
    def test_synchronised_normalisation_in_backbone_pyramid_and_heads(self, name):
        model = self.build(name)
        for part in (
            model.backbone.bottom_up.res4,
            model.backbone.fpn_lateral2,
            model.backbone.fpn_output5,
            model.roi_heads.box_head,
            model.roi_heads.mask_head,
        ):
            kinds = {type(m) for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
            assert kinds == {nn.SyncBatchNorm}

    @pytest.mark.parametrize("name", ["r50_fpn", "x101_dcn_fpn", "se154_dcn_fpn"])
    def test_sampling_numbers_and_pixels_are_the_reports_and_the_converters(self, name):
        cfg = read_detector_file(f"config/detectors/{name}.yaml")
        assert (cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POSITIVE_FRACTION) == (256, 0.5)
        assert (cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION) == (512, 0.25)
        assert cfg.TEST.DETECTIONS_PER_IMAGE == 300
        assert cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK
        assert not cfg.MODEL.RESNETS.STRIDE_IN_1X1
        assert tuple(cfg.MODEL.PIXEL_MEAN) == PIXEL_MEAN
        assert tuple(cfg.MODEL.PIXEL_STD) == PIXEL_STD
