"""One training from recipe to ``model.pth``: data, model, resume, loop, final file."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_steps.common.errors import StoppedEarly, UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.data.loader import Share, TrainingSet, load_training_set, share_training_set, training_batches
from pipeline_steps.estimates.memory import require_training_memory
from pipeline_steps.modeling.build import build_detector, detector_config
from pipeline_steps.modeling.gradient_record import GradientRecord
from pipeline_steps.modeling.weights import FORMAT, load_model_weights, read_model_file
from pipeline_steps.recipe import Recipe
from pipeline_steps.training.checkpoint import (
    OnMismatch,
    find_resumable,
    mismatch_message,
    read_checkpoint,
    remove_training_files,
    remove_unfinished,
    save_checkpoint,
    save_tensors,
)
from pipeline_steps.training.distributed import Processes, processes
from pipeline_steps.training.gradients import write_gradients
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.metrics import Report
from pipeline_steps.training.randomness import seed_all
from pipeline_steps.training.schedule import split_batch
from pipeline_steps.training.settings import Settings, differences, digest, training_settings
from pipeline_steps.training.stopping import StopRequest
from pipeline_steps.training.tracker import Tracker, require_tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to train and where to write it.

    Attributes:
        recipe: the recipe.
        model_name: model, expert or pre-training of the recipe.
        output: ``model.pth``; checkpoints, metrics and TensorBoard events go to its folder.
        init: file of the initial weights, or None.
        stop_before_minutes: time budget, see :class:`pipeline_steps.training.stopping.StopRequest`.
        on_mismatch: what to do with files of a training with other settings.
    """

    recipe: Recipe
    model_name: str
    output: Path
    init: Path | None = None
    stop_before_minutes: float | None = None
    on_mismatch: OnMismatch = "refuse"


def train(job: Job) -> None:
    """Train a model of a recipe, or continue its training, and write the final model.

    Raises:
        UserError: wrong settings, data or memory; see the message.
        StoppedEarly: a checkpoint was saved before the end.
    """
    _check_job(job)
    torch.set_num_threads(max(1, job.recipe.compute.threads))
    with processes(job.recipe.compute.device) as group, _memory_explained(job, group):
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        _train(job, group)


def _check_job(job: Job) -> None:
    try:
        model = job.recipe.model(job.model_name)
    except KeyError:
        names = [m.name for m in (*job.recipe.pretraining, *job.recipe.models, *job.recipe.experts)]
        raise UserError(
            f"recipe {job.recipe.name} has no model {job.model_name!r}; it has {', '.join(names)}"
        ) from None
    if model.init and job.init is None:
        raise UserError(f"{job.model_name} starts from {model.init!r}: name its file with --init")
    require_tracker(job.recipe.training_of(model).tracker)


def _train(job: Job, group: Processes) -> None:
    recipe, name = job.recipe, job.model_name
    training, seed = recipe.training_of(recipe.model(name)), recipe.seed_of(recipe.model(name))
    split = group.on_main(lambda: split_batch(training.images_per_batch, training.max_images_per_gpu, group.world_size))
    group.on_main(lambda: _check_memory(job, group, split.images_per_step))
    training_set = _training_set(job, group)
    config = detector_config(recipe, name, len(training_set.category_ids))
    init_digest = group.on_main(lambda: file_digest(job.init) if job.init else "")
    settings = training_settings(recipe, name, config, init_digest, training_set.images.digest())
    folder = job.output.parent
    complete, resumable = group.on_main(lambda: _earlier_run(job, settings))
    if complete:
        log.info("%s is complete, trained with these settings: nothing to do", job.output)
        return
    seed_all(seed)
    model = _build(job, training_set, group)
    record = None
    if training.record_gradients:
        record = GradientRecord(training.record_gradients, len(training_set.category_ids), group.device)
        model.roi_heads.box_predictor.gradient_record = record
    trainer = Trainer(model, training, split, group, recipe.data.max_unreadable_images, record)
    if resumable is not None:
        checkpoint = read_checkpoint(resumable)
        if checkpoint is None:
            raise UserError(f"{resumable} cannot be read by process {group.rank}: all processes must see the folder")
        trainer.load_state(checkpoint["state"])
        del checkpoint
        log.info("continuing from %s, iteration %d of %d", resumable.name, trainer.iteration, trainer.iterations)
    else:
        seed_all(seed + group.rank)
    log.info(
        "%d iterations of %d images: %d process(es), %d images at once, %d accumulation step(s), %s, %s",
        *(trainer.iterations, training.images_per_batch, split.world_size, split.images_per_step, split.steps),
        *(training.precision, group.device),
    )
    stop = StopRequest(job.stop_before_minutes)

    def save() -> None:
        start = time.monotonic()
        trainer.check_finite()
        state = trainer.state()
        if group.is_main:
            path = save_checkpoint(folder, trainer.iteration, state, settings)
            log.info("saved %s", path.name)
        group.gather(None)  # no process leaves before: the first one to leave ends the others
        stop.slowest_checkpoint = max(stop.slowest_checkpoint, time.monotonic() - start)

    def note(seconds: float) -> None:
        stop.slowest_iteration = max(stop.slowest_iteration, seconds)

    share = Share(group.rank, group.world_size, split.images_per_step)
    batches = training_batches(
        training_set.images,
        training,
        seed,
        recipe.data.max_unreadable_images,
        trainer.iteration,
        trainer.iterations,
        share,
    )
    report = _report(job, training.tracker, trainer) if group.is_main else None
    with stop.listening():
        try:
            done = trainer.run(batches, report, save, stop.wanted, note)
        finally:
            if report is not None:
                report.close()
    if not done:
        raise StoppedEarly(
            f"{name} stopped after iteration {trainer.iteration} of {trainer.iterations} "
            f"({stop.reason or 'another process asked for it'}); run the same command again to continue"
        )
    trainer.check_finite()
    sums = None if record is None else trainer.gradient_sums()
    if group.is_main:
        write_gradients(folder, sums, training_set.category_ids, trainer.images_seen)
        _write_model(job, trainer, training_set, settings)
        # The final model is what counts; a checkpoint is twice its size and of no more use.
        remove_training_files(folder, keep_metrics=True)


def _check_memory(job: Job, group: Processes, images: int) -> None:
    """Compare the estimate of the largest step with the GPU before anything is loaded."""
    gpu = group.device.type == "cuda"
    on_gpu = torch.cuda.get_device_properties(group.device).total_memory if gpu else None
    results = job.output.absolute().parent.parent.parent
    warning = require_training_memory(job.recipe, job.model_name, images, results, on_gpu)
    if warning:
        log.warning("%s", warning)


def _report(job: Job, kind: str, trainer: Trainer) -> Report:
    folder, name = job.output.parent, job.model_name
    folder.mkdir(parents=True, exist_ok=True)
    tracker = None if kind == "none" else Tracker(kind, folder, job.recipe.name, name, trainer.iteration)
    return Report(folder, name, trainer.iterations, trainer.iteration, tracker)


def _training_set(job: Job, group: Processes) -> TrainingSet:
    if group.world_size == 1:
        return load_training_set(job.recipe, job.model_name)
    return share_training_set(
        lambda: load_training_set(job.recipe, job.model_name), group.gather, group.local_rank, group.node
    )


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


def _build(job: Job, training_set: TrainingSet, group: Processes) -> nn.Module:
    training = job.recipe.training_of(job.recipe.model(job.model_name))
    tail = None if training_set.tail is None else torch.from_numpy(training_set.tail.copy())
    model = build_detector(job.recipe, job.model_name, len(training_set.category_ids), tail, group.device)
    if job.init is not None:
        content = read_model_file(job.init)
        # A softmax classifier has an output for background, and other meanings: it is no start for a sigmoid one.
        same_loss = content.get("metadata", {}).get("loss") == training.loss
        same = same_loss and content.get("category_ids") == training_set.category_ids
        del content
        load_model_weights(model, job.init, new_categories=not same)
    return model


def _write_model(job: Job, trainer: Trainer, training_set: TrainingSet, settings: Settings) -> None:
    model = job.recipe.model(job.model_name)
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in trainer.model.state_dict().items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": "detector",
        "recipe_name": job.recipe.name,
        "model_name": job.model_name,
        "category_ids": training_set.category_ids,
        "detector": model.detector,
        "images_seen": trainer.images_seen,
        "metadata": {
            "loss": trainer.training.loss,
            "settings": settings,
            "settings_digest": digest(settings),
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


@contextmanager
def _memory_explained(job: Job, group: Processes) -> Iterator[None]:
    """Turn running out of memory into a message with the settings that help."""
    training = job.recipe.training_of(job.recipe.model(job.model_name))
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = "training.max_images_per_gpu" if training.max_images_per_gpu > 1 else "the image sizes"
        raise UserError(
            f"the GPU of process {group.rank} is out of memory with {training.max_images_per_gpu} images at once, "
            f"shorter edge up to {max(training.augmentation.shorter_edge)} and longer edge up to "
            f"{training.augmentation.longer_edge}: lower {smaller} first (the batch stays the same, a saved checkpoint "
            "can be continued); then set training.activation_checkpointing, or lower shorter_edge and longer_edge of "
            f"training.augmentation. ({str(error).splitlines()[0]})"
        ) from None
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker" in text:
            raise UserError(
                f"a loading process ended unexpectedly ({text.splitlines()[0]}); usually the memory of the job or "
                "/dev/shm was used up: lower training.loader_workers or raise compute.memory_gb"
            ) from None
        if "can't allocate memory" in text:
            raise UserError(
                f"out of memory: raise compute.memory_gb, or lower training.max_images_per_gpu ({text.splitlines()[0]})"
            ) from None
        raise
