"""Puts the modules of this package into a detector.

The replacements have the state of what they replace and no more: they differ in their methods alone, and so a module is
replaced by changing its class. Names, values and identity of parameters and buffers stay (an optimizer goes on, a model
file fits with and without).
"""

from __future__ import annotations

from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from pipeline_steps.modeling.cpu.mask_head import MatrixProductMaskHead
from pipeline_steps.modeling.cpu.normalization import synchronise_on_cpu
from pipeline_steps.modeling.cpu.pooler import PyramidPooler

_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    ROIPooler: PyramidPooler,
    MaskRCNNConvUpsampleHead: MatrixProductMaskHead,
}


def use_fast_cpu_modules(model: nn.Module) -> nn.Module:
    """Replace the modules below ``model`` for which there is faster code on a CPU, in place; returns ``model``.

    Losses and detections are those of the standard modules, bit for bit but for the mask head in training, whose sums
    are rounded in another order; gradients differ by rounding.
    """
    for module in model.modules():
        module.__class__ = _REPLACEMENTS.get(type(module), type(module))
    return synchronise_on_cpu(model)
