"""SGD with weight decay by kind of parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline_steps.recipe.training import Schedule

NORMALISATION = (
    nn.modules.batchnorm._NormBase,  # BatchNorm, SyncBatchNorm, InstanceNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(model: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """Optimizer groups of all trainable parameters: weights, normalisation layers, biases, each with its weight decay.

    Weight and bias of a normalisation layer both belong to it. A parameter that two modules share counts once.
    """
    decay = {"weight": schedule.weight_decay, "norm": schedule.weight_decay_norm, "bias": schedule.weight_decay_bias}
    members: dict[str, list[nn.Parameter]] = {kind: [] for kind in decay}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            if isinstance(module, NORMALISATION):
                kind = "norm"
            else:
                kind = "bias" if parameter.ndim <= 1 else "weight"
            members[kind].append(parameter)
    return [{"name": k, "params": members[k], "weight_decay": decay[k]} for k in decay if members[k]]


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.SGD:
    """SGD with momentum; the learning rate is set before every step.

    All parameters are updated in one fused pass: on a CPU the many small tensors of a detector cost more in Python
    than in arithmetic. The momentum starts at 0 explicitly: torch leaves it uninitialised when the scaler of fp16 skips
    the first step, as it usually does.
    """
    optimizer = torch.optim.SGD(
        parameter_groups(model, schedule),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        fused=True,
    )
    if schedule.momentum:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
