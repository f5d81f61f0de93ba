"""Category tables: which rows are used, what they mean, and how candidates are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_steps import check_dataset, make_category_tables
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_matching import SourceCategory, match_hierarchy, match_names, plain, singular
from pipeline_steps.data.category_tables import TableRow, load_mapping, map_categories, read_category_table
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.data.records import Category
from pipeline_steps.recipe import resolve_recipe
from tests.data.lvis_files import lvis_content, write

HEADER = "source_id,source_name,lvis_synset,relation,verdict,note\n"


def table(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def categories() -> CategoryList:
    return CategoryList(
        [Category(id=i, name=n, synset=f"{n}.n.01", frequency=f) for i, n, f in ((3, "ball", "f"), (5, "cat", "r"))],
        "LVIS",
    )


def test_selected_rows_map_source_ids_to_lvis_ids(tmp_path: Path, categories: CategoryList):
    rows = read_category_table(
        table(
            tmp_path,
            "9,balls,ball.n.01,equal,use,",
            "10,kitten,cat.n.01,narrower,use,",
            "11,pet,cat.n.01,broader,use,",
            "12,lion,cat.n.01,equal,no,a big one",
            "13,tomcat,cat.n.01,narrower,doubtful,",
        )
    )
    mapping = map_categories(rows, categories, "v0.5", ["equal"], ["use"])
    assert mapping.by_number() == {9: 3}
    assert mapping.known_lvis_ids == [3]
    wide = map_categories(rows, categories, "v0.5", ["equal", "narrower", "broader"], ["use", "doubtful"])
    assert wide.lvis_ids == {"9": 3, "10": 5, "11": 5, "13": 5}
    assert wide.covering_sources == {"9", "11"}
    assert wide.contained_sources == {"9", "10", "13"}
    rare = wide.restricted_to({5})
    assert rare.lvis_ids == {"10": 5, "11": 5, "13": 5}
    assert rare.covering_sources == {"11"}


def test_the_closest_relation_of_a_source_wins(tmp_path: Path, categories: CategoryList):
    path = table(tmp_path, "9,x,cat.n.01,narrower,use,", "9,x,ball.n.01,equal,use,")
    mapping = map_categories(read_category_table(path), categories, "v0.5", ["equal", "narrower"], ["use"])
    assert mapping.lvis_ids == {"9": 3}


def test_two_categories_of_one_relation_are_refused(tmp_path: Path, categories: CategoryList):
    path = table(tmp_path, "9,x,cat.n.01,narrower,use,", "9,x,ball.n.01,narrower,use,")
    with pytest.raises(UserError, match=r"x \(9\) stands for two LVIS categories: line 2 .* and line 3"):
        map_categories(read_category_table(path), categories, "v0.5", ["narrower"], ["use"])


def test_rows_of_another_lvis_version_are_left_out(tmp_path: Path, categories: CategoryList):
    header = HEADER.replace("\n", ",lvis_versions\n")
    path = table(tmp_path, "9,x,old.n.01,equal,use,,v0.5", "9,x,cat.n.01,equal,use,,v1", header=header)
    assert map_categories(read_category_table(path), categories, "v1", ["equal"], ["use"]).lvis_ids == {"9": 5}
    with pytest.raises(UserError, match=r"not exactly one category of LVIS has the synset of line 2 \(x -> old.n.01\)"):
        map_categories(read_category_table(path), categories, "v0.5", ["equal"], ["use"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,a,cat.n.01,equal,,"], r"rows without a verdict: line 2 \(a -> cat.n.01\)"),
        (["1,a,cat.n.01,equal,maybe,"], r"a verdict of use, doubtful, no: line 2"),
        (["1,a,,equal,use,"], r"needs source_id, lvis_synset"),
        (["1,a,cat.n.01,equal,use,", "1,a,cat.n.01,narrower,no,"], r"duplicate rows: line 3"),
        (["1,a,cat.n.01,equal,use,", "2,b,cat.n.01,equal,use,"], r"cannot both be equal"),
        (["1,a,cat.n.01,equal"], "line 2: expected 6 cells"),
        (["1,a,cat.n.01,equal,use,a,b"], "line 2: expected 6 cells"),
        (["1,a,cat.n.01,narrower,use,", "1,a,ball.n.01,broader,use,", "2,b,ball.n.01,narrower,use,"], None),
        (
            [
                "1,a,cat.n.01,narrower,use,",
                "1,a,ball.n.01,broader,use,",
                "2,b,ball.n.01,narrower,use,",
                "2,b,cat.n.01,broader,use,",
            ],
            "circular hierarchy",
        ),
    ],
)
def test_tables_that_cannot_be_trusted_are_refused(tmp_path: Path, lines: list[str], message: str | None):
    path = table(tmp_path, *lines)
    if message is None:
        assert len(read_category_table(path)) == len(lines)
        return
    with pytest.raises(UserError, match=message):
        read_category_table(path)


def test_missing_columns_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="missing columns: relation, note"):
        read_category_table(table(tmp_path, header="source_id,source_name,lvis_synset,verdict\n"))


def test_the_number_of_shared_categories_is_printed_beside_the_reports(
    tmp_path: Path, categories: CategoryList, caplog: pytest.LogCaptureFixture
):
    path = table(tmp_path, "9,balls,ball.n.01,equal,use,", "10,cats,cat.n.01,equal,use,")
    recipe = resolve_recipe({"extends": "challenge.yaml", "data": {"openimages_to_lvis": str(path)}})
    caplog.set_level("INFO")
    assert load_mapping(recipe, "openimages", categories).lvis_ids == {"9": 3, "10": 5}
    assert "2 source categories stand for 2 LVIS categories (the paper: 110)" in caplog.text
    rare = {"extends": "challenge.yaml", "data": {"openimages_to_lvis": str(path)}}
    rare["data"]["openimages"] = {"frequency_groups": ["r"]}
    assert load_mapping(resolve_recipe(rare), "openimages", categories).lvis_ids == {"10": 5}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Orange_(fruit)", "orange"),
        ("Bat (Animal)", "bat"),
        ("ping-pong_ball", "ping pong ball"),
        ("Kitchen & dining room table", "kitchen dining room table"),
    ],
)
def test_plain_names_have_no_marks(name: str, expected: str):
    assert plain(name) == expected


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("chopsticks", "chopstick"),
        ("wine glasses", "wine glass"),
        ("knives", "knife"),
        ("berries", "berry"),
        ("boxes", "box"),
        ("bus", "bus"),
        ("glass", "glass"),
        ("dress", "dress"),
    ],
)
def test_singular_follows_english(plural: str, expected: str):
    assert singular(plural) == expected


def test_candidates_come_from_names_synonyms_plurals_and_spaces():
    lists = {
        "v0.5": CategoryList(
            [
                Category(id=1, name="ax", synset="ax.n.01", synonyms=("ax", "axe")),
                Category(id=2, name="hair_dryer", synset="hand_blower.n.01"),
                Category(id=3, name="mouse_(animal)", synset="mouse.n.01"),
                Category(id=4, name="mouse_(device)", synset="mouse.n.04"),
            ],
            "LVIS",
        )
    }
    names = ["Axe", "Hairdryers", "Mice", "Dog"]
    rows = match_names([SourceCategory(str(k), name) for k, name in enumerate(names)], lists)
    assert [(row.source_name, row.lvis_synset, row.note) for row in rows] == [
        ("Axe", "ax.n.01", "same name, synonym of ax"),
        ("Hairdryers", "hand_blower.n.01", "same spaces"),
        ("Mice", "mouse.n.01", "same plural"),
        ("Mice", "mouse.n.04", "same plural"),
    ]


def test_classes_below_a_matched_class_are_proposed_as_narrower():
    sources = [
        SourceCategory("bird", "Bird"),
        SourceCategory("raptor", "Raptor", ("bird",)),
        SourceCategory("owl", "Owl", ("raptor",)),
        SourceCategory("duck", "Duck", ("bird",)),
    ]
    reviewed = [
        TableRow(0, "bird", "Bird", "bird.n.01", "equal", "use", ""),
        TableRow(0, "bird", "Bird", "shuttlecock.n.01", "equal", "no", ""),
        TableRow(0, "duck", "Duck", "duck.n.01", "equal", "use", ""),
    ]
    rows = match_hierarchy(sources, reviewed)
    assert [(row.source_id, row.lvis_synset, row.relation) for row in rows] == [
        ("raptor", "bird.n.01", "narrower"),
        ("owl", "bird.n.01", "narrower"),
    ]


def run_command(tmp_path: Path, content: dict) -> int:
    lvis = write(tmp_path / "lvis.json", content)
    coco = write(
        tmp_path / "coco.json", [{"id": 1, "name": "acorns"}, {"id": 3, "name": "car"}, {"id": 4, "name": "cat"}]
    )
    arguments = ["--lvis", f"v0.5={lvis}", "--coco", str(coco), "--output", str(tmp_path / "tables")]
    return call_step(make_category_tables.parser, make_category_tables.main, arguments)


def test_running_the_command_again_keeps_the_review(tmp_path: Path):
    assert run_command(tmp_path, lvis_content()) == 0
    path = tmp_path / "tables/coco_to_lvis.csv"
    assert path.read_text() == (
        "source_id,source_name,lvis_synset,relation,verdict,note,lvis_versions\n"
        "1,acorns,acorn.n.01,equal,,same plural,v0.5\n"
        "4,cat,cat.n.01,equal,,same name,v0.5\n"
    )
    review = path.read_text().replace("equal,,same plural", "broader,doubtful,looked at")
    path.write_text(review + "3,car,dagger.n.01,equal,no,added by hand,v0.5\n")
    assert run_command(tmp_path, lvis_content()) == 0
    assert path.read_text() == (
        "source_id,source_name,lvis_synset,relation,verdict,note,lvis_versions\n"
        "1,acorns,acorn.n.01,broader,doubtful,looked at,v0.5\n"
        "3,car,dagger.n.01,equal,no,added by hand,v0.5\n"
        "4,cat,cat.n.01,equal,,same name,v0.5\n"
    )


def test_a_reviewed_row_that_lost_its_synset_stops_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(tmp_path, lvis_content()) == 0
    before = (tmp_path / "tables/coco_to_lvis.csv").read_text()
    content = lvis_content()
    content["categories"][0]["synset"] = "acorn.n.02"
    assert run_command(tmp_path, content) == 2
    assert "reviewed rows that are in no list: line 2 (acorns -> acorn.n.01)" in capsys.readouterr().err
    assert (tmp_path / "tables/coco_to_lvis.csv").read_text() == before


DAMAGED_TABLES = {
    "verdict": "9,x,cat.n.01,equal,maybe,,v0.5",
    "no verdict": "9,x,cat.n.01,equal,,,v0.5",
    "relation": "9,x,cat.n.01,same,use,,v0.5",
    "version": "9,x,cat.n.01,equal,use,,v0.6",
    "synset": "9,x,unicorn.n.01,equal,use,,v0.5",
    "id of no number beside one": "9,x,cat.n.01,equal,use,,v0.5\nnine,y,ball.n.01,equal,use,,v0.5",
    "cells": "9,x,cat.n.01,equal,use",
    "twice": "9,x,cat.n.01,equal,use,,v0.5\n9,x,cat.n.01,equal,use,,v0.5",
    "not text": b"9,\xff,cat.n.01,equal,use,,v0.5",
}


@pytest.mark.parametrize("damage", [None, *DAMAGED_TABLES])
def test_check_dataset_finds_what_the_mapping_of_categories_refuses(tmp_path: Path, damage: str | None, capsys):
    """Oracle: what rescore_ensemble does with the COCO table of a recipe."""
    lvis = write(tmp_path / "lvis_v0.5_val.json", lvis_content())
    header = HEADER.replace("\n", ",lvis_versions\n").encode()
    rows = DAMAGED_TABLES[damage] if damage else "9,x,cat.n.01,equal,use,,v0.5"
    path = tmp_path / "coco_to_lvis.csv"
    path.write_bytes(header + (rows if isinstance(rows, bytes) else rows.encode()) + b"\n")

    def map_as_a_step() -> None:
        origin, known = str(path), read_categories(lvis)
        map_categories(read_category_table(path), known, "v0.5", ["equal"], ["use"], origin).by_number()

    code = call_step(check_dataset.parser, check_dataset.main, [str(path), str(lvis)])
    if damage is None:
        map_as_a_step()
        assert code == 0
    else:
        with pytest.raises(UserError):
            map_as_a_step()
        assert code == 2
        assert "no category table for a recipe: " in capsys.readouterr().out


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path):
    path = table(tmp_path, "9,x,cat.n.01,equal,use,,no", header=HEADER.replace("\n", ",verdict\n"))
    with pytest.raises(UserError, match="duplicate columns: verdict"):
        read_category_table(path)
