"""Damaged annotation files: every step refuses them, leaves annotations out and says so, or is right; and check_dataset
says the same beforehand."""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import pytest

from tests.data.damaged_files import COCO, LVIS, Steps, catalogue, compare
from tests.training.world import write_world


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    return Steps(write_world(tmp_path_factory.mktemp("damaged"), images=5, openimages=2))


@pytest.fixture(autouse=True)
def _sound(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_steps.data.loader.return_free_memory", lambda: None)  # a second each
    steps.restore()


@pytest.mark.parametrize("name", [LVIS, COCO])
def test_sound_files_are_taken_by_every_step(steps: Steps, name: str):
    given, said = compare(steps, name)
    assert set(given.values()) | set(said.values()) == {"taken"}


@pytest.mark.parametrize("name", [LVIS, COCO])
@pytest.mark.parametrize("damage", catalogue())
def test_steps_do_what_check_dataset_says(steps: Steps, name: str, damage: str):
    if name == COCO and damage.startswith("frequency"):
        return  # a file with frequencies is one of LVIS
    steps.write(name, catalogue()[damage])
    given, said = compare(steps, name)
    assert {step: given[step] for step in said} == said


VALUES: list[Any] = [
    None, True, "", "x", 0, -1, 1, 7, 1.5, 1e-9, -0.0, 1e9, 1e300, -1e300, 2**31, 2**53, 2**63, 2**70, [], {}, [[]],
    [0, 0, 1, 1], [[1, 1, 5, 5, 9, 1]], {"size": [48, 64], "counts": "0"},
]  # fmt: skip


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below ``node``."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


def mutate(content: dict[str, Any], generator: random.Random) -> None:
    """One to three random changes: another value, another place's value, a missing or a repeated entry."""
    for _ in range(generator.choice([1, 1, 2, 3])):
        places = _places(content)
        node, key = generator.choice(places)
        other, elsewhere = generator.choice(places)
        what = generator.random()
        if what < 0.5:
            node[key] = generator.choice(VALUES)
        elif what < 0.7 and isinstance(node[key], int | float):
            node[key] = node[key] * generator.choice([-1, 1e-7, 0.01, 100, 1e7])
        elif what < 0.8:
            node[key] = copy.deepcopy(other[elsewhere])
        elif what < 0.9:
            del node[key]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[key]))


@pytest.mark.parametrize("name", [LVIS, COCO])
@pytest.mark.parametrize("seed", range(int(os.environ.get("DAMAGED_FILES", "60"))))
def test_random_damage_never_ends_in_a_traceback_and_is_found_beforehand(steps: Steps, name: str, seed: int):
    steps.write(name, lambda content: mutate(content, random.Random(f"{name} {seed}")))
    given, said = compare(steps, name)
    assert {step: given[step] for step in said} == said
