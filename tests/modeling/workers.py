"""What runs in each process of the two-process tests (a module of its own, so that a new process can import it)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def run_in_processes(worker: Callable[..., Any], folder: Path, *arguments: Any, count: int = 2) -> list[Any]:
    """Run ``worker(rank, *arguments)`` in ``count`` processes joined by gloo; returns what each of them returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (count, port, str(folder), worker, arguments), nprocs=count)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _enter(rank: int, count: int, port: int, folder: str, worker: Callable[..., Any], arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=count)
    try:
        torch.save(worker(rank, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def normalise(rank: int, parts: list[torch.Tensor], seeds: list[torch.Tensor], channels: int) -> dict[str, Any]:
    """Two training steps of a synchronised layer on this process's part of a batch, with fixed output gradients."""
    from pipeline_steps.modeling.cpu.normalization import ProcessBatchNorm2d

    layer = ProcessBatchNorm2d(channels)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, channels))
    x = parts[rank].clone().requires_grad_()
    out = layer(x)
    (out * seeds[rank]).sum().backward()
    gradients = torch.cat([layer.weight.grad, layer.bias.grad])
    dist.all_reduce(gradients)
    layer(parts[rank] * 2)
    return {"out": out.detach(), "x": x.grad, "parameters": gradients, "state": layer.state_dict()}


def detector_gradients(
    rank: int, shares: list[list[int]], box_only: set[int], precision: str = "fp32", fast: bool = True
) -> dict[str, Any]:
    """Losses and gradients of a mini detector with synchronised normalisation on this process's samples.

    Args:
        rank: number of this process.
        shares: samples of each process.
        box_only: those without masks.
        precision: as in a recipe.
        fast: with the modules for CPUs, or with the standard ones, as far as several processes on CPUs can have them.
    """
    from detectron2.utils.events import EventStorage

    from pipeline_steps.modeling.build import build_detector
    from pipeline_steps.modeling.device import autocast
    from pipeline_steps.training.distributed import Processes
    from tests.modeling.samples import CATEGORIES, sample, tiny_recipe

    options = [f"MODEL.{part}.NORM SyncBN" for part in ("RESNETS", "FPN", "ROI_MASK_HEAD")]
    recipe = tiny_recipe(detector_options=options, fast_cpu_modules=fast)
    torch.manual_seed(0)
    model = build_detector(recipe, "basic", CATEGORIES)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    world = dist.get_world_size() if dist.is_initialized() else 1
    wrapped = Processes(rank, world, rank, torch.device("cpu")).wrap(model)
    seen: list[torch.Tensor] = []
    normalisation = model.roi_heads.mask_head.mask_fcn1.norm
    normalisation.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    samples = [sample(i, objects=2 + 2 * i, has_masks=i not in box_only, sampling_seed=i) for i in shares[rank]]
    with EventStorage(0), autocast(torch.device("cpu"), precision):
        losses = wrapped(samples)
    sum(losses.values()).backward()
    scalars = {name: value.detach() for name, value in losses.items()}
    if world > 1:  # the gradients are averaged by DistributedDataParallel
        for tensor in scalars.values():
            dist.all_reduce(tensor)
            tensor /= world
    return {
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "losses": scalars,
        "moved": {name: tensor - before[name] for name, tensor in model.named_buffers() if "running" in name},
        "mask_head_inputs": [(tuple(x.shape), x.dtype) for x in seen],
    }


def detector_cases(rank: int, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """:func:`detector_gradients` with each of several sets of arguments."""
    return {name: detector_gradients(rank, **arguments) for name, arguments in cases.items()}
