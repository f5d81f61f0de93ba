"""Public ImageNet weights to the names of our backbones.

Three things besides names differ between libraries and are settled here or in ``config/detectors``:
    channel order: torchvision and timm read red first, we read blue first (detectron2's default); the input channels
        of the first convolution are turned around, which leaves the network's output unchanged.
    pixel statistics: theirs are for 0..1, ours for 0..255, blue first (:data:`PIXEL_MEAN`, :data:`PIXEL_STD`).
    stride: all three networks halve the resolution in the 3x3 convolution of a stage's first block, as ours do.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import file_digest, require_file
from pipeline_steps.modeling.weights import BACKBONE_PREFIX, FORMAT

PIXEL_MEAN = (103.53, 116.28, 123.675)
"""ImageNet means of blue, green, red: 255 times torchvision's 0.406, 0.456, 0.485."""

PIXEL_STD = (57.375, 57.12, 58.395)
"""ImageNet standard deviations of blue, green, red: 255 times torchvision's 0.225, 0.224, 0.229."""

_STAGES = (
    (r"layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut."),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm."),
)
_TORCHVISION = ((r"conv1\.", lambda _: "stem.conv1."), (r"bn1\.", lambda _: "stem.conv1.norm."), *_STAGES)
_TIMM_SENET = (
    (r"layer0\.conv(\d)\.", lambda m: f"stem.conv{m[1]}."),
    (r"layer0\.bn(\d)\.", lambda m: f"stem.conv{m[1]}.norm."),
    (r"layer(\d)\.(\d+)\.se_module\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.se."),
    *_STAGES,
)


@dataclass(frozen=True)
class NamingScheme:
    """How a library names and shapes a network."""

    rules: tuple[tuple[str, Any], ...]
    """Patterns at the start of a name, and what they become."""
    classifier: str
    """Start of the names of the classification layer, which a detector does not use."""
    network: str
    """The network, for messages."""
    options: tuple[Any, ...]
    """detectron2 options of our backbone of the same shape, without deformable convolutions."""


LAYOUTS = {
    "torchvision_resnet": NamingScheme(_TORCHVISION, "fc.", "torchvision ResNet-50", ("MODEL.RESNETS.DEPTH", 50)),
    "torchvision_resnext": NamingScheme(
        _TORCHVISION,
        "fc.",
        "torchvision ResNeXt-101 64x4d",
        ("MODEL.RESNETS.DEPTH", 101, "MODEL.RESNETS.NUM_GROUPS", 64, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    ),
    "timm_senet154": NamingScheme(
        _TIMM_SENET, "last_linear.", "timm SENet-154", ("MODEL.BACKBONE.NAME", "build_senet_fpn_backbone")
    ),
}


def plain_backbone(layout: str, device: str = "meta") -> Any:
    """Our backbone of the same shape, without pyramid, trainable everywhere and normalised by plain BN."""
    from detectron2.layers import ShapeSpec

    from pipeline_steps.modeling.backbones.resnet import build_resnet
    from pipeline_steps.modeling.backbones.senet import build_senet
    from pipeline_steps.modeling.build import lvis_config

    cfg = lvis_config()
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.merge_from_list(list(LAYOUTS[layout].options))
    build = build_senet if "senet" in cfg.MODEL.BACKBONE.NAME else build_resnet
    with torch.device(device):
        return build(cfg, ShapeSpec(channels=3))


def our_name(name: str, layout: str) -> str | None:
    """Our name of a tensor of a public file, below the backbone; None if there is none."""
    for pattern, replacement in LAYOUTS[layout].rules:
        if match := re.match(pattern, name):
            return replacement(match) + name[match.end() :]
    return None


def convert(state: dict[str, Tensor], layout: str, origin: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the tensors of a public network and turn its first convolution around to read blue first.

    Args:
        state: tensors by their public names.
        layout: key of :data:`LAYOUTS`.

    Returns:
        Tensors by the names of our detectors, and the names that a detector has no use for: the classification layer.

    Raises:
        UserError: tensors are missing, foreign, or of other shapes than the network's.
    """
    expected = {name: tensor.shape for name, tensor in plain_backbone(layout).state_dict().items()}
    network = LAYOUTS[layout].network
    weights: dict[str, Tensor] = {}
    unused, foreign, misshapen = [], [], []
    for name, tensor in state.items():
        ours = our_name(name, layout)
        if name.startswith(LAYOUTS[layout].classifier):
            unused.append(name)
        elif ours is None or ours not in expected:
            foreign.append(name)
        elif tensor.shape != expected[ours]:
            misshapen.append(f"{name} {tuple(tensor.shape)} instead of {tuple(expected[ours])}")
        else:
            weights[ours] = tensor
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    for problem, names in (("has other shapes", misshapen), ("also has", foreign), ("lacks", missing)):
        if names:
            raise UserError(f"{origin} is not {network}: it {problem}: {listing(names, 3)}; check weights.layout")
    weights["stem.conv1.weight"] = weights["stem.conv1.weight"].flip(1).contiguous()
    return {BACKBONE_PREFIX + name: tensor for name, tensor in weights.items()}, unused


def read_public_weights(path: str | Path, sha256: str = "") -> tuple[dict[str, Tensor], str]:
    """Tensors of a downloaded file, and its SHA-256.

    Raises:
        UserError: the file is missing, its hash does not start with ``sha256``, or it holds no tensors by name.
    """
    path = require_file(path, "weights file", "run the download step, or correct weights.file in the recipe")
    digest = file_digest(path)
    if not digest.startswith(sha256.lower()):
        raise UserError(
            f"{path} is not the published file: its SHA-256 starts with {digest[: len(sha256)]}, not with {sha256} "
            "(weights.sha256): download it again"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged or not a weights file: download it again ({reason})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not (isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values())):
        raise UserError(f"{path} contains no named tensors; expected weights as published by torchvision or timm")
    return dict(state), digest


def converted_file(
    weights: dict[str, Tensor], unused: list[str], layout: str, source: str, digest: str
) -> dict[str, Any]:
    """The content of a converted model file, for ``torch.save``."""
    return {
        "format": FORMAT,
        "kind": "backbone",
        "model": weights,
        "metadata": {
            "network": LAYOUTS[layout].network,
            "layout": layout,
            "source": source,
            "source_sha256": digest,
            "unused": unused,
            "pixel_mean": list(PIXEL_MEAN),
            "pixel_std": list(PIXEL_STD),
            "input_format": "BGR",
            "stride_in_1x1": False,
        },
    }
