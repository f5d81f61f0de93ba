"""The mini world: a procedural data set in the formats of LVIS, COCO and OpenImages, drawn in seconds from a seed.

Pictures show shapes in several hues over backgrounds with clutter. LVIS categories are pairs of shape and hue, with a
long tail and federated labels; COCO annotates a few of them exhaustively on the same images; OpenImages has other
images, boxes only, and a class hierarchy. From bottom to top: ``randomness``, ``shapes``, ``vocabulary``, ``stencil``
(geometry), ``painting``, ``background``, ``layout``, ``scene``, ``plan``, ``polygons``, the three formats, ``world``.
"""

from pipeline_steps.mini_world.world import PARTS, World, make_mini

__all__ = ["PARTS", "World", "make_mini"]
