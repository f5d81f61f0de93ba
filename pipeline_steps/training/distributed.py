"""The processes of a training: started by torchrun on one node or several, or a single one without it."""

from __future__ import annotations

import inspect
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline_steps.common.errors import EXIT_USER_ERROR, UserError
from pipeline_steps.modeling.cpu.normalization import synchronise_on_cpu
from pipeline_steps.modeling.device import choose_device

log = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among all of the training, of which each has one GPU, or a share of the CPU."""

    rank: int
    world_size: int
    local_rank: int
    """Number of this process on its node."""
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and progress lines."""
        return self.rank == 0

    @property
    def node(self) -> str:
        """Name of this process's node, different for every node of the job."""
        return os.environ.get("GROUP_RANK", "0") + "-" + socket.gethostname()

    def gather(self, value: Any) -> list[Any]:
        """Values of all processes, in the order of their ranks. Collective."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, function: Callable[[], Value]) -> Value:
        """What ``function`` returns in the main process, for all processes. Collective.

        Raises:
            UserError: as ``function`` does; the other processes then leave without repeating the message.
        """
        value, message = None, None
        if self.is_main:
            try:
                value = function()
            except UserError as error:
                message = str(error)
        value, message = self.gather((value, message))[0]
        if message is not None:
            self.fail(message)
        return value

    def fail(self, message: str) -> NoReturn:
        """End all processes with one message of the main one. To be called in all of them.

        Raises:
            UserError: in the main process.
            SystemExit: in all others, with the same exit code.
        """
        if self.is_main:
            raise UserError(message)
        raise SystemExit(EXIT_USER_ERROR)

    def add(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all processes, in place. Collective."""
        if self.world_size > 1:
            dist.all_reduce(numbers)
        return numbers

    def totals(self, numbers: list[int]) -> list[int]:
        """Sums of whole numbers over all processes. Collective."""
        return numbers if self.world_size == 1 else self.add(torch.tensor(numbers, device=self.device)).tolist()

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` with gradients averaged over all processes; as it is for a single process.

        On CPUs its synchronised normalisation is replaced in place: torch's runs on GPUs only.
        """
        if self.world_size == 1:
            return model
        if self.device.type == "cpu":
            synchronise_on_cpu(model)
        # Batch statistics are synchronised by SyncBN or frozen; there is nothing to broadcast before every step.
        # torch 2.11 has the argument under its older name.
        known = inspect.signature(DistributedDataParallel).parameters
        unsynchronised = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {unsynchronised: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(model, **options)


@contextmanager
def processes(device_choice: str = "auto", timeout_minutes: float = 30) -> Iterator[Processes]:
    """Join the process group that torchrun's environment variables describe, for the length of the block.

    Args:
        timeout_minutes: how long to wait for another process, e.g. for one that packs the training set.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = choose_device(device_choice, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Processes(0, 1, 0, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    try:
        yield Processes(rank, world_size, local_rank, device)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        # What it waited for never comes: the process that ended has said why, or was killed.
        log.error("process %d lost the connection to another process of the training, which has ended", rank)
        raise SystemExit(1) from None
    finally:
        dist.destroy_process_group()
