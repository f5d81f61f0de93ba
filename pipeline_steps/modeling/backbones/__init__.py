"""Backbones registered with detectron2 by importing this package, one family per file.

``MODEL.BACKBONE.NAME`` of the detector files is one of:
    build_mini_fpn_backbone           mini.py: the small backbones of the mini recipe
    build_lvis_resnet_fpn_backbone    resnet.py: ResNet and ResNeXt, optionally deformable
    build_senet_fpn_backbone          senet.py: SENet-154, optionally deformable
"""

from pipeline_steps.modeling.backbones import mini, resnet, senet

__all__ = ["mini", "resnet", "senet"]
