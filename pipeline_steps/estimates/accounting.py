"""Counts the FLOPs and the memory of a computation operator by operator, on real tensors or on fake ones.

With torch's fake tensors nothing is computed and nothing allocated: a step of the largest detector at its largest
images is accounted for in seconds on any machine. What a kernel allocates for itself and frees again is not seen,
with one exception that is large and known: the columns of torchvision's deformable convolution.
"""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision  # noqa: F401  registers its operators
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

BLOCK = 512
"""The CUDA allocator hands out multiples of so many bytes."""

aten, vision = torch.ops.aten, torch.ops.torchvision


def _convolution(x: Tensor, weight: Tensor, output: Tensor, transposed: bool = False) -> int:
    """Two for each multiplication: every output (transposed: input) meets one filter of all groups' own channels."""
    return 2 * (x if transposed else output).numel() * (weight.numel() // weight.shape[0])


def _convolution_forward(args: Sequence[Any], output: Any) -> int:
    return _convolution(args[0], args[1], output, args[6])


def _convolution_backward(args: Sequence[Any], _: Any) -> int:
    """As much as the forward pass for each gradient of input and weight that is asked for.

    torch's own formula counts the gradient of a grouped convolution's weight once for each group (2.14).
    """
    gradient, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    return (wanted[0] + wanted[1]) * _convolution(x, weight, gradient, transposed)


def _deformable(args: Sequence[Any], output: Tensor) -> int:
    """The convolution, and for each column four neighbours multiplied and added (bilinear sampling)."""
    return _convolution(args[0], args[1], output) + _columns(args[0], args[1], output) * 8


def _deformable_backward(args: Sequence[Any], _: Any) -> int:
    """Gradients of input and weight, and of each sampled value to its four neighbours and two coordinates."""
    gradient, x, weight = args[0], args[1], args[2]
    return 2 * _convolution(x, weight, gradient) + _columns(x, weight, gradient) * 3 * 8


def _columns(x: Tensor, weight: Tensor, output: Tensor) -> int:
    """Sampled values of a deformable convolution: all input channels at all positions of the kernel and the output."""
    return x.shape[0] * x.shape[1] * math.prod(weight.shape[2:]) * math.prod(output.shape[2:])


def _roi_align(args: Sequence[Any], output: Tensor) -> int:
    """Bilinear sampling at ``sampling_ratio``^2 points of each output (adaptive: about four), then their mean."""
    ratio = args[-2] if isinstance(args[-2], int) and args[-2] > 0 else 2
    return output.numel() * ratio * ratio * 8


def _roi_align_backward(args: Sequence[Any], _: Any) -> int:
    gradient, ratio = args[0], args[-2]
    return gradient.numel() * (ratio * ratio if isinstance(ratio, int) and ratio > 0 else 4) * 8


def _nms(args: Sequence[Any], _: Any) -> int:
    """The IoU of every pair: about ten operations."""
    return 10 * len(args[0]) ** 2 // 2


FORMULAS: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    aten.convolution: _convolution_forward,
    aten.convolution_backward: _convolution_backward,
    vision.deform_conv2d: _deformable,
    vision._deform_conv2d_backward: _deformable_backward,
    vision.roi_align: _roi_align,
    vision._roi_align_backward: _roi_align_backward,
    vision.nms: _nms,
}
"""FLOPs of operators that torch's counter does not know, or counts otherwise, from arguments and output."""


def _kind(packet: Any, args: Sequence[Any]) -> str:
    if packet in (vision.deform_conv2d, vision._deform_conv2d_backward):
        return "deformable"
    if (packet is aten.convolution and args[8] > 1) or (packet is aten.convolution_backward and args[9] > 1):
        return "grouped"
    return "dense"


def _own_buffers(packet: Any, args: Sequence[Any], output: Any) -> int:
    """Bytes that a kernel takes and gives back: the columns (im2col) of torchvision's deformable convolution."""
    if packet is vision.deform_conv2d:
        return _columns(args[0], args[1], output) * args[0].element_size()
    if packet is vision._deform_conv2d_backward:
        return _columns(args[1], args[2], args[0]) * args[0].element_size()
    return 0


class Accountant(TorchDispatchMode):
    """Context in which every operator is counted.

    Attributes:
        flops: by kind: ``dense``, ``grouped`` (convolutions with groups), ``deformable``.
        held: bytes of all storages made inside that are alive now.
        peak: the largest value of ``held``, kernels' own buffers included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.held = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        packet = getattr(function, "_overloadpacket", function)
        formula = FORMULAS.get(packet)
        if formula is not None:
            self.flops[_kind(packet, args)] += formula(args, output)
        elif packet in flop_registry:
            self.flops["dense"] += flop_registry[packet](*args, **(kwargs or {}), out_val=output)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        self.peak = max(self.peak, self.held + _own_buffers(packet, args, output))
        return output

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of ``tensor`` for as long as it lives (made inside the context: counted by itself)."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = self._alive[key] = -(-storage.nbytes() // BLOCK) * BLOCK
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.held -= self._alive.pop(key, 0)
