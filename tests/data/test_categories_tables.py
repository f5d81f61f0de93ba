"""The reviewed tables in config/categories against the published category lists (copied facts in facts/)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_matching import SourceCategory, format_table, propose_rows
from pipeline_steps.data.category_tables import (
    TableRow,
    check_consistent,
    map_categories,
    parse_rows,
    read_category_table,
)
from pipeline_steps.data.records import Category
from pipeline_steps.recipe import load_recipe

FACTS = Path(__file__).parent / "facts"
CONFIG = Path(__file__).parents[2] / "config"
TABLES = {"coco": CONFIG / "categories/coco_to_lvis.csv", "openimages": CONFIG / "categories/openimages_to_lvis.csv"}
VERSIONS = ("v0.5", "v1")


def facts(name: str) -> list[dict[str, str]]:
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lvis(version: str) -> CategoryList:
    return CategoryList(
        [
            Category(
                id=int(row["id"]),
                name=row["name"],
                synset=row["synset"],
                synonyms=tuple(row["synonyms"].split("/")),
                frequency=row["frequency"],
                image_count=int(row["image_count"]),
            )
            for row in facts(f"lvis_{version}_categories.csv")
        ],
        f"LVIS {version}",
    )


def sources(table: str) -> list[SourceCategory]:
    if table == "coco":
        return [SourceCategory(row["id"], row["name"]) for row in facts("coco_categories.csv")]
    rows = sorted(facts("openimages_classes.csv"), key=lambda row: (row["name"].lower(), row["mid"]))
    return [SourceCategory(row["mid"], row["name"], tuple(row["parents"].split())) for row in rows]


def check_against_lists(path: Path, table: str) -> None:
    """Everything that must hold for a table: reviewed, no repetition, known ids, names and synsets, no cycle."""
    rows = read_category_table(path)
    names = {source.id: source.name for source in sources(table)}
    parents = {source.id: source.parents for source in sources(table)}
    synsets = {version: {category.synset for category in lvis(version).categories} for version in VERSIONS}
    for row in rows:
        if names.get(row.source_id) != row.source_name:
            raise UserError(f"{row}: {row.source_id} is not called so")
        has = tuple(version for version in VERSIONS if row.lvis_synset in synsets[version])
        if not has or has != row.lvis_versions:
            raise UserError(f"{row}: the synset is in {has}, the table says {row.lvis_versions}")
    for version in VERSIONS:
        check_consistent([row for row in rows if row.applies_to(version)], f"{path} {version}", parents)


@pytest.mark.parametrize("table", TABLES)
def test_the_table_holds_against_the_published_lists(table: str):
    check_against_lists(TABLES[table], table)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/m/03bt1gh,Unheard of,acorn.n.01,equal,use,x,v0.5", "is not called so"),
        ("/m/0k4j,Car,no_such_thing.n.01,narrower,use,x,v0.5 v1", "the synset is in"),
        ("/m/0k4j,Car,acorn.n.01,narrower,use,x,v0.5 v1", "the synset is in"),
        ("/m/0k4j,Car,truck.n.01,narrower,,x,v0.5 v1", r"rows without a verdict: line \d+ \(Car -> truck.n.01\)"),
        ("/m/0k4j,Car,car.n.01,narrower,use,x,v0.5 v1", r"duplicate rows: line \d+ \(Car -> car.n.01\)"),
        ("/m/0k4j,Car,truck.n.01,equal,use,x,v0.5 v1", "cannot both be equal"),
        ("/m/0k4j,Car,truck.n.01,similar,use,x,v0.5 v1", "a relation of equal, narrower, broader"),
        # Limousine is below Car in the hierarchy of OpenImages and equal to limousine.n.01.
        ("/m/0k4j,Car,limousine.n.01,narrower,use,x,v0.5 v1", "circular hierarchy, .*: .*limousine"),
        ("/m/01lcw4,Limousine,car.n.01,broader,use,x,v0.5 v1", "circular hierarchy, .*: .*car"),
    ],
)
def test_a_wrong_row_is_found(tmp_path: Path, line: str, message: str):
    path = tmp_path / "table.csv"
    path.write_text(TABLES["openimages"].read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        check_against_lists(path, "openimages")


@pytest.mark.parametrize("version", VERSIONS)
def test_people_cows_and_tanks_are_what_the_definitions_say(version: str):
    categories = lvis(version)
    recipe = load_recipe(CONFIG / "challenge.yaml")
    settings = recipe.data.openimages
    to_lvis = {}
    for table, relations, verdicts in (
        ("coco", recipe.data.coco_relations, recipe.data.coco_verdicts),
        ("openimages", settings.relations, settings.verdicts),
    ):
        mapping = map_categories(read_category_table(TABLES[table]), categories, version, relations, verdicts)
        names = {source.id: source.name for source in sources(table)}
        to_lvis[table] = {names[s]: categories.by_id(i).synset for s, i in mapping.lvis_ids.items()}
    assert to_lvis["coco"]["person"] == to_lvis["openimages"]["Person"] == "person.n.01"
    assert to_lvis["coco"]["cow"] == to_lvis["openimages"]["Cattle"] == "beef.n.01"
    assert to_lvis["coco"]["mouse"] == to_lvis["openimages"]["Computer mouse"] == "mouse.n.04"
    assert to_lvis["openimages"].get("Mouse") == ("mouse.n.01" if version == "v0.5" else None)
    assert to_lvis["openimages"].get("Turkey") == ("turkey.n.01" if version == "v0.5" else None)
    assert to_lvis["coco"].get("oven") == (None if version == "v0.5" else "oven.n.01")
    assert to_lvis["openimages"]["Tank"] == "tank.n.01"
    assert to_lvis["openimages"]["Glasses"] == "spectacles.n.01"
    assert to_lvis["openimages"]["Fish"] == "fish.n.01"
    for wrong in ("Football", "Torch", "Organ (Musical Instrument)", "Man"):
        assert wrong not in to_lvis["openimages"]
    for unequal in ("hot dog", "sports ball", "cup", "dining table", "potted plant", "tv"):
        assert unequal not in to_lvis["coco"]


@pytest.mark.parametrize(
    ("version", "coco", "openimages", "openimages_tail"), [("v0.5", 73, 326, 165), ("v1", 74, 324, 141)]
)
def test_default_choice_shares_as_many_categories_as_documented(
    version: str, coco: int, openimages: int, openimages_tail: int
):
    categories = lvis(version)
    mappings = [
        map_categories(read_category_table(TABLES[table]), categories, version, ["equal"], ["use"])
        for table in ("coco", "openimages")
    ]
    assert [len(mapping.known_lvis_ids) for mapping in mappings] == [coco, openimages]
    tail = set(categories.ids[categories.tail].tolist())
    assert len(mappings[1].restricted_to(tail).known_lvis_ids) == openimages_tail


def test_numbers_in_the_readme_of_the_tables_are_right():
    categories, rows = lvis("v0.5"), read_category_table(TABLES["openimages"])
    tail = set(categories.ids[categories.tail].tolist())
    readme = (CONFIG / "categories/README.md").read_text(encoding="utf-8")
    for relations, verdicts in (
        (["equal"], ["use"]),
        (["equal"], ["use", "doubtful"]),
        (["equal", "narrower"], ["use"]),
    ):
        mapping = map_categories(rows, categories, "v0.5", relations, verdicts)
        keys = f"`relations: [{', '.join(relations)}]`, `verdicts: [{', '.join(verdicts)}]`"
        line = next(line for line in readme.splitlines() if keys in line)
        assert [int(cell) for cell in line.split("|")[2:4]] == [
            len(mapping.known_lvis_ids),
            len(mapping.restricted_to(tail).known_lvis_ids),
        ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("table", TABLES)
def test_every_choice_of_relations_and_verdicts_can_be_used(table: str, version: str):
    rows, categories = read_category_table(TABLES[table]), lvis(version)
    sizes = [
        len(map_categories(rows, categories, version, relations, verdicts).lvis_ids)
        for relations in (["equal"], ["equal", "narrower"], ["equal", "narrower", "broader"])
        for verdicts in (["use"], ["use", "doubtful"])
    ]
    assert sizes[0] <= sizes[1] <= sizes[3] <= sizes[5]
    assert sizes[0] <= sizes[2] <= sizes[4] <= sizes[5]


@pytest.mark.parametrize("table", TABLES)
def test_proposing_again_from_the_lists_changes_nothing(table: str):
    """All candidates of the documented command are in the table, and the review survives it."""
    lists = {version: lvis(version) for version in VERSIONS}
    rows = propose_rows(sources(table), lists, parse_rows(TABLES[table]))
    assert format_table(rows) == TABLES[table].read_text(encoding="utf-8")


def test_unreviewed_candidates_come_without_verdict():
    lists = {version: lvis(version) for version in VERSIONS}
    rows = propose_rows(sources("openimages"), lists)
    assert {row.verdict for row in rows} == {""}
    assert TableRow(0, "/m/04rmv", "Mouse", "mouse.n.01", "equal", "", "same name", ("v0.5",)) in rows
