"""Tables of the parents of categories, and how the one of LVIS is made from WordNet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.category_parents import read_parents, wordnet_parents

ROOT = Path(__file__).parents[2]
FACTS = ROOT / "tests/data/facts"

INDEX = """  1 a licence
ball n 2 2 @ ~ 2 1 00000300 00000200
game_equipment n 1 1 @ 1 0 00000100
dance n 1 1 @ 1 0 00000400
"""
DATA = """  1 a licence
00000100 06 n 01 game_equipment 0 000 | things for games
00000200 11 n 02 Ball 0 formal 1 002 @ 00000400 n 0000 ~ 00000100 n 0000 | a dance
00000300 06 n 01 ball 0 003 @ 00000100 n 0000 + 00000999 v 0101 @ 00000400 n 0000 | a round thing
00000400 04 n 01 dance 0 000 | movement
"""


def test_parents_are_the_direct_hypernyms_of_the_sense(tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text(INDEX)
    (tmp_path / "data.noun").write_text(DATA)
    assert wordnet_parents(tmp_path, ["ball.n.01", "ball.n.02", "ball.n.03", "unknown.n.01", "dance.n.01"]) == [
        ("ball.n.01", "game_equipment.n.01"),
        ("ball.n.01", "dance.n.01"),
        ("ball.n.02", "dance.n.01"),
    ]
    with pytest.raises(UserError, match=r"index\.noun"):
        wordnet_parents(tmp_path / "nowhere", [])


@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_all_but_one_category_of_lvis_have_parents_and_siblings_are_near_synonyms(version: str) -> None:
    with (FACTS / f"lvis_{version}_categories.csv").open() as file:
        categories = list(csv.DictReader(file))
    parents = read_parents(ROOT / "config/categories/parents.csv", categories)
    assert parents is not None
    by_synset = {category["synset"]: group for category, group in zip(categories, parents)}
    assert [synset for synset, group in by_synset.items() if not group] == ["stop_sign.n.01"]
    assert by_synset["apple.n.01"] & by_synset["pear.n.01"] == {"edible_fruit.n.01", "pome.n.01"}
    assert not by_synset["apple.n.01"] & by_synset["armchair.n.01"]


def test_names_serve_where_there_are_no_synsets_and_a_foreign_table_is_none(tmp_path: Path) -> None:
    table = tmp_path / "parents.csv"
    table.write_text("category,parent\nred,colour\nblue,colour\nblue,mood\n")
    categories = [{"name": "blue"}, {"name": "tree"}, {"name": "red"}]
    assert read_parents(table, categories) == [{"colour", "mood"}, frozenset(), {"colour"}]
    assert read_parents(table, [{"name": "tree"}]) is None
    table.write_text("category,parent\nred,\n")
    with pytest.raises(UserError, match="line 2"):
        read_parents(table, categories)
