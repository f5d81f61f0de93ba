"""One catalogue of damage to annotation files, and every step that reads them, in this process.

A verdict is ``refused`` (one message, exit code 2), ``left out`` (a warning that names annotations) or ``taken``.
Anything else, an exception above all, is a failure of the test that asked.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from pipeline_steps.analysis.scenes import SceneReader
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.checks.check import check_file
from pipeline_steps.data.checks.findings import LEFT_OUT, REFUSED, Findings
from pipeline_steps.data.coco import boxes_by_image, read_coco
from pipeline_steps.data.images import UnreadableImageError
from pipeline_steps.data.loader import load_training_set
from pipeline_steps.data.lvis import read_categories, read_category_list, read_image_ids, read_lvis
from pipeline_steps.data.mapper import TrainingMapper
from pipeline_steps.detections.record import ImageDetections
from pipeline_steps.detections.table import TableWriter
from pipeline_steps.evaluation.metrics import coco_metrics, lvis_metrics
from pipeline_steps.openimages.dataset import lvis_image_counts
from tests.training.world import make_recipe

Damage = Callable[[dict[str, Any]], Any]
HEIGHT, WIDTH = 48, 64
"""Of the first image of the world."""
LVIS, COCO = "lvis/lvis_v0.5_train.json", "coco/annotations/instances_train2017.json"


def _set(section: str, key: str, value: Any) -> Damage:
    return lambda content: content[section][0].__setitem__(key, value)


def _drop(section: str, key: str) -> Damage:
    return lambda content: content[section][0].pop(key, None)


def _compressed(*runs: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    rle = mask_tools.frPyObjects({"size": list(size), "counts": list(runs)}, *size)
    return {"size": list(size), "counts": rle["counts"].decode()}


MASKS: dict[str, Any] = {
    "polygon of 1e9": [[0, 0, 1e9, 0, 1e9, 1e9]],
    "polygon of 1e300": [[0, 0, 1e300, 0, 1e300, 1e300]],
    "polygon of integers above 64 bits": [[0, 0, 10**30, 0, 10**30, 10**30]],
    "polygon outside the image": [[100, 100, 110, 100, 110, 110]],
    "polygon at its edge": [[64, 0, 70, 0, 70, 10]],
    "flat polygon": [[1, 1, 5, 5, 9, 9]],
    "polygon of two points": [[1, 1, 5, 5]],
    "polygon of seven numbers": [[1, 1, 5, 5, 9, 1, 3]],
    "polygon and an empty one": [[1, 1, 9, 1, 9, 9], []],
    "polygon with text": [[1, 1, 9, "1", 9, 9]],
    "polygon with null": [[1, 1, 9, None, 9, 9]],
    "polygon that is no list": [1, 1, 9, 1, 9, 9],
    "polygon of points": [[[1, 1], [9, 1], [9, 9]]],
    "empty list": [],
    "null": None,
    "text": "mask",
    "number": 5,
    "RLE, malformed text": {"size": [HEIGHT, WIDTH], "counts": "\x00\x7f~~"},
    "RLE, unfinished text": {"size": [HEIGHT, WIDTH], "counts": "oooo"},
    "RLE, not ASCII": {"size": [HEIGHT, WIDTH], "counts": "äöü"},
    "RLE, empty text": {"size": [HEIGHT, WIDTH], "counts": ""},
    "RLE that falls short": _compressed(100, 50),
    "RLE that is too long": _compressed(0, HEIGHT * WIDTH, 1),
    "RLE without a pixel": _compressed(HEIGHT * WIDTH),
    "RLE of another size": _compressed(0, WIDTH * HEIGHT, size=(WIDTH, HEIGHT)),
    "RLE with three sizes": {"size": [HEIGHT, WIDTH, 1], "counts": "00"},
    "RLE with a size of text": {"size": ["48", "64"], "counts": "00"},
    "RLE with huge size": {"size": [2**40, 2**40], "counts": [0, 2**80]},
    "RLE without size": {"counts": [0, HEIGHT * WIDTH]},
    "RLE without counts": {"size": [HEIGHT, WIDTH]},
    "RLE with null": {"size": [HEIGHT, WIDTH], "counts": None},
    "runs that fall short": {"size": [HEIGHT, WIDTH], "counts": [10, 10]},
    "runs without a pixel": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]},
    "runs without any": {"size": [HEIGHT, WIDTH], "counts": []},
    "negative runs": {"size": [HEIGHT, WIDTH], "counts": [-10, HEIGHT * WIDTH + 10]},
    "runs of 2**40": {"size": [HEIGHT, WIDTH], "counts": [2**40]},
    "runs with fractions": {"size": [HEIGHT, WIDTH], "counts": [0.5, HEIGHT * WIDTH - 0.5]},
}
BOXES: dict[str, Any] = {
    "1e-6 pixels": [10, 10, 1e-6, 1e-6],
    "1e-6 pixels inside": [WIDTH - 1e-6, 10, 5, 5],
    "no width": [10, 10, 0, 5],
    "negative": [10, 10, -5, 5],
    "outside": [200, 10, 5, 5],
    "of 1e9": [1e9, 1e9, 1e9, 1e9],
    "of 1e300": [-1e300, 0, 1e301, 5],
    "from far to far": [-1e9, -1e9, 3e9, 3e9],
    "three numbers": [1, 2, 3],
    "null": None,
    "text": "box",
    "with null": [1, 2, None, 4],
}
IDS = {
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "2**70": 2**70,
    "2**53+2": 2**53 + 2,
    "text": "1",
    "null": None,
    "true": True,
}


def catalogue() -> dict[str, Damage]:
    """Damage by name: functions that change the content of a sound file."""
    damage: dict[str, Damage] = {f"mask: {name}": _set("annotations", "segmentation", v) for name, v in MASKS.items()}
    damage["mask: missing"] = _drop("annotations", "segmentation")
    damage |= {f"box: {name}": _set("annotations", "bbox", value) for name, value in BOXES.items()}
    damage["box: missing"] = _drop("annotations", "bbox")
    for section in ("annotations", "images", "categories"):
        damage |= {f"{section}: id {name}": _set(section, "id", value) for name, value in IDS.items()}
        damage[f"{section}: id missing"] = _drop(section, "id")
        damage[f"{section}: id twice"] = lambda c, s=section: c[s][0].update(id=c[s][1]["id"])
        damage[f"{section}: a number"] = lambda c, s=section: c[s].__setitem__(0, 7)
        damage[f"{section}: null"] = lambda c, s=section: c.__setitem__(s, None)
        damage[f"{section}: missing"] = lambda c, s=section: c.pop(s)
        damage[f"{section}: empty"] = lambda c, s=section: c[s].clear()
    for key in ("image_id", "category_id"):
        damage |= {f"{key} {n}": _set("annotations", key, v) for n, v in IDS.items()}
    for name, area in {
        "null": None,
        "negative": -3,
        "text": "9",
        "0": 0,
        "1e400": "1e400",
        "of 10 images": 40000,
    }.items():
        damage[f"area {name}"] = _set("annotations", "area", area)
    damage["area missing"] = _drop("annotations", "area")
    damage["area 100 times too large"] = lambda c: c["annotations"][0].update(area=c["annotations"][0]["area"] * 100)
    for value in (1, 2, -1, True, None, "0"):
        damage[f"iscrowd {value!r}"] = _set("annotations", "iscrowd", value)
    for value in (1, True, "yes"):
        damage[f"ignore {value!r}"] = _set("annotations", "ignore", value)
    for key in ("width", "height"):
        for value in (None, 0, -5, 10**9, 2**70, 64.5, "64"):
            damage[f"{key} {value!r}"] = _set("images", key, value)
        damage[f"{key} missing"] = _drop("images", key)
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        for value in (None, [4.5], [-1], [2**70], ["1"], "1", [[1]], [99]):
            damage[f"{key} {value!r}"] = _set("images", key, value)
        damage[f"{key} missing"] = _drop("images", key)
    damage["frequency x"] = _set("categories", "frequency", "x")
    damage["frequency 5"] = _set("categories", "frequency", 5)
    damage["frequency missing"] = _drop("categories", "frequency")
    damage["no frequency, no count"] = lambda c: [c["categories"][0].pop(k, None) for k in ("frequency", "image_count")]
    damage["name null"] = _set("categories", "name", None)
    damage["image_count 1.5"] = _set("categories", "image_count", 1.5)
    damage["all boxes without extent"] = lambda c: [a.update(bbox=[5, 5, 0, 0]) for a in c["annotations"]]
    damage["all masks empty"] = lambda c: [a.update(segmentation=[]) for a in c["annotations"]]
    return damage


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def verdict(step: Callable[[], Any]) -> str:
    """What a step does with a file."""
    messages, root = _Messages(), logging.getLogger("pipeline_steps")
    root.addHandler(messages)
    try:
        step()
    except UserError:
        return REFUSED
    finally:
        root.removeHandler(messages)
    return LEFT_OUT if any("left out" in t or "no detection can match" in t for t in messages.texts) else "taken"


class Steps:
    """The steps that read annotation files, on the files of a world (``tests.training.world``)."""

    def __init__(self, root: Path) -> None:
        recipe = make_recipe(root, mask_format="bitmask", loader_workers=0)
        # One file only: two of different categories are refused, which is no damage of either.
        models = [model.model_copy(update={"datasets": ["lvis_train"]}) for model in recipe.models]
        self.root, self.recipe = root, recipe.model_copy(update={"models": models})
        self.sound = {name: json.loads((root / name).read_text()) for name in (LVIS, COCO)}
        for category in self.sound[LVIS]["categories"]:  # the world's counts are those of a larger one
            mine = [a["image_id"] for a in self.sound[LVIS]["annotations"] if a["category_id"] == category["id"]]
            category.update(frequency="r", image_count=len(set(mine)), instance_count=len(mine))
        self.restore()
        for name, content in self.sound.items():
            (root / f"{Path(name).stem}_results.json").write_text(json.dumps(self._results(content)))
        self.table = root / "detections.parquet"
        with TableWriter(self.table, {"recipe": "tiny", "step": "test"}) as writer:
            for image in self.sound[LVIS]["images"]:
                rle = mask_tools.encode(np.ones((image["height"], image["width"]), np.uint8, order="F"))["counts"]
                writer.write_image(
                    image["id"], ImageDetections(image["id"], [1], [0.9], [0.9], [[0, 0, 9, 9]], "m", [rle])
                )

    @staticmethod
    def _results(content: dict[str, Any]) -> list[dict[str, Any]]:
        size = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        results = []
        for number, annotation in enumerate(content["annotations"]):
            rle = mask_tools.frPyObjects(annotation["segmentation"], *size[annotation["image_id"]])[0]
            mask = {"size": list(size[annotation["image_id"]]), "counts": rle["counts"].decode()}
            kept = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
            results.append({**kept, "score": 1 - number / 100, "segmentation": mask})
        return results

    def write(self, name: str, damage: Damage) -> Path:
        content = copy.deepcopy(self.sound[name])
        damage(content)
        (self.root / name).write_text(json.dumps(content).replace('"1e400"', "1e400"))
        return self.root / name

    def restore(self) -> None:
        for name, content in self.sound.items():
            (self.root / name).write_text(json.dumps(content))

    def train(self, model: str) -> None:
        """Read as training and count_samples do, and make every sample."""
        images = load_training_set(self.recipe, model).images
        mapper = TrainingMapper(images, self.recipe.training.augmentation, "bitmask", 0)
        for index in range(len(images)):
            try:
                sample = mapper(index, index)
            except UnreadableImageError:  # of another size than its record says: training skips and names it
                continue
            instances = sample["instances"]
            assert np.isfinite(instances.gt_boxes.tensor.numpy()).all()
            assert (instances.gt_boxes.tensor[:, 2:] > instances.gt_boxes.tensor[:, :2]).all()
            if sample["has_masks"] and len(instances):
                assert instances.gt_masks.tensor.flatten(1).any(dim=1).all(), "an empty mask is trained on"

    def evaluate(self, name: str, iou_type: str) -> None:
        path, results = self.root / name, self.root / f"{Path(name).stem}_results.json"
        if name == LVIS:
            metrics, _ = lvis_metrics(path, results, iou_type, 300, 10000, "compiled")
        else:
            metrics, _ = coco_metrics(path, results, iou_type, "compiled")
        assert metrics["AP"] is None or 0 <= metrics["AP"] <= 100.0001

    def index(self) -> None:
        paths, coco = [self.root / LVIS, self.root / COCO], read_coco(self.root / COCO)
        coco.findings.leave_out(paths[1], 1, 1.0)
        boxes_by_image(coco, read_image_ids(paths[0]))

    def look(self) -> None:
        """Read ground truth as inspect, the gallery and draw_predictions do, and make every scene."""
        for scene in SceneReader(read_lvis(self.root / LVIS, "val"), self.table, 0.1):
            for shape in scene.truths:
                shape.contours()

    def partial(self, name: str) -> dict[str, Callable[[], Any]]:
        """Steps that read a part of the file only."""
        path = self.root / name
        steps: dict[str, Callable[[], Any]] = {"make_category_tables": lambda: read_category_list(str(path))}
        if name == LVIS:
            steps["write_submission"] = lambda: read_lvis(path, "test_info")
            steps["select_openimages"] = lambda: lvis_image_counts(path, read_categories(path))
        return steps


def expected(findings: Findings, purpose: str) -> str:
    """What check_dataset says that a purpose does."""
    does = {getattr(kind.check, purpose) for kind in findings.kinds.values()}
    if REFUSED in does:
        return REFUSED
    leaves = LEFT_OUT in {kind.check.training for kind in findings.kinds.values()}
    return LEFT_OUT if leaves else "taken"


def compare(steps: Steps, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Verdicts of the steps on the file ``name`` and what check_dataset expects of those for which it says so.

    A finding may be of masks, which evaluation of boxes leaves unread: there the steps may be more lenient.
    """
    path = steps.root / name
    train = (lambda: steps.train("basic_coco")) if name == COCO else (lambda: steps.train("basic"))
    given = {"train": verdict(train), "evaluate": verdict(lambda: steps.evaluate(name, "segm"))}
    try:
        findings = check_file(path).findings
        said = {"train": expected(findings, "training"), "evaluate": expected(findings, "evaluation")}
        errors = findings.count("error")
    except UserError:
        said, errors = dict.fromkeys(given, REFUSED), 1
    if name == LVIS:
        given["look"] = verdict(steps.look)
    else:
        given["index_coco_boxes"] = verdict(steps.index)
    given["evaluate boxes"] = verdict(lambda: steps.evaluate(name, "bbox"))
    given |= {step: verdict(run) for step, run in steps.partial(name).items()}
    assert errors or set(given.values()) == {"taken"}, f"check_dataset finds nothing, but {given}"
    return given, said
