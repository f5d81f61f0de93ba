"""How fast GPUs train and test these detectors: rates in FLOP/s that published measurements give, and their origin.

V100, single precision: two rates, so that detectron2's model zoo comes out (MODEL_ZOO.md, COCO Mask R-CNN 3x, 8 V100,
16 images: R50-FPN 0.261 s, X101-32x8d-FPN 0.690 s per iteration). Both networks were traced with 80 categories at the
mean padded size of the zoo's training (edges 640 to 800 drawn anew for each image, two images of 4:3, 763,932
pixels): 1,239 GFLOP for an image of R50; 2,153 dense and 164 grouped for one of X101. The first number gives the rate
of dense operators, the second that of grouped convolutions. Nothing comparable is published for torchvision's
deformable convolution: it gets the rate of grouped ones. The zoo's times of testing, 0.043 s and 0.103 s, come out as
0.037 s and 0.123 s.

Other cards and precisions: multiples of it. NVIDIA publishes images per second of one implementation of Mask R-CNN
R50-FPN on one GPU of either kind (DeepLearningExamples, PyTorch, 20.06): V100 12 in fp32 and 15 in mixed precision,
A100 40 GB 21 with TF32 and 25 in mixed precision. V100 has no bfloat16: its hours are those of fp32. H100: nothing
published for such a model; the A100's rate times the ratio of their memory bandwidths (3,350 to 1,555 GB/s), which
bound most of its layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DENSE_RATE = 1.239e12 / (0.261 * 8 / 16)
"""FLOP/s of a V100 in fp32 with dense operators: 9.5e12."""
GROUPED_RATE = 0.164e12 / (0.690 * 8 / 16 - 2.153e12 / DENSE_RATE)
"""FLOP/s of a V100 in fp32 with grouped and deformable convolutions: 1.4e12."""


@dataclass(frozen=True)
class Card:
    """One kind of GPU."""

    peak: Mapping[str, float]  # FLOP/s of dense arithmetic that its maker states, by precision
    speed: Mapping[str, float]  # how many times as fast as a V100 in fp32, by precision


_H100 = 3350 / 1555
CARDS: dict[str, Card] = {
    "V100": Card({"fp32": 15.7e12, "fp16": 125e12, "bf16": 15.7e12}, {"fp32": 1.0, "fp16": 15 / 12, "bf16": 1.0}),
    "A100": Card(
        {"fp32": 156e12, "fp16": 312e12, "bf16": 312e12}, dict.fromkeys(("fp16", "bf16"), 25 / 12) | {"fp32": 21 / 12}
    ),
    "H100": Card(
        {"fp32": 494e12, "fp16": 989e12, "bf16": 989e12},
        dict.fromkeys(("fp16", "bf16"), 25 / 12 * _H100) | {"fp32": 21 / 12 * _H100},
    ),
}
"""fp32 on A100 and H100 is TF32 in convolutions, as torch does by default."""


def gpu_seconds(flops: Mapping[str, float], card: str, precision: str) -> float:
    """Seconds of one GPU for FLOPs by kind (``dense``, ``grouped``, ``deformable``)."""
    slow = flops.get("grouped", 0) + flops.get("deformable", 0)
    return (flops.get("dense", 0) / DENSE_RATE + slow / GROUPED_RATE) / CARDS[card].speed[precision]


def assumption(precision: str) -> str:
    """The utilisation that :func:`gpu_seconds` assumes, in words: percent of each card's peak."""
    parts = []
    for name, card in CARDS.items():
        shares = [100 * rate * card.speed[precision] / card.peak[precision] for rate in (DENSE_RATE, GROUPED_RATE)]
        parts.append(f"{name} {shares[0]:.1f} % and {shares[1]:.1f} %")
    return (
        f"of the peak in {precision} (V100: {'fp16' if precision == 'fp16' else 'fp32'}; A100, H100 in fp32: TF32), "
        f"dense operators and grouped or deformable convolutions: {', '.join(parts)}"
    )
