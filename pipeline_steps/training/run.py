"""One training from recipe to ``model.pth``: data, model, resume, loop, final file."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline_steps.common.errors import StoppedEarly, UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.data.loader import Share, TrainingSet, load_training_set, share_training_set, training_batches
from pipeline_steps.modeling.build import build_detector, detector_config
from pipeline_steps.modeling.gradient_record import GradientRecord
from pipeline_steps.modeling.rcnn import LvisRCNN
from pipeline_steps.modeling.weights import FORMAT, load_model_weights, read_model_file
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Training
from pipeline_steps.training.checkpoint import (
    OnMismatch,
    find_resumable,
    mismatch_message,
    read_checkpoint,
    remove_training_files,
    remove_unfinished,
    save_checkpoint,
    save_tensors,
    seed_all,
)
from pipeline_steps.training.distributed import Processes, processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.metrics_file import MetricsWriter, write_gradients
from pipeline_steps.training.schedule import BatchSplit, split_batch
from pipeline_steps.training.settings import Settings, differences, digest, outcome_settings
from pipeline_steps.training.stopping import StopRequest, memory_explained
from pipeline_steps.training.tracker import Tracker, require_tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to train and where to write it.

    Attributes:
        model_name: model, expert or pre-training of the recipe.
        output: ``model.pth``; checkpoints, metrics and TensorBoard events go to its folder.
        stop_before_minutes: time budget, see :class:`pipeline_steps.training.stopping.StopRequest`.
        on_mismatch: what to do with files of a training with other settings.
        check_memory: called with the images at once and the bytes of the GPU (None without one) before anything is
            loaded; returns a warning or "", and refuses with a UserError.
    """

    recipe: Recipe
    model_name: str
    output: Path
    init: Path | None = None
    stop_before_minutes: float | None = None
    on_mismatch: OnMismatch = "refuse"
    check_memory: Callable[[int, float | None], str] = lambda _images, _on_gpu: ""

    @property
    def training(self) -> Training:
        """The model's training settings."""
        return self.recipe.training_of(self.recipe.model(self.model_name))

    @property
    def seed(self) -> int:
        """Seed of the model's training."""
        return self.recipe.seed_of(self.recipe.model(self.model_name))


def train(job: Job) -> None:
    """Train a model of a recipe, or continue its training, and write the final model.

    Raises:
        UserError: wrong settings, data or memory; see the message.
        StoppedEarly: a checkpoint was saved before the end.
    """
    model = job.recipe.model(job.model_name)
    if model.init and job.init is None:
        raise UserError(f"{job.model_name} starts from {model.init!r}: name its file with --init")
    require_tracker(job.training.tracker)
    torch.set_num_threads(max(1, job.recipe.compute.threads))
    with processes(job.recipe.compute.device) as group, memory_explained(job.training, group.rank):
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        split = group.on_main(lambda: _split_that_fits(job, group))
        training_set = _training_set(job, group)
        settings = _settings(job, group, training_set)
        complete, checkpoint = group.on_main(lambda: _earlier_run(job, settings))
        if complete:
            log.info("%s is complete, trained with these settings: nothing to do", job.output)
            return
        run = _prepare(job, group, split, training_set, settings)
        _resume(run, checkpoint)
        _run(run)
        _finish(run)


def _split_that_fits(job: Job, group: Processes) -> BatchSplit:
    """How the batch is worked off, after a look at whether the GPU has the memory for it; nothing is loaded yet."""
    training = job.training
    split = split_batch(training.images_per_batch, training.max_images_per_gpu, group.world_size)
    gpu = group.device.type == "cuda"
    warning = job.check_memory(
        split.images_per_step, torch.cuda.get_device_properties(group.device).total_memory if gpu else None
    )
    if warning:
        log.warning("%s", warning)
    return split


def _training_set(job: Job, group: Processes) -> TrainingSet:
    if group.world_size == 1:
        return load_training_set(job.recipe, job.model_name)
    return share_training_set(
        lambda: load_training_set(job.recipe, job.model_name), group.gather, group.local_rank, group.node
    )


def _settings(job: Job, group: Processes, training_set: TrainingSet) -> Settings:
    config = detector_config(job.recipe, job.model_name, len(training_set.category_ids))
    init_digest = group.on_main(lambda: file_digest(job.init) if job.init else "")
    return outcome_settings(job.recipe, job.model_name, config, init_digest, training_set.images.digest())


@dataclass(frozen=True)
class _Run:
    """One process of a training, ready to resume and run."""

    job: Job
    group: Processes
    training_set: TrainingSet
    settings: Settings
    trainer: Trainer
    stop: StopRequest


def _prepare(job: Job, group: Processes, split: BatchSplit, training_set: TrainingSet, settings: Settings) -> _Run:
    """The model with its initial weights, and what trains it."""
    seed_all(job.seed)
    model = _build(job, training_set, group)
    record = None
    if job.training.record_gradients:
        record = GradientRecord(job.training.record_gradients, len(training_set.category_ids), group.device)
        model.roi_heads.box_predictor.gradient_record = record
    trainer = Trainer(model, job.training, split, group, job.recipe.data.max_unreadable_images, record)
    return _Run(job, group, training_set, settings, trainer, StopRequest(job.stop_before_minutes))


def _resume(run: _Run, path: Path | None) -> None:
    """Load the checkpoint ``path``; without one begin, with random generators that differ between processes."""
    trainer, group = run.trainer, run.group
    if path is None:
        seed_all(run.job.seed + group.rank)
    else:
        checkpoint = read_checkpoint(path)
        if checkpoint is None:
            raise UserError(f"{path} cannot be read by process {group.rank}: all processes must see the folder")
        trainer.load_state(checkpoint["state"])
        log.info("continuing from %s, iteration %d of %d", path.name, trainer.iteration, trainer.iterations)
    training, split = trainer.training, trainer.split
    log.info(
        "%d iterations of %d images: %d process(es), %d images at once, %d accumulation step(s), %s, %s",
        *(trainer.iterations, training.images_per_batch, split.world_size, split.images_per_step, split.steps),
        *(training.precision, group.device),
    )


def _run(run: _Run) -> None:
    """Train to the end.

    Raises:
        StoppedEarly: there is a checkpoint instead.
    """
    job, group, trainer, stop = run.job, run.group, run.trainer, run.stop
    batches = training_batches(
        run.training_set.images,
        job.training,
        job.seed,
        job.recipe.data.max_unreadable_images,
        trainer.iteration,
        trainer.iterations,
        Share(group.rank, group.world_size, trainer.split.images_per_step),
    )
    report = _report(job, trainer) if group.is_main else None
    with stop.listening():
        try:
            done = trainer.run(batches, report, partial(_save, run), stop.wanted, stop.note)
        finally:
            if report is not None:
                report.close()
    if not done:
        raise StoppedEarly(
            f"{job.model_name} stopped after iteration {trainer.iteration} of {trainer.iterations} "
            f"({stop.reason or 'another process asked for it'}); run the same command again to continue"
        )


def _report(job: Job, trainer: Trainer) -> MetricsWriter:
    folder, name, kind = job.output.parent, job.model_name, job.training.tracker
    folder.mkdir(parents=True, exist_ok=True)
    tracker = None if kind == "none" else Tracker(kind, folder, job.recipe.name, name, trainer.iteration)
    return MetricsWriter(folder, name, trainer.iterations, trainer.iteration, tracker)


def _save(run: _Run) -> None:
    """Save a checkpoint. Collective."""
    start = time.monotonic()
    run.trainer.check_finite()
    state = run.trainer.state()
    if run.group.is_main:
        path = save_checkpoint(run.job.output.parent, run.trainer.iteration, state, run.settings)
        log.info("saved %s", path.name)
    run.group.gather(None)  # no process leaves before: the first one to leave ends the others
    run.stop.note(checkpoint=time.monotonic() - start)


def _finish(run: _Run) -> None:
    """Write the final model, which is what counts: a checkpoint is twice its size and of no more use."""
    trainer, folder = run.trainer, run.job.output.parent
    trainer.check_finite()
    sums = None if trainer.gradient_record is None else trainer.gradient_sums()
    if run.group.is_main:
        write_gradients(folder, sums, run.training_set.category_ids, trainer.images_seen)
        _write_model(run)
        remove_training_files(folder, keep_metrics=True)


def _earlier_run(job: Job, settings: Settings) -> tuple[bool, Path | None]:
    """Whether ``model.pth`` is there already, and otherwise the checkpoint to continue from."""
    folder = job.output.parent
    remove_unfinished(folder)
    if job.output.exists():
        stored = read_model_file(job.output).get("metadata", {}).get("settings", {})
        differing = differences(stored, settings)
        if not differing:
            remove_training_files(folder, keep_metrics=True)
            return True, None
        if job.on_mismatch == "refuse":
            raise UserError(mismatch_message(job.output, differing))
    return False, find_resumable(folder, settings, job.on_mismatch)


def _build(job: Job, training_set: TrainingSet, group: Processes) -> LvisRCNN:
    tail = None if training_set.tail is None else torch.from_numpy(training_set.tail.copy())
    model = build_detector(job.recipe, job.model_name, len(training_set.category_ids), tail, group.device)
    if job.init is not None:
        content = read_model_file(job.init)
        # A softmax classifier has an output for background, and other meanings: it is no start for a sigmoid one.
        same_loss = content.get("metadata", {}).get("loss") == job.training.loss
        same = same_loss and content.get("category_ids") == training_set.category_ids
        del content
        load_model_weights(model, job.init, new_categories=not same)
    return model


def _write_model(run: _Run) -> None:
    job, trainer = run.job, run.trainer
    model = job.recipe.model(job.model_name)
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in trainer.model.state_dict().items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": "detector",
        "recipe_name": job.recipe.name,
        "model_name": job.model_name,
        "category_ids": run.training_set.category_ids,
        "detector": model.detector,
        "images_seen": trainer.images_seen,
        "metadata": {
            "loss": trainer.training.loss,
            "settings": run.settings,
            "settings_digest": digest(run.settings),
            "iterations": trainer.iterations,
            "processes": trainer.split.world_size,
            "device": torch.cuda.get_device_name() if trainer.processes.device.type == "cuda" else platform.processor(),
            "unreadable_images": dict(trainer.unreadable),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        },
    }
    # Equal texts become objects of their own, whoever shares them (pickle writes shared objects differently), and no
    # times are in the file: the same training gives the same bytes, and its results the same digests.
    save_tensors({**json.loads(json.dumps(content)), "model": weights}, job.output)
    log.info("wrote %s after %.0f s of training", job.output, trainer.seconds)
