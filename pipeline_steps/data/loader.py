"""From a recipe to batches: the training sets of a model, packed and shared, and the loader over them."""

from __future__ import annotations

import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.coco import read_coco, read_coco_boxes
from pipeline_steps.data.lvis import LvisDataset, read_image_ids, read_lvis
from pipeline_steps.data.mapper import TrainingMapper, TrainingSamples
from pipeline_steps.data.packed import PackedImages
from pipeline_steps.data.packing import RegionSource, pack, return_free_memory
from pipeline_steps.data.sampling import DataOrder, rank_batches, repeat_factors
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Training
from pipeline_steps.run.data_files import DatasetPaths

log = logging.getLogger(__name__)


OWN_CATEGORIES = ("coco_train", "openimages_own_train")
"""Training sets whose categories are not those of LVIS."""


class Share(NamedTuple):
    """The part of one process in every batch."""

    rank: int = 0
    world_size: int = 1
    images_per_step: int = 1  # images that go through the network at once


@dataclass(frozen=True)
class TrainingSet:
    """The concatenated training sets of a model."""

    images: PackedImages  # all images, packed
    category_ids: list[int]  # the data sets' own id of each position
    tail: np.ndarray | None  # bool[C], rare and common categories of LVIS; None for data in other categories


def read_coco_train(paths: DatasetPaths) -> LvisDataset:
    """COCO's train images without those that LVIS tests on: most val images of LVIS v1 are images of train2017."""
    tested = {image_id for split in ("val", "test") for image_id in read_image_ids(paths.annotations(split))}
    return read_coco(paths.coco_train, without=tested)


def _read(name: str, paths: DatasetPaths) -> LvisDataset:
    if name == "coco_train":
        return read_coco_train(paths)
    return read_lvis(paths.training_set(name), "train" if name == "lvis_train" else "openimages")


def load_training_set(recipe: Recipe, model_name: str) -> TrainingSet:
    """Read and pack the training sets of a model.

    LVIS images get their COCO boxes as regions of weight beta if ``coco_ignore`` is on. Group-of boxes of OpenImages
    and crowds of COCO are regions of weight 0 unless ``ignore_group_boxes`` is off. OpenImages images bring the
    categories that they say nothing about, unless ``ignore_unknown_categories`` is off.

    Raises:
        UserError: missing or wrong files, data sets with different categories.
    """
    model = recipe.model(model_name)
    training = recipe.training_of(model)
    paths = DatasetPaths(recipe)
    own = next((name for name in OWN_CATEGORIES if name in model.datasets), None)
    if own and len(model.datasets) > 1:
        raise UserError(f"{model_name}: {own} has its own categories and cannot be mixed with other data sets")
    if own and training.loss == "eql":
        raise UserError(f"{model_name}: loss 'eql' needs LVIS categories; choose softmax or sigmoid for {own}")
    datasets = [_read(name, paths) for name in model.datasets]
    regions: list[RegionSource | None] = [None] * len(datasets)
    if training.coco_ignore.enabled and "lvis_train" in model.datasets:
        boxes = read_coco_boxes(paths.coco_boxes_train)
        regions[model.datasets.index("lvis_train")] = RegionSource(boxes, training.coco_ignore.beta)
    images = pack(
        datasets,
        paths.image_path,
        regions,
        ignore_boxes=training.ignore_group_boxes,
        unknown_categories=training.ignore_unknown_categories,
        max_unusable=recipe.data.max_unusable_annotations,
    )
    categories: CategoryList = datasets[0].categories
    first = 0
    for dataset in datasets:
        last = first + len(dataset.images)
        if images.objects_offsets[first] == images.objects_offsets[last]:
            raise UserError(f"{dataset.path}: no usable annotation, nothing to train on")
        first = last
    del dataset, datasets, regions
    return_free_memory()
    log.info(
        "%d images, %d objects of %d categories in %.1f MB (%s)",
        *(len(images), len(images.boxes), len(categories), images.nbytes / 1e6, " + ".join(model.datasets)),
    )
    return TrainingSet(images, categories.ids.tolist(), None if own else categories.tail)


def share_training_set(
    build: Callable[[], TrainingSet], gather: Callable[[Any], list[Any]], local_rank: int, node: str
) -> TrainingSet:
    """One training set in memory for all training processes of a node.

    The first process of each node builds the set and writes its arrays to a temporary folder, which all map into
    memory. The folder is removed as soon as they have; the memory lives until the last process ends.

    Args:
        build: makes the training set; called by the first process of each node.
        gather: collective call that returns the values of all processes.
        local_rank: number of this process on its node.
        node: name of this process's node.
    """
    folder = Path(tempfile.mkdtemp(prefix="training-set-")) if local_rank == 0 else None
    try:
        offer = None
        if folder is not None:
            built = build()
            built.images.save(folder)
            offer = (node, folder, built.category_ids, built.tail)
            del built
        _, where, category_ids, tail = next(o for o in gather(offer) if o is not None and o[0] == node)
        shared = TrainingSet(PackedImages.load(where), category_ids, tail)
        gather(None)  # all have mapped the files: they can go
        return shared
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def data_order(images: PackedImages, training: Training, seed: int) -> DataOrder:
    """The order in which a training sees ``images``: repeat factors, shuffling, orientation of batches."""
    factors = repeat_factors(
        images.positives, images.positives_offsets, images.category_count, training.repeat_factor_threshold
    )
    if len(factors) != len(images):
        raise AssertionError(f"{len(factors)} repeat factors for {len(images)} images")
    landscape = images.sizes[:, 1] > images.sizes[:, 0] if training.aspect_grouping else None
    return DataOrder(factors, seed, landscape, training.images_per_batch)


WORKER_GRACE_SECONDS = 60
"""A loader worker that is told to end does so after this long at the latest."""


def _end_later(_number: int, _frame: FrameType | None) -> None:
    signal.alarm(WORKER_GRACE_SECONDS)


def _start_worker(_worker: int) -> None:
    # Slurm and Ctrl-C signal all processes of a job. The training process then wants to finish its iteration and save,
    # for which it needs its workers; it ends them itself. The alarm ends those that it could not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    torch.set_num_threads(1)


def training_batches(
    images: PackedImages,
    training: Training,
    seed: int,
    max_unreadable_images: int,
    first_iteration: int,
    last_iteration: int,
    share: Share,
) -> Iterator[list[dict[str, Any]]]:
    """Micro-batches of one process, from ``first_iteration`` up to ``last_iteration`` (not included).

    What comes out at an iteration does not depend on where the iteration started, nor on the number of workers, nor
    (all processes taken together) on the number of processes.

    ``max_unreadable_images``: see :class:`pipeline_steps.data.mapper.TrainingSamples`.
    """
    mapper = TrainingMapper(images, training.augmentation, training.mask_format, seed)
    samples = TrainingSamples(mapper, data_order(images, training, seed), max_unreadable_images)
    steps = first_iteration, last_iteration, training.images_per_batch
    positions = rank_batches(*steps, share.images_per_step, share.rank, share.world_size)
    workers = training.loader_workers
    loader = DataLoader(
        samples,
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        # Forked workers share the packed arrays with this process.
        multiprocessing_context="fork" if workers else None,
        # A generator of its own: the loader must not advance torch's global random state.
        generator=torch.Generator(),
    )
    return iter(loader)
