"""The page of pictures and the small picture."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline_steps.analysis.scenes import MISSED, SceneReader, Shape
from pipeline_steps.analysis.showcase import ExampleGroup, choose_examples, choose_stories, rank_scenes
from pipeline_steps.common.cli import call_step
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.draw_predictions import main, parser
from pipeline_steps.evaluation.matching import TRUE
from pipeline_steps.recipe import load_recipe
from pipeline_steps.report.picture import MAX_BYTES, SHOWN, tiles, write_picture
from pipeline_steps.run.data_files import DatasetPaths
from tests.report.fabricated import fabricate
from tests.report.tiny_world import write_tiny_world


class _Tags(HTMLParser):
    """Start tags with their attributes, and whether open and close tags agree."""

    VOID = {"input", "meta", "link", "use", "image", "path", "br", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def draw(folder: Path, recipe: Path, table: Path, *options: str) -> int:
    arguments = ["--recipe", str(recipe), "--detections", str(table), "--output", str(folder / "gallery.html")]
    return call_step(parser, main, [*arguments, *options])


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    recipe = write_tiny_world(tmp_path)
    return recipe, fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")


def test_page_is_one_well_formed_file_that_needs_no_network(tmp_path: Path, world: tuple[Path, Path]) -> None:
    assert draw(tmp_path, *world) == 0
    text = (tmp_path / "gallery.html").read_text()
    page = _Tags(text)
    assert page.open == []
    links = [value for _, attributes in page.tags for name in ("href", "src") if (value := attributes.get(name))]
    assert all(link.startswith(("data:", "#")) for link in links)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert "url(" not in text
    assert sum(tag == "image" for tag, _ in page.tags) == text.count('<figure class="scene">') > 3
    assert sum(tag == "use" for tag, _ in page.tags) == 2 * text.count('<figure class="scene">')


def test_each_image_is_shown_once_and_at_most_as_many_as_the_recipe_says(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path, report={"gallery_images": 5})
    table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")
    draw(tmp_path, recipe, table)
    shown = re.findall(r'id="image-(\d+)"', (tmp_path / "gallery.html").read_text())
    assert len(shown) == len(set(shown)) == 5


def test_detections_below_the_recipes_score_are_not_drawn(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path, report={"gallery_score": 0.55})
    table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")
    draw(tmp_path, recipe, table)
    scores = [float(s) for s in re.findall(r'class="score">([\d.]+)<', (tmp_path / "gallery.html").read_text())]
    assert scores
    assert min(scores) >= 0.55


def with_columns(table: pa.Table, **columns: np.ndarray) -> pa.Table:
    """The detections table with other values in some columns."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    return table.sort_by([("image_id", "ascending"), ("rank_score", "descending")])


def test_gallery_shows_and_filters_by_the_models_score_whatever_alpha_is(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path, report={"gallery_score": 0.4})
    table = fabricate(tmp_path / "datasets/lvis/lvis_v0.5_val.json", tmp_path / "detections.parquet")
    pages = []
    content = pq.read_table(table)
    for alpha in (0.0, 0.5):
        ranked = with_columns(content, rank_score=np.asarray(content["score"]) + np.float32(alpha))
        pq.write_table(ranked, tmp_path / "ranked.parquet")
        draw(tmp_path, recipe, tmp_path / "ranked.parquet")
        pages.append((tmp_path / "gallery.html").read_text())
    shown = [re.findall(r'class="score">([\d.]+)<', page) for page in pages]
    assert shown[0] == shown[1]
    assert len(shown[0]) > 10
    assert max(map(float, shown[0])) <= 1
    assert len(pages[1]) < 1.02 * len(pages[0])


def test_verdicts_do_not_depend_on_the_score_from_which_detections_are_drawn(tmp_path: Path) -> None:
    write_tiny_world(tmp_path, images=4)
    path = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
    table = fabricate(path, tmp_path / "detections.parquet")
    content = pq.read_table(table)
    # Two detections for each object, whose ranks have nothing to do with their scores, within a category too.
    twice = pa.concat_tables([content, content])
    rng = np.random.default_rng(0)
    scores = {name: rng.random(len(twice), np.float32) for name in ("score", "rank_score")}
    pq.write_table(with_columns(twice, **scores), table)
    dataset = read_lvis(path, "val")
    every, some = SceneReader(dataset, table, -1.0), SceneReader(dataset, table, 0.5)
    hidden = 0
    for image in dataset.images:
        whole, part = every.scene(image.id), some.scene(image.id)
        expected = [(s.category_id, s.score, s.verdict) for s in whole.detections if s.score >= 0.5]
        assert [(s.category_id, s.score, s.verdict) for s in part.detections] == expected
        hidden += len(whole.detections) - len(part.detections)
    assert hidden > 10


def test_names_are_escaped(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path)
    path = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
    truth = json.loads(path.read_text())
    for category in truth["categories"]:
        category["name"] = f"<b>{category['id']}&"
    path.write_text(json.dumps(truth))
    draw(tmp_path, recipe, fabricate(path, tmp_path / "detections.parquet"))
    text = (tmp_path / "gallery.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_an_unreadable_image_is_left_out_with_a_warning(
    tmp_path: Path, world: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path, *world)
    first = re.findall(r'id="image-(\d+)"', (tmp_path / "gallery.html").read_text())[0]
    (tmp_path / f"datasets/coco/val2017/{int(first):012d}.jpg").write_bytes(b"\xff\xd8\xff")
    assert draw(tmp_path, *world) == 0
    assert f'id="image-{first}"' not in (tmp_path / "gallery.html").read_text()
    assert f"{int(first):012d}.jpg" in caplog.text


def test_detections_of_another_split_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
    truth = json.loads(path.read_text())
    for record, key in [(i, "id") for i in truth["images"]] + [(a, "image_id") for a in truth["annotations"]]:
        record[key] += 100_000
    path.write_text(json.dumps(truth))
    assert draw(tmp_path, *world) == 2
    assert "another split" in capsys.readouterr().err
    assert not (tmp_path / "gallery.html").exists()


def test_a_table_without_masks_is_drawn_as_boxes(tmp_path: Path) -> None:
    recipe = write_tiny_world(tmp_path)
    path = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
    table = fabricate(path, tmp_path / "boxes.parquet", masks=False)
    assert draw(tmp_path, recipe, table) == 0
    scene = next(s for s in SceneReader(read_lvis(path, "val"), table, 0.3) if s.detections)
    (corners,) = scene.detections[0].contours()
    assert corners.min(axis=0).tolist() == list(scene.detections[0].box[:2])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_picture_is_small_and_whole(tmp_path: Path, world: tuple[Path, Path], suffix: str) -> None:
    picture = tmp_path / f"picture{suffix}"
    assert draw(tmp_path, *world, "--picture", str(picture)) == 0
    assert picture.stat().st_size <= MAX_BYTES
    with Image.open(picture) as image:
        assert image.size[0] > 400
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_stories_show_what_their_titles_say_and_no_name_covers_another(
    tmp_path: Path, world: tuple[Path, Path]
) -> None:
    reader = SceneReader(read_lvis(tmp_path / "datasets/lvis/lvis_v0.5_val.json", "val"), world[1], 0.1)
    positions = {category_id: k for k, category_id in enumerate(reader.dataset.categories.ids.tolist())}
    found, missed, confused = choose_stories(reader)
    assert found
    assert missed
    for story in [*found, *missed, *confused]:
        truth = story.scene.truths[story.truth]
        said = None if story.detection is None else story.scene.detections[story.detection]
        assert truth.name in story.title
        if story in confused:
            assert (truth.verdict, said.verdict) == (MISSED, "false")
            assert truth.name != said.name
            assert truth.name.split("_")[-1] == said.name.split("_")[-1]
        else:
            assert truth.letter == "r"
            assert truth.verdict == (TRUE if story in found else MISSED)
            assert said is None or story.scene.matches[0, story.detection] == story.truth
    for story in (found[0], missed[0], *confused[:1]):
        for tile in tiles(story, np.zeros((story.scene.image.height, story.scene.image.width, 3), np.uint8), positions):
            assert len(tile.shapes) <= SHOWN + 1
            names = [name for name in tile.names if name]
            assert len(names) == len(tile.shapes)
            for k, (x1, y1, x2, y2) in enumerate(names):
                assert 0 <= x1 < x2 <= tile.size[0]
                assert 0 <= y1 < y2 <= tile.size[1]
                for a1, b1, a2, b2 in names[:k]:
                    assert a2 <= x1 or x2 <= a1 or b2 <= y1 or y2 <= b1


def test_picture_without_any_detection_or_object_is_drawn(tmp_path: Path, world: tuple[Path, Path]) -> None:
    path = tmp_path / "datasets/lvis/lvis_v0.5_val.json"
    content = json.loads(path.read_text())
    bare = content["images"][0]["id"]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != bare]
    path.write_text(json.dumps(content))
    reader = SceneReader(read_lvis(path, "val"), world[1], 2.0)
    every = ExampleGroup("r", True, [bare, *(image["id"] for image in content["images"][1:3])])
    for chosen in ([every], []):
        write_picture(reader, chosen, DatasetPaths(load_recipe(world[0])), tmp_path / "p.png")
        with Image.open(tmp_path / "p.png") as image:
            assert image.size[0] > 400


def test_picture_of_another_type_is_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(tmp_path, *world, "--picture", str(tmp_path / "picture.gif")) == 2
    assert ".png or .jpg" in capsys.readouterr().err


def test_same_input_gives_the_same_bytes(tmp_path: Path, world: tuple[Path, Path]) -> None:
    written = []
    for _ in range(2):
        draw(tmp_path, *world, "--picture", str(tmp_path / "p.png"))
        written.append([(tmp_path / name).read_bytes() for name in ("gallery.html", "p.png")])
    assert written[0] == written[1]


def test_sections_show_what_their_titles_say(tmp_path: Path, world: tuple[Path, Path]) -> None:
    reader = SceneReader(read_lvis(tmp_path / "datasets/lvis/lvis_v0.5_val.json", "val"), world[1], 0.3)
    sections = choose_examples(rank_scenes(reader), 6)
    assert len(sections) == 6
    for section in sections:
        for image_id in section.image_ids:
            scene = reader.scene(image_id)
            wanted = (TRUE,) if section.good else (MISSED, "false")
            assert any(scene.count(section.letter, verdict) for verdict in wanted)


def test_outline_of_a_mask_encloses_exactly_its_pixels() -> None:
    from pycocotools import mask as mask_utils

    pixels = np.zeros((20, 30), np.uint8, order="F")
    pixels[4:9, 10:22] = 1
    pixels[6, 12:15] = 0  # a hole
    shape = Shape(1, "a", "r", TRUE, mask_utils.encode(pixels), (10, 4, 22, 9))
    outer, hole = sorted(shape.contours(), key=lambda c: -np.ptp(c[:, 0]))
    assert np.allclose([outer.min(axis=0), outer.max(axis=0)], [(10, 4), (22, 9)], atol=0.15)
    assert np.allclose([hole.min(axis=0), hole.max(axis=0)], [(12, 6), (15, 7)], atol=0.15)
    x, y = shape.centre()
    assert pixels[int(y), int(x)]
