"""Training samples: geometry, facts, and data that cannot be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_tools

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images import UnreadableImageError, fit_size, read_image, resize_image
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.data.mapper import TrainingMapper, TrainingSamples
from pipeline_steps.data.packed import PackedImages
from pipeline_steps.data.packing import RegionSource, pack
from pipeline_steps.data.sampling import DataOrder
from pipeline_steps.recipe.training import Augmentation

CATEGORIES = [{"id": i, "name": f"c{i}", "synset": f"c{i}.n.01", "frequency": "f", "image_count": 9} for i in (2, 5, 9)]


def dataset(folder: Path, annotations: list[dict[str, Any]], image: dict[str, Any] | None = None, size=(30, 40)):
    """One image of ``size`` (height, width) with ``annotations``, packed."""
    height, width = size
    (folder / "coco" / "train2017").mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "coco/train2017/1.png"), pixels)
    record = {"id": 1, "height": height, "width": width, "coco_url": "x/train2017/1.png", **(image or {})}
    defaults = {"image_id": 1, "area": 1.0}
    content = {
        "images": [record],
        "categories": CATEGORIES,
        "annotations": [{"id": i + 1, **defaults, **a} for i, a in enumerate(annotations)],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return read_lvis(path, "openimages"), lambda _: folder / "coco/train2017/1.png"


def packed(folder: Path, annotations: list[dict[str, Any]], regions=None, **kwargs: Any) -> PackedImages:
    data, find = dataset(folder, annotations, **kwargs)
    return pack([data], find, [regions])


def mapper(images: PackedImages, mask_format="bitmask", seed=0, **augmentation: Any) -> TrainingMapper:
    settings = {"shorter_edge": [30], "longer_edge": 100, "horizontal_flip": False, **augmentation}
    return TrainingMapper(images, Augmentation(**settings), mask_format, seed)


TRIANGLE = {"category_id": 5, "bbox": [4, 6, 20, 12], "segmentation": [[4, 6, 24, 6, 4, 18]]}


class TestGeometry:
    @pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
    @pytest.mark.parametrize("edge", [30, 60, 21])
    def test_equals_detectron2s_dataset_mapper(self, tmp_path, mask_format, edge):
        """Flipped or not, enlarged or shrunk: image, boxes, classes and masks."""
        from detectron2.data import DatasetMapper
        from detectron2.data import transforms as T
        from detectron2.structures import BoxMode

        annotations = [
            TRIANGLE,
            {
                "category_id": 9,
                "bbox": [10, 2, 20, 20],
                "segmentation": [[10, 2, 30, 2, 30, 22, 10, 22], [1, 1, 9, 1, 9, 9]],
            },
        ]
        ours = mapper(packed(tmp_path, annotations), mask_format, shorter_edge=[edge], horizontal_flip=True)
        record = {
            "file_name": str(tmp_path / "coco/train2017/1.png"),
            "height": 30,
            "width": 40,
            "annotations": [
                {
                    **a,
                    "category_id": [2, 5, 9].index(a["category_id"]),
                    # detectron2 would round scaled integers
                    "bbox": [float(value) for value in a["bbox"]],
                    "segmentation": [[float(value) for value in polygon] for polygon in a["segmentation"]],
                    "bbox_mode": BoxMode.XYWH_ABS,
                }
                for a in annotations
            ],
        }
        flips = set()
        for position in range(8):
            sample = ours(0, position)
            flip = ours.draw(position, 30, 40)[2]
            flips.add(flip)
            steps = [T.ResizeShortestEdge(edge, 100), *([T.RandomFlip(prob=1.0)] if flip else [])]
            theirs = DatasetMapper(
                is_train=True, augmentations=steps, image_format="BGR", use_instance_mask=True,
                instance_mask_format=mask_format,
            )(record)  # fmt: skip
            difference = (sample["image"].int() - theirs["image"].int()).abs().max()
            assert difference <= 1  # OpenCV and Pillow round differently
            mine, reference = sample["instances"], theirs["instances"]
            assert mine.image_size == reference.image_size
            torch.testing.assert_close(mine.gt_boxes.tensor, reference.gt_boxes.tensor, atol=1e-4, rtol=0)
            assert torch.equal(mine.gt_classes, reference.gt_classes)
            if mask_format == "bitmask":
                assert torch.equal(mine.gt_masks.tensor, reference.gt_masks.tensor)
            else:
                for a, b in zip(mine.gt_masks.polygons, reference.gt_masks.polygons, strict=True):
                    for x, y in zip(a, b, strict=True):
                        np.testing.assert_allclose(x, y, atol=1e-4)
        assert flips == {True, False}

    def test_rle_masks_are_scaled_and_mirrored_with_the_image(self, tmp_path):
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 8:30] = 1
        rle = mask_tools.encode(np.asfortranarray(mask))
        rle["counts"] = rle["counts"].decode()
        images = packed(tmp_path, [{"category_id": 2, "bbox": [8, 5, 22, 10], "segmentation": rle}])
        ours = mapper(images, shorter_edge=[60], horizontal_flip=True)
        position = next(p for p in range(20) if ours.draw(p, 30, 40)[2])
        expected = np.kron(mask, np.ones((2, 2), np.uint8))[:, ::-1].astype(bool)
        assert np.array_equal(ours(0, position)["instances"].gt_masks.tensor[0].numpy(), expected)

    def test_uncompressed_rle_equals_compressed(self, tmp_path):
        counts = [40, 5, 1155]
        images = packed(
            tmp_path,
            [{"category_id": 2, "bbox": [1, 10, 1, 5], "segmentation": {"size": [30, 40], "counts": counts}}],
        )
        mask = mapper(images)(0, 0)["instances"].gt_masks.tensor[0].numpy()
        assert mask.ravel(order="F").nonzero()[0].tolist() == [40, 41, 42, 43, 44]

    def test_rle_with_polygon_format_is_refused_with_the_setting(self, tmp_path):
        rle = {"size": [30, 40], "counts": [40, 5, 1155]}
        images = packed(tmp_path, [{"category_id": 2, "bbox": [1, 10, 1, 5], "segmentation": rle}])
        with pytest.raises(UserError, match="mask_format to 'bitmask'"):
            mapper(images, "polygon")

    def test_regions_move_with_the_image(self, tmp_path):
        images = packed(tmp_path, [TRIANGLE], RegionSource({1: [[4, 6, 24, 18]]}, 0.5))
        ours = mapper(images, shorter_edge=[60], horizontal_flip=True)
        for position in range(6):
            sample = ours(0, position)
            assert torch.equal(sample["region_boxes"], sample["instances"].gt_boxes.tensor)
            assert sample["region_weights"].tolist() == [0.5]

    def test_boxes_are_clipped_to_the_image(self, tmp_path):
        images = packed(
            tmp_path, [{"category_id": 2, "bbox": [-5, -5, 20, 100], "segmentation": [[0, 0, 15, 0, 15, 30, 0, 30]]}]
        )
        assert mapper(images)(0, 0)["instances"].gt_boxes.tensor.tolist() == [[0, 0, 15, 30]]

    @pytest.mark.parametrize(("size", "expected"), [((480, 640), (800, 1067)), ((300, 1200), (333, 1333))])
    def test_longer_edge_caps_the_shorter(self, size, expected):
        assert fit_size(*size, 800, 1333) == expected

    def test_range_draws_every_edge_in_its_bounds_and_choice_only_its_values(self, tmp_path):
        images = packed(tmp_path, [TRIANGLE])
        ranged = mapper(images, shorter_edge=[40, 44], shorter_edge_sampling="range")
        assert {ranged.draw(p, 30, 40)[0] for p in range(200)} == {40, 41, 42, 43, 44}
        chosen = mapper(images, shorter_edge=[40, 44])
        assert {chosen.draw(p, 30, 40)[0] for p in range(200)} == {40, 44}

    def test_range_needs_two_ascending_bounds(self, tmp_path):
        with pytest.raises(UserError, match="two ascending bounds"):
            mapper(packed(tmp_path, [TRIANGLE]), shorter_edge=[800], shorter_edge_sampling="range")

    def test_shrinking_does_not_alias(self):
        """Stripes of one pixel become grey when the image is halved; a plain bilinear filter would keep stripes."""
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        small = resize_image(stripes, 21, 21)
        assert small.std() < 40
        assert cv2.resize(stripes, (21, 21), interpolation=cv2.INTER_LINEAR).std() > 70


class TestFacts:
    def test_negative_categories_are_ids_and_not_positions(self, tmp_path):
        """Categories 2, 5, 9 are positions 0, 1, 2: S_P = {5}, S_N = {9} judges positions 1 and 2 only."""
        images = packed(tmp_path, [TRIANGLE], image={"neg_category_ids": [9]})
        sample = mapper(images)(0, 0)
        assert sample["judged"].tolist() == [False, True, True]
        assert sample["instances"].gt_classes.tolist() == [1]

    def test_unknown_categories_and_group_boxes_of_box_only_images(self, tmp_path):
        image = {"box_only": True, "known_category_ids": [5, 2], "ignore_boxes": [[0, 0, 10, 20]]}
        box = {"category_id": 5, "bbox": [4, 6, 20, 12]}
        sample = mapper(packed(tmp_path, [box], image=image))(0, 0)
        assert sample["known"].tolist() == [True, True, False]
        assert sample["has_masks"] is False
        assert not sample["instances"].has("gt_masks")
        assert sample["region_boxes"].tolist() == [[0, 0, 10, 20]]
        assert sample["region_weights"].tolist() == [0.0]

    def test_regions_of_one_object_and_of_many_are_told_apart(self, tmp_path):
        image = {"box_only": True, "ignore_boxes": [[0, 0, 10, 20]], "group_boxes": [[5, 5, 20, 20], [0, 0, 40, 30]]}
        images = packed(tmp_path, [], RegionSource({1: [[4, 6, 24, 18]]}, 0.5), image=image)
        sample = mapper(images)(0, 0)
        assert sample["region_boxes"].tolist() == [[0, 0, 10, 20], [5, 5, 25, 25], [0, 0, 40, 30], [4, 6, 24, 18]]
        assert sample["region_groups"].tolist() == [False, True, True, False]
        assert sample["region_weights"].tolist() == [0.0, 0.0, 0.0, 0.5]

    def test_group_boxes_and_unknown_categories_are_switches_of_their_own(self, tmp_path):
        image = {"box_only": True, "known_category_ids": [5, 2], "group_boxes": [[0, 0, 10, 20]]}
        data, find = dataset(tmp_path, [{"category_id": 5, "bbox": [4, 6, 20, 12]}], image)
        without_groups = mapper(pack([data], find, ignore_boxes=False))(0, 0)
        assert without_groups["region_boxes"].shape == (0, 4)
        assert without_groups["known"].tolist() == [True, True, False]
        all_known = mapper(pack([data], find, unknown_categories=False))(0, 0)
        assert all_known["region_weights"].tolist() == [0.0]
        assert all_known["known"].all()

    def test_image_without_annotations_is_a_sample_without_objects(self, tmp_path):
        sample = mapper(packed(tmp_path, []))(0, 0)
        assert len(sample["instances"]) == 0
        assert sample["instances"].gt_masks.tensor.shape == (0, 30, 40)
        assert sample["known"].all()

    def test_dropped_annotation_still_counts_as_judged(self, tmp_path):
        images = packed(tmp_path, [{**TRIANGLE, "bbox": [4, 6, 0, 12]}])
        assert len(images.boxes) == 0
        assert mapper(images)(0, 0)["judged"].tolist() == [False, True, False]


class TestUnusableAnnotations:
    @pytest.mark.parametrize(
        ("annotation", "reason"),
        [
            ({**TRIANGLE, "bbox": [4, 6, 0, 12]}, "box without extent"),
            ({**TRIANGLE, "bbox": [45, 6, 10, 12]}, "box entirely outside its image"),
            ({**TRIANGLE, "bbox": [-20, 6, 20, 12]}, "box entirely outside its image"),
            ({**TRIANGLE, "segmentation": []}, "empty segmentation"),
            (
                {**TRIANGLE, "segmentation": [[4, 6, 24, 6]]},
                "polygon of less than three points",
            ),
            ({**TRIANGLE, "segmentation": [[4, 6, 24, 6, 14, 6]]}, "polygon encloses nothing"),
        ],
    )
    def test_is_left_out_counted_and_named(self, tmp_path, caplog, annotation, reason):
        with caplog.at_level(logging.WARNING):
            images = packed(tmp_path, [annotation, TRIANGLE])
        assert len(images.boxes) == 1
        assert f"train.json: left out 1 of 2 annotations: 1 {reason}" in caplog.text
        assert ": annotation 1 of image 1" in caplog.text

    def test_crowds_are_left_out(self, tmp_path):
        assert len(packed(tmp_path, [{**TRIANGLE, "iscrowd": 1}, TRIANGLE]).boxes) == 1

    def test_more_than_the_limit_stop_the_training_and_name_the_setting(self, tmp_path):
        data, find = dataset(tmp_path, [{**TRIANGLE, "segmentation": []}] * 12 + [TRIANGLE] * 12)
        pack([data], find, max_unusable=0.5)
        with pytest.raises(UserError, match=r"12 of 24 annotations .*10 are allowed \(data.max_unus"):
            pack([data], find, max_unusable=0.01)

    def test_data_sets_with_other_categories_cannot_be_concatenated(self, tmp_path, monkeypatch):
        first, find = dataset(tmp_path, [TRIANGLE])
        (tmp_path / "other").mkdir()
        monkeypatch.setitem(CATEGORIES[0], "id", 3)
        second, _ = dataset(tmp_path / "other", [TRIANGLE])
        with pytest.raises(UserError, match=r"different categories \(2, 3\)"):
            pack([first, second], find)


class TestUnreadableImages:
    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda content: content[: len(content) // 2], "truncated, damaged or not an image"),
            (lambda content: content[:-2], "truncated, damaged or not an image"),
            (lambda content: b"", "the file is empty"),
            (lambda content: b"<html>not found</html>", "truncated, damaged or not an image"),
        ],
    )
    def test_damaged_files_are_noticed(self, tmp_path, damage, reason):
        path = tmp_path / "a.jpg"
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UnreadableImageError, match=reason):
            read_image(path, 64, 64)

    def test_missing_file_and_wrong_size_say_so(self, tmp_path):
        with pytest.raises(UnreadableImageError, match="No such file"):
            read_image(tmp_path / "a.jpg", 4, 4)
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
        with pytest.raises(UnreadableImageError, match="is 6 x 4 pixels, but its annotations say 4 x 6"):
            read_image(tmp_path / "a.png", 6, 4)

    def test_exif_orientation_is_applied(self, tmp_path):
        from PIL import Image

        image = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (20, 1, 3)))
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees
        image.save(tmp_path / "a.jpg", exif=exif, quality=95)
        pixels = read_image(tmp_path / "a.jpg", 40, 20).astype(int)
        assert pixels[35, 10, 0] > pixels[5, 10, 0] + 100

    def test_stand_in_is_the_next_readable_image_with_the_augmentation_of_its_place(self):
        class Mapper:
            def __call__(self, index: int, position: int) -> dict[str, Any]:
                if index in (1, 3):
                    raise UnreadableImageError(f"{index}.jpg", "truncated")
                return {"image": index, "position": position}

        order = DataOrder(np.ones(6), seed=0)
        samples = TrainingSamples(Mapper(), order, max_unreadable_images=2)
        for position in range(12):
            place = next(p for p in range(position, position + 3) if order[p] not in (1, 3))
            sample = samples[position]
            assert (sample["image"], sample["position"]) == (order[place], position)
            skipped = [f"{order[p]}.jpg" for p in range(position, place)]
            assert [path for path, _ in sample["unreadable"]] == skipped

    def test_gives_up_when_nothing_is_readable(self):
        class Mapper:
            def __call__(self, index: int, position: int) -> dict[str, Any]:
                raise UnreadableImageError(f"{index}.jpg", "truncated")

        sample = TrainingSamples(Mapper(), DataOrder(np.ones(3), 0), 10)[0]
        assert "image" not in sample
        assert len(sample["unreadable"]) == 3


class TestPackedImages:
    def test_survive_a_memory_mapped_folder(self, tmp_path):
        images = packed(tmp_path, [TRIANGLE], RegionSource({1: [[1, 2, 3, 4]]}, 0.5), image={"neg_category_ids": [9]})
        folder = tmp_path / "arrays"
        folder.mkdir()
        images.save(folder)
        loaded = PackedImages.load(folder)
        assert loaded.digest() == images.digest()
        assert loaded.path(0) == images.path(0)
        a, b = mapper(loaded)(0, 3), mapper(images)(0, 3)
        assert torch.equal(a["instances"].gt_masks.tensor, b["instances"].gt_masks.tensor)
        assert a["judged"].tolist() == b["judged"].tolist()

    def test_digest_changes_with_the_annotations(self, tmp_path):
        assert packed(tmp_path, [TRIANGLE]).digest() != packed(tmp_path, [TRIANGLE, TRIANGLE]).digest()
