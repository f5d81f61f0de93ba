"""Batch normalisation over all processes without a GPU.

torch's SyncBatchNorm runs on GPUs only, and DistributedDataParallel refuses it on a CPU. detectron2's
NaiveSyncBatchNorm runs anywhere, but it weights processes equally, however many pixels or proposals they hold, and
its running variance is the biased one, so that it is not the batch normalisation of the joined batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class ProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose statistics are those of the joined batch of all processes, forward and backward.

    In evaluation mode or with one process it is ``nn.BatchNorm2d``. A process may hold nothing if another one does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, channels, H, W], N, H and W may differ between processes; the same shape and type."""
        distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not (self.training and distributed):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            if values.numel():
                variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
            else:  # zeros, but with a history: the backward pass of the others waits for this process too
                variance = mean = values.sum(dim=(0, 2, 3))
            count = values.new_tensor([values.numel() / self.num_features])
            # Two reductions, first the mean, then the squared deviations from it: E[x^2] - E[x]^2 in one would
            # lose the variance of channels that are far from zero.
            reduced = _Sum.apply(torch.cat([mean * count, count]))
            total = reduced[-1].detach()
            joined_mean = reduced[:-1] / total
            joined_variance = _Sum.apply((variance + (mean - joined_mean) ** 2) * count) / total
            if self.track_running_stats:
                self._update_running_statistics(joined_mean.detach(), joined_variance.detach(), total)
            scale = self.weight * torch.rsqrt(joined_variance + self.eps)
            shift = self.bias - joined_mean * scale
            return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        # Without a momentum it is the cumulative average, as in nn.BatchNorm2d.
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)


def synchronise_on_cpu(module: nn.Module) -> nn.Module:
    """Make every ``nn.SyncBatchNorm`` below ``module`` a :class:`ProcessBatchNorm2d`, in place; returns ``module``.

    Several processes on CPUs cannot do without; parameters and buffers stay the same objects.
    """
    for layer in module.modules():
        if isinstance(layer, nn.SyncBatchNorm):
            layer.__class__ = ProcessBatchNorm2d  # type: ignore[assignment]  # a sibling, of the same attributes
    return module
