"""The training loop.

Symbols: B images of one batch over all processes; *iteration* one optimizer step on B images; *step* one forward and
backward pass of a part of the batch (gradient accumulation).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.modeling.device import autocast
from pipeline_steps.modeling.gradient_record import GradientRecord
from pipeline_steps.recipe.training import Training
from pipeline_steps.training.checkpoint import random_state, restore_random_state
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.metrics_file import Averages, MetricsWriter, peak_memory_mb
from pipeline_steps.training.optimizer import build_optimizer
from pipeline_steps.training.schedule import BatchSplit, iteration_count, learning_rate

log = logging.getLogger(__name__)

Samples = list[dict[str, Any]]


class Trainer:
    """Trains a detector; knows nothing of files but what ``report`` and ``save`` do.

    The model is called with a list of samples and returns a dict of scalar losses, whose sum is minimised.
    """

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        split: BatchSplit,
        processes: Processes,
        max_unreadable_images: int = 0,
        gradient_record: GradientRecord | None = None,
    ) -> None:
        """
        Args:
            model: detector in training mode, on the device of ``processes``.
            max_unreadable_images: more unreadable images stop the training.
            gradient_record: what the model records its gradients in, if it does.
        """
        self.model = model
        self.training = training
        self.split = split
        self.processes = processes
        self.max_unreadable_images = max_unreadable_images
        self.gradient_record = gradient_record
        self.iterations = iteration_count(training.schedule, training.images_per_batch)
        self.iteration = 0
        """Iterations done."""
        self.seconds = 0.0
        """Time spent in iterations, earlier runs included."""
        self.unreadable: dict[str, str] = {}
        """Unreadable images so far and why, over all processes."""
        self.averages = Averages()
        self.optimizer = build_optimizer(model, training.schedule)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=training.precision == "fp16")
        self._parallel = processes.wrap(model)

    @property
    def images_seen(self) -> int:
        """Images trained on so far."""
        return self.iteration * self.training.images_per_batch

    # ---- saving and resuming ----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that :meth:`load_state` needs to go on exactly here, as plain values and tensors. Collective.

        The position in the data follows from the iteration; the order and the augmentation from seed and position.
        """
        record = {} if self.gradient_record is None else {"gradient_sums": self.gradient_sums()}
        return {
            **record,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "unreadable": dict(self.unreadable),
            "averages": dict(self.averages.state),
            "random": self.processes.gather(random_state(self.processes.device)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken, with the same or another number of processes."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.unreadable = dict(state["unreadable"])
        self.averages = Averages(state["averages"])
        if self.gradient_record is not None and self.processes.is_main:
            self.gradient_record.sums.copy_(state["gradient_sums"])
        if self.processes.rank < len(state["random"]):
            restore_random_state(state["random"][self.processes.rank], self.processes.device)

    def gradient_sums(self) -> torch.Tensor:
        """The sums of the gradient record over all processes, on the CPU. Collective."""
        assert self.gradient_record is not None
        return self.processes.add(self.gradient_record.sums.clone()).cpu()

    def check_finite(self) -> None:
        """Refuse to save weights that are not finite: a checkpoint of them could never be resumed.

        Raises:
            UserError: naming the first such parameter.
        """
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise UserError(
                    f"{name} is not finite after iteration {self.iteration}: nothing was saved; lower "
                    "training.schedule.learning_rate or set clip_gradient_norm, and resume from the last checkpoint"
                )

    # ---- training ---------------------------------------------------------------------------------------------------

    def run(
        self,
        batches: Iterator[Samples],
        report: MetricsWriter | None,
        save: Callable[[], None],
        stop_wanted: Callable[[], bool],
        iteration_seconds: Callable[[float], None] = lambda _: None,
    ) -> bool:
        """Train to the end, or until some process wants to stop; a checkpoint has then been saved.

        Args:
            batches: this process's micro-batches from the present iteration on.
            report: writes metrics; None in all processes but the main one.
            save: saves a checkpoint; called in all processes at the same iteration.
            iteration_seconds: told the time of every iteration.

        Returns:
            Whether the training is complete.

        Raises:
            UserError: a loss is not finite, too many images are unreadable, or the memory does not suffice.
        """
        self.model.train()
        with EventStorage(self.iteration) as storage:
            while self.iteration < self.iterations:
                start = time.monotonic()
                stop = self._iterate(batches, storage, stop_wanted)
                storage.step()
                self.iteration += 1
                took = time.monotonic() - start
                self.seconds += took
                iteration_seconds(took)
                complete = self.iteration == self.iterations
                if self._due(self.training.log_images) or complete or self.iteration == 1:
                    self._report(report)
                if complete:
                    break
                if stop or self._due(self.training.checkpoint_images):
                    save()
                if stop:
                    return False
        return True

    def _due(self, interval: int) -> bool:
        """Whether the batch just trained on crossed a multiple of ``interval`` images."""
        return self.images_seen // interval > (self.images_seen - self.training.images_per_batch) // interval

    def _iterate(self, batches: Iterator[Samples], storage: EventStorage, stop_wanted: Callable[[], bool]) -> bool:
        """One optimizer step; returns whether to stop."""
        rate = learning_rate(self.training.schedule, self.training.images_per_batch, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        if self.gradient_record is not None:
            self.gradient_record.begin(self.iteration, self.iterations)
        losses: dict[str, float] = {}
        culprits, unreadable = list[str](), dict[str, str]()
        for step in range(self.split.steps):
            samples = next(batches)
            for sample in samples:
                unreadable |= {path: why for path, why in sample.get("unreadable", ()) if path not in self.unreadable}
            if not all("image" in sample for sample in samples):
                self.unreadable |= unreadable
                raise self._too_many_unreadable()
            of_step = self._forward_backward(samples, last=step + 1 == self.split.steps)
            if not math.isfinite(sum(of_step.values())):
                culprits += [f"{sample['file_name']} (id {sample['image_id']})" for sample in samples]
            losses = {name: losses.get(name, 0.0) + value / self.split.steps for name, value in of_step.items()}
        mine = [len(culprits), len(unreadable), int(stop_wanted())]
        not_finite, newly_unreadable, stop = self.processes.totals(mine)
        if newly_unreadable:
            self._note_unreadable(unreadable)
        if not_finite:
            self._refuse_not_finite(losses, culprits, rate)
        norm = self._update()
        if norm is not None and math.isfinite(norm):  # the scaler of fp16 probes scales that overflow
            losses["gradient_norm"] = norm
        self.averages.add({**losses, "learning_rate": rate})
        current = {name: value for name, (value, iteration) in storage.latest().items() if iteration == storage.iter}
        self.averages.add(current)
        return bool(stop)

    def _forward_backward(self, samples: Samples, last: bool) -> dict[str, float]:
        """Add this step's share of the gradient; returns its losses."""
        # Gradients are summed over processes once per iteration, in the last step.
        parallel = self._parallel
        waiting = parallel.no_sync() if isinstance(parallel, DistributedDataParallel) and not last else nullcontext()
        with waiting:
            with autocast(self.processes.device, self.training.precision):
                losses = parallel(samples)
            self.scaler.scale(sum(losses.values()) / self.split.steps).backward()
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        return dict(zip(losses, values, strict=True))

    def _update(self) -> float | None:
        """Clip and step; returns the gradient's norm if it was needed."""
        norm = None
        limit = self.training.schedule.clip_gradient_norm
        if limit:
            self.scaler.unscale_(self.optimizer)
            norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
            if not math.isfinite(norm) and not self.scaler.is_enabled():
                raise UserError(
                    f"the gradient is not finite in iteration {self.iteration + 1} although the losses are; no update "
                    "was made. Lower training.schedule.learning_rate, or train in fp32"
                )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def _report(self, report: MetricsWriter | None) -> None:
        names = sorted(name for name in self.averages.state if name.startswith("loss_"))
        mine = self.averages.take()
        device = self.processes.device
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        means = torch.tensor([mine[name] for name in names], dtype=dtype).to(device)
        means = self.processes.add(means) / self.processes.world_size
        if report is not None:
            values = mine | dict(zip(names, means.tolist(), strict=True))
            report.write(self.iteration, self.images_seen, values, peak_memory_mb(device))

    # ---- what can go wrong ------------------------------------------------------------------------------------------

    def _note_unreadable(self, mine: dict[str, str]) -> None:
        for unreadable in self.processes.gather(mine):
            for path, reason in unreadable.items():
                if path not in self.unreadable:
                    self.unreadable[path] = reason
                    log.warning("unreadable image %d, skipped: %s (%s)", len(self.unreadable), path, reason)
        if len(self.unreadable) > self.max_unreadable_images:
            self.processes.fail(str(self._too_many_unreadable()))

    def _too_many_unreadable(self) -> UserError:
        named = listing((f"{path}: {reason}" for path, reason in self.unreadable.items()), 12)
        return UserError(
            f"{len(self.unreadable)} images cannot be read, {self.max_unreadable_images} are allowed "
            f"(data.max_unreadable_images): {named}. Download them again"
        )

    def _refuse_not_finite(self, losses: dict[str, float], culprits: list[str], rate: float) -> NoReturn:
        """End the training in all processes; the message tells of the first that has images with such a loss."""
        losses, named = next((of, images) for of, images in self.processes.gather((losses, culprits)) if images)
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.processes.fail(
            f"a loss is not finite in iteration {self.iteration + 1}: {values}; images: {listing(named, 16)}; learning "
            f"rate {rate:.3g}. No update was made. Check these images and their annotations, or lower "
            "training.schedule.learning_rate or set clip_gradient_norm"
        )
