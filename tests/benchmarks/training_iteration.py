"""One training iteration, data loading and the memory of a training set, beside detectron2's own.

``python -m tests.benchmarks.training_iteration [--pairs 6] [--photos 24] [--images 5000] [--workers 4]``
(``--images 57263`` is the size of the LVIS v0.5 train set: 694,000 objects; minutes and gigabytes to make)

Iteration: the mini recipe's detector on batches of 8 images of 128 pixels. The baseline is detectron2's SimpleTrainer
on its GeneralizedRCNN with the same configuration, weights, optimizer settings, memory format and precision (its
AMPTrainer needs a GPU, so the model is called under CPU autocast). Its box loss is plain sigmoid; ours runs with the
Equalization Loss and COCO Ignore on. Samples are the same and in memory.

Loading: JPEGs of 640 x 480 with 12 polygons each, to 800 pixels, flipped or not, in this process.

Memory: all processes of a loader together (proportional set size), after every worker has read every record; and the
peak of the process that reads the annotation file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from tests.benchmarks.measure import Row, in_process, in_turns

CATEGORIES = 96


# ---- one iteration --------------------------------------------------------------------------------------------------


def mini_recipe(precision: str) -> Recipe:
    """The mini recipe with everything of the paper switched on, in one precision."""
    training = {
        "precision": precision,
        "loss": "eql",
        "coco_ignore": {"enabled": True},
        "box_head_loss_scale": 2.0,
        "schedule": {"images": 10**9},
        "log_images": 10**9,
        "checkpoint_images": 10**9,
    }
    return resolve_recipe({"extends": "mini.yaml", "training": training}, CONFIG_FOLDER)


def random_samples(count: int) -> list[dict[str, Any]]:
    """Training samples of the mini world's size: 128 pixels, six objects of 18 to 46 pixels, two COCO boxes."""
    from detectron2.structures import BitMasks, Boxes, Instances

    generator = np.random.default_rng(0)
    samples = []
    for number in range(count):
        corners = generator.uniform(0, 80, (6, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(18, 46, (6, 2))], axis=1).astype(np.float32)
        masks = torch.zeros(6, 128, 128, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
            mask[y1:y2, x1 : (x1 + x2) // 2] = True
        instances = Instances((128, 128), gt_boxes=Boxes(torch.from_numpy(boxes)), gt_masks=BitMasks(masks))
        instances.gt_classes = torch.from_numpy(generator.integers(0, CATEGORIES, 6))
        pixels = generator.integers(0, 255, (128, 128, 3), dtype=np.uint8)
        samples.append(
            {
                "image": torch.from_numpy(pixels).permute(2, 0, 1),
                "height": 128,
                "width": 128,
                "image_id": number,
                "file_name": f"{number}.jpg",
                "sampling_seed": number,
                "has_masks": True,
                "instances": instances,
                "judged": torch.from_numpy(generator.random(CATEGORIES) < 0.1),
                "known": torch.ones(CATEGORIES, dtype=torch.bool),
                "region_boxes": torch.from_numpy(boxes[:2] + 3),
                "region_weights": torch.full((2,), 0.5),
            }
        )
    return samples


def iteration_row(precision: str, pairs: int, iterations: int = 4) -> Row:
    """CPU seconds of ``iterations`` iterations, ours beside detectron2's."""
    from detectron2.engine import SimpleTrainer
    from detectron2.utils.events import EventStorage

    from pipeline_steps.modeling.build import build_detector
    from pipeline_steps.modeling.device import autocast
    from pipeline_steps.training.distributed import Processes
    from pipeline_steps.training.loop import Trainer
    from pipeline_steps.training.schedule import split_batch

    recipe = mini_recipe(precision)
    training = recipe.training_of(recipe.model("basic"))
    samples = random_samples(64)
    batches = [samples[start : start + 8] for start in range(0, 64, 8)]
    torch.manual_seed(0)
    ours = build_detector(recipe, "basic", CATEGORIES, torch.rand(CATEGORIES) < 0.8)
    trainer = Trainer(ours, training, split_batch(8, 8, 1), Processes(0, 1, 0, torch.device("cpu")))

    theirs = their_detector(recipe, "basic", CATEGORIES)
    reference = SimpleTrainer(theirs, Endless(batches), their_optimizer(theirs, training))

    def run_theirs() -> None:
        with EventStorage(0) as storage:
            reference.storage = storage
            for _ in range(iterations):
                with autocast(torch.device("cpu"), precision):
                    reference.run_step()
                storage.step()
                reference.iter += 1

    own_batches = iter(Endless(batches))

    def run_ours() -> None:
        trainer.iterations = trainer.iteration + iterations
        trainer.run(own_batches, None, lambda: None, lambda: False)

    reference.iter = 0
    measured = in_turns(run_theirs, run_ours, [()] * pairs)
    row = measured.row(f"training iteration, mini, 8 images, {precision}", "detectron2 SimpleTrainer, sigmoid")
    return Row(
        row.hot_path,
        row.baseline_name,
        row.baseline / iterations,
        row.ours / iterations,
        "s",
        None,
        row.runs,
        row.ratio,
    )


class Endless:
    """The same batches again and again, as a loader."""

    def __init__(self, batches: list[list[dict[str, Any]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return cycle(self.batches)


def their_detector(recipe: Recipe, model_name: str, categories: int, device: str = "cpu") -> torch.nn.Module:
    """detectron2's own classes around the same backbone, with the configuration of a recipe's model."""
    from pipeline_steps.modeling.build import build_from_config, detector_config

    cfg = detector_config(recipe, model_name, categories).clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = True
    model = build_from_config(cfg, device)
    if recipe.training_of(recipe.model(model_name)).channels_last:
        model.to(memory_format=torch.channels_last)
    return model.train()


def their_optimizer(model: torch.nn.Module, training: Any) -> torch.optim.Optimizer:
    """As detectron2's build_optimizer makes it; the norm of the whole gradient is clipped, as ours is."""
    from detectron2.config import get_cfg
    from detectron2.solver import build_optimizer

    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = training.schedule.learning_rate / 100
    cfg.SOLVER.NESTEROV = training.schedule.nesterov
    cfg.SOLVER.WEIGHT_DECAY_NORM = training.schedule.weight_decay_norm
    optimizer = build_optimizer(cfg, model)
    limit = training.schedule.clip_gradient_norm

    def clip(*_: Any) -> None:  # detectron2 itself clips parameter by parameter only, which costs more
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)

    if limit:
        optimizer.register_step_pre_hook(clip)
    return optimizer


# ---- loading --------------------------------------------------------------------------------------------------------


def write_photos(root: Path, count: int) -> list[dict[str, Any]]:
    """Write smooth pictures of 640 x 480 as JPEG; returns LVIS-format image records with polygons."""
    import cv2

    generator = np.random.default_rng(0)
    folder = root / "coco" / "train2017"
    folder.mkdir(parents=True)
    records = []
    for number in range(count):
        height, width = (480, 640) if number % 4 else (640, 480)
        coarse = generator.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(picture, generator.integers(0, 24, picture.shape, dtype=np.uint8))
        cv2.imwrite(str(folder / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        records.append({"id": number, "height": height, "width": width, "coco_url": f"x/train2017/{number}.jpg"})
    return records


def polygon(
    generator: np.random.Generator, width: int, height: int, points: int = 20
) -> tuple[list[float], list[float]]:
    """A star-shaped outline x y x y ... with two decimals, and its box x y w h."""
    radius = generator.uniform(10, min(80, width / 3, height / 3))
    centre = generator.uniform(radius, [width - radius, height - radius])
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = radius * generator.uniform(0.5, 1, points)
    outline = (centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]).round(2)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return outline.ravel().tolist(), [*low.tolist(), *(high - low).round(2).tolist()]


def write_annotations(path: Path, images: list[dict[str, Any]], per_image: int = 12, categories: int = 1230) -> None:
    """An LVIS v0.5 train file with ``per_image`` polygons in each image."""
    generator = np.random.default_rng(1)
    annotations = []
    for image in images:
        image |= {"file_name": "", "neg_category_ids": generator.integers(1, categories + 1, 8).tolist()}
        image |= {"not_exhaustive_category_ids": []}
        for _ in range(per_image):
            outline, box = polygon(generator, image["width"], image["height"])
            category = int(generator.integers(1, categories + 1))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] / 2,
                    "segmentation": [outline],
                }
            )
    listed = [
        {"id": i + 1, "name": f"c{i}", "synset": f"c{i}.n.01", "synonyms": [f"c{i}"], "def": "", "frequency": "f",
         "image_count": 101, "instance_count": 101} for i in range(categories)
    ]  # fmt: skip
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": listed}))


def loading_row(photos: int, pairs: int) -> Row:
    """CPU seconds per image from file to sample."""
    from detectron2.data import DatasetMapper, build_detection_train_loader
    from detectron2.data import transforms as T
    from detectron2.structures import BoxMode

    from pipeline_steps.data.loader import Share, training_batches
    from pipeline_steps.data.lvis import read_lvis
    from pipeline_steps.data.packing import pack
    from pipeline_steps.recipe.training import Augmentation, Training

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        records = write_photos(root, photos)
        write_annotations(root / "train.json", records)
        dataset = read_lvis(root / "train.json", "openimages")

        def path_of(image: Any) -> Path:
            return root / "coco" / "/".join(image.coco_url.split("/")[-2:])

        images = pack([dataset], path_of)
        training = Training(
            images_per_batch=2,
            max_images_per_gpu=2,
            loader_workers=0,
            augmentation=Augmentation(shorter_edge=[800], longer_edge=1333),
        )
        mine = training_batches(images, training, 0, 0, 0, 10**6, Share(0, 1, 2))
        mine._dataset_fetcher.dataset.mapper._cache = None  # a real data set does not fit into memory
        dicts = [
            {
                "file_name": str(path_of(image)),
                "image_id": image.id,
                "height": image.height,
                "width": image.width,
                "annotations": [
                    {
                        "bbox": list(a.bbox),
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": 0,
                        "segmentation": json.loads(bytes(a.segmentation)),
                    }
                    for a in dataset.annotations[image.id]
                ],
            }
            for image in dataset.images
        ]
        mapper = DatasetMapper(
            is_train=True,
            augmentations=[T.ResizeShortestEdge(800, 1333), T.RandomFlip()],
            image_format="BGR",
            use_instance_mask=True,
        )
        theirs = iter(build_detection_train_loader(dicts, mapper=mapper, total_batch_size=2, num_workers=0))

        def take(batches: Iterator[Any]) -> None:
            for _ in range(photos // 2):
                next(batches)

        measured = in_turns(lambda: take(theirs), lambda: take(mine), [()] * pairs)
    images_done = photos // 2 * 2
    return Row(
        f"load an image of 640 x 480 to 800 px ({images_done / measured.ours:.0f} images/s and core)",
        f"detectron2 loader ({images_done / measured.baseline:.0f} images/s)",
        measured.baseline / images_done,
        measured.ours / images_done,
        "s",
        None,
        measured.runs,
        measured.ratio,
    )


# ---- memory ---------------------------------------------------------------------------------------------------------


class _ReadOnly(torch.utils.data.Dataset[int]):
    """Reads records without their images."""

    def __init__(self, read: Any, count: int) -> None:
        self.read, self.count = read, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        self.read(index)
        return index


def _memory_of_loader(read: Any, count: int, workers: int) -> float:
    """MiB of this process and its loader workers together, after each worker has read every record."""
    dataset = _ReadOnly(read, count)
    chunks = [list(range(start, min(start + 256, count))) for start in range(0, count, 256)]
    sampler = [chunk for chunk in chunks for _ in range(workers)]  # batches go round: every worker reads every record
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=len,
        num_workers=workers,
        multiprocessing_context="fork",
        persistent_workers=True,
    )
    for _ in loader:
        pass
    children = [worker.pid for worker in loader._iterator._workers]
    total = 0
    for process in (os.getpid(), *children):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total / 1024


def our_memory(path: str, workers: str) -> float:
    """Packed images, read in ``workers`` processes."""
    from pipeline_steps.data.lvis import read_lvis
    from pipeline_steps.data.packing import pack, return_free_memory

    images = pack([read_lvis(path, "openimages")], lambda image: Path(image.coco_url))
    return_free_memory()

    def read(index: int) -> None:
        first, last = images.objects_offsets[index : index + 2].tolist()
        for item in range(first, last):
            images.polygons(item)
        images.judged(index)

    return _memory_of_loader(read, len(images), int(workers))


def their_memory(path: str, workers: str) -> float:
    """detectron2's list of dicts, serialised as its loader does it."""
    from detectron2.data.common import DatasetFromList
    from detectron2.data.datasets.lvis import load_lvis_json

    dicts = load_lvis_json(path, ".")
    dataset = DatasetFromList(dicts, copy=False)
    del dicts
    return _memory_of_loader(dataset.__getitem__, len(dataset), int(workers))


def memory_rows(images: int, workers: int) -> list[Row]:
    """Memory of all processes of a loader, and peak of the process that reads the file."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "train.json"
        records = [
            {"id": i, "height": 480, "width": 640, "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg"}
            for i in range(images)
        ]
        write_annotations(path, records)
        here = "tests.benchmarks.training_iteration"
        theirs = in_process(f"{here}:their_memory", str(path), str(workers))
        ours = in_process(f"{here}:our_memory", str(path), str(workers))
    size = f"train set of {images:,} images, {12 * images:,} objects"
    return [
        Row(f"{size}, {workers} workers", "detectron2, serialised", theirs.value, ours.value, "MiB"),
        Row(f"reading the {size}", "detectron2 load_lvis_json", theirs.peak_mib, ours.peak_mib, "MiB"),
        Row(f"reading the {size}", "detectron2 load_lvis_json", theirs.seconds, ours.seconds, "s"),
    ]


def main(argv: list[str]) -> list[Row]:
    """Rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="measured pairs of each comparison of times")
    parser.add_argument("--photos", type=int, default=24, help="images of the loading benchmark")
    parser.add_argument("--images", type=int, default=5000, help="images of the memory benchmark")
    parser.add_argument("--workers", type=int, default=4, help="loader processes of the memory benchmark")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    return [
        *(iteration_row(precision, options.pairs) for precision in ("bf16", "fp32")),
        loading_row(options.photos, options.pairs),
        *memory_rows(options.images, options.workers),
    ]


if __name__ == "__main__":
    import sys

    from tests.benchmarks.measure import table

    print(table(main(sys.argv[1:])))
