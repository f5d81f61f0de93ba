"""Model files: reading them with checks, and loading them into a detector with a report of what did not fit.

Two kinds of file, both written by ``torch.save`` as a dict of tensors and plain values:
    ``kind: detector`` (or no kind): ``model.pth`` of a training; holds every parameter and buffer of a detector
    ``kind: backbone``: the output of ``convert_weights``; names below ``backbone.bottom_up.``, plus ``metadata``
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the model files that this code writes and reads."""

BACKBONE_PREFIX = "backbone.bottom_up."

_CLASSIFIER = "roi_heads.box_predictor.cls_score."
_REGRESSOR = "roi_heads.box_predictor.bbox_pred."


@dataclass(frozen=True)
class LoadReport:
    """What became of the entries of a model file and of the parameters of the detector."""

    loaded: tuple[str, ...]
    """Entries taken over."""
    reinitialised: tuple[str, ...]
    """Parameters that keep their initial values because they belong to other categories or are new."""
    unused: tuple[str, ...]
    """Entries of the file that the detector has no place for."""


def read_model_file(path: str | Path) -> dict[str, Any]:
    """Read a model file onto the CPU.

    Raises:
        UserError: it is missing, truncated, no model file, or of another format version.
    """
    path = require_file(path, "model file")
    remedy = "delete it and make it again"
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is truncated or not a model file ({path.stat().st_size} bytes): {remedy}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged or not a model file: {remedy} ({reason})") from None
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict) and "format" in content):
        raise UserError(f"{path} is not a model file of this pipeline: expected the output of train or convert_weights")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}; this version reads format {FORMAT}: {remedy}")
    return content


def _new_category_layers(module: nn.Module) -> tuple[str, ...]:
    """Prefixes of the layers whose outputs belong to categories one by one."""
    regressor = module.get_submodule(_REGRESSOR.rstrip("."))
    return (_CLASSIFIER,) if regressor.out_features == 4 else (_CLASSIFIER, _REGRESSOR)


def _check_shapes(own: dict[str, Tensor], given: dict[str, Tensor], path: str | Path) -> None:
    wrong = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in given
        if name in own and given[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{path} was made for another detector or other categories: {listing(wrong, 3)}")


def _check_pixel_statistics(module: nn.Module, metadata: dict[str, Any], path: str | Path) -> None:
    """Weights trained on otherwise scaled or ordered pixels load without an error and detect nothing."""
    for key in ("pixel_mean", "pixel_std"):
        own = getattr(module, key, None)
        if key not in metadata or own is None or own.is_meta:
            continue
        own = own.flatten().cpu()
        if not torch.allclose(own, torch.tensor(metadata[key], dtype=own.dtype), atol=1e-3):
            raise UserError(
                f"{path} needs MODEL.{key.upper()} {metadata[key]}, but the detector file has {own.tolist()}"
            )


def load_model_weights(module: nn.Module, path: str | Path, *, new_categories: bool = False) -> LoadReport:
    """Load a model file into a detector, in place.

    Args:
        new_categories: the file is a start for other categories (COCO pre-training, then LVIS): the classification
            layer, and the box regression if it is class-specific, keep their initial values whatever their shape.
            All other parameters must be in the file. A converted backbone is always a start.

    Returns:
        The report, which is also logged.

    Raises:
        UserError: the file is damaged, or made for another detector: missing or foreign entries, other shapes.
    """
    content = read_model_file(path)
    _check_pixel_statistics(module, content.get("metadata", {}), path)
    given: dict[str, Tensor] = content["model"]
    own = module.state_dict()
    if content.get("kind") == "backbone":
        # Offsets of deformable convolutions are new; they start at zero, which makes them plain convolutions.
        required = {n for n in own if n.startswith(BACKBONE_PREFIX) and ".conv2.offset." not in n}
        replaced = {name for name in own if name not in required}
    else:
        prefixes = _new_category_layers(module) if new_categories else ()
        replaced = {name for name in own if name.startswith(prefixes)} if prefixes else set()
        required = set(own) - replaced
    # FrozenBatchNorm2d has no such counter, and it changes nothing.
    counters = {name for name in {*own, *given} if name.endswith(".num_batches_tracked")}
    used = {name: tensor for name, tensor in given.items() if name in own and name not in replaced}
    _check_shapes(own, used, path)
    if missing := sorted(required - set(given) - counters):
        raise UserError(f"{path} was made for another detector: it lacks {listing(missing, 3)}")
    unused = tuple(sorted(set(given) - set(used) - replaced - counters))
    if unused and content.get("kind") != "backbone":
        raise UserError(f"{path} was made for another detector: it also has {listing(unused, 3)}")
    module.load_state_dict(used, strict=False)
    report = LoadReport(tuple(sorted(used)), tuple(sorted(replaced)), unused)
    log.info("%s: loaded %d tensors", path, len(report.loaded))
    if report.reinitialised:
        log.info("%s: left at their initial values: %s", path, listing(report.reinitialised, 8))
    if report.unused:
        log.info("%s: not used: %s", path, listing(report.unused, 8))
    return report
