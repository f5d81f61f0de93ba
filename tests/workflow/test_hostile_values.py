"""No value of a recipe is ever read by a shell: each is one argument, or refused."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import resolve_recipe
from pipeline_steps.recipe.schema import Recipe
from tests.workflow.checkout import ROOT, Checkout

MODEL = {"name": "one", "detector": "config/detectors/mini_basic_fpn.yaml", "init": "start"}
BASE: dict[str, Any] = {
    "name": "hostile",
    "datasets_root": "data",
    "data": {"source": "download", "derived_root": "made", "download": {"mirrors": {"http://x": "http://y"}}},
    "training": {"detector_options": ["TEST.AUG.ENABLED", "False"], "coco_ignore": {"enabled": True}},
    "weights": [{"name": "start", "file": "weights.pth", "layout": "torchvision_resnet"}],
    "pretraining": [{**MODEL, "name": "before", "datasets": ["coco_train"]}],
    "models": [{**MODEL, "datasets": ["lvis_train", "openimages_train"]}],
    "experts": [{**MODEL, "name": "expert", "category_table": "coco", "datasets": ["coco_train"]}],
    "testing": {"mask_models": ["one"], "shards": 1},
    "ensemble": {"members": [{"name": "one"}, {"name": "expert"}]},
    "variants": {"other": {"testing": {"mask_scales": [800]}}},
    "report": {"tables": {"table5": {"val": ["ensemble"]}}, "ablations": {"comparisons": {"one": []}, "note": "n"}},
}
EVIL = [
    "a b",
    "it's",
    'say "x"',
    "$(touch PWNED)",
    "`touch PWNED`",
    "x; touch PWNED",
    "x && touch PWNED",
    "x\ntouch PWNED\n",
    "x\ttouch",
    "\0",
    "{wildcards.model}",
    "-x",
    "Straße/写真",
]
ALL_AT_ONCE = '0 it\'s "$(touch PWNED)"; é写 & `touch PWNED` > PWNED | *? \\ $HOME #9'

Key = tuple[str | int, ...]


def holds_text(annotation: Any) -> bool:
    """Whether a value of this type can be any text, or hold it."""
    return annotation is str or (annotation is not Recipe and any(map(holds_text, get_args(annotation))))


def inner(annotation: Any) -> list[type[BaseModel]]:
    candidates = (annotation, *get_args(annotation))
    return [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]


def text_keys(section: type[BaseModel], above: Key = ()) -> Iterator[Key]:
    """Every key of the recipe with free text, as declared: ``*`` stands for the entries of a list or a mapping."""
    for name, field in section.model_fields.items():
        many = ("*",) if get_args(field.annotation) else ()
        if sections := inner(field.annotation):
            yield from text_keys(sections[0], (*above, name, *many))
        elif holds_text(field.annotation):
            yield (*above, name)


def put(values: Any, key: Key, text: str) -> Any:
    """``values`` with ``text`` at ``key``: in place of a text, all texts of a list, keys and texts of a mapping."""
    if not key:
        if isinstance(values, list):
            return [put(value, (), text) for value in values]
        if isinstance(values, dict):
            return dict.fromkeys([text], put(next(iter(values.values()), ""), (), text))
        return text
    name, *rest = key
    if name == "*":
        entries = values.items() if isinstance(values, dict) else enumerate(values)
        changed = {entry: put(value, tuple(rest), text) for entry, value in entries}
        return changed if isinstance(values, dict) else list(changed.values())
    return {**values, name: put(values.get(name, ""), tuple(rest), text)}


KEYS = list(text_keys(Recipe))


def accepted(values: dict[str, Any]) -> bool:
    """Whether a recipe is read; a refusal is one line."""
    refusal = None
    try:
        resolve_recipe(values)
    except UserError as error:
        refusal = str(error)
    assert "\n" not in (refusal or ""), refusal
    return refusal is None


def test_the_keys_with_text_are_found_in_the_declaration():
    found = {".".join(map(str, key)) for key in KEYS}
    assert {"name", "datasets_root", "data.derived_root", "models.*.detector", "weights.*.file"} <= found
    assert {"data.download.mirrors", "report.tables", "training.detector_options", "variants.*.testing"} <= found
    assert accepted(BASE)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(map(str, key)))
def test_text_that_no_path_or_name_can_be_is_refused_in_one_line_or_kept_as_it_is(key):
    for text in EVIL:
        values = put(copy.deepcopy(BASE), key, text)
        if accepted(values) and key[-1] in {"detector", "file", "datasets_root", "derived_root", "sources"}:
            assert not re.search(r"[\n\t\0{}]|^-", text), text


def hostile_recipe() -> tuple[dict[str, Any], dict[Key, str]]:
    """A recipe with a text of its own, as bad as is accepted, at every key that takes one; and these texts."""
    values, texts = copy.deepcopy(BASE), {}
    for number, key in enumerate(KEYS):
        for text in (f"{number}<\n{ALL_AT_ONCE}>{number}", f"{number}<{ALL_AT_ONCE}>{number}"):
            if accepted(changed := put(values, key, text)):
                values, texts[key] = changed, text
                break
    return values, texts


def named_files(checkout: Checkout, values: dict[str, Any], texts: dict[Key, str]) -> None:
    """Make the files that the recipe names."""
    detector = (ROOT / "config/detectors/base_rcnn_fpn.yaml", texts[("models", "*", "detector")])
    tables = [(ROOT / f"config/categories/{name}.csv", values["data"][name]) for name in TABLES]
    sources = (ROOT / "config/sources.csv", values["data"]["download"]["sources"])
    for source, name in (detector, *tables, sources):
        shutil.copyfile(source, checkout.folder / name)
    for stage in ("pretraining", "experts"):
        shutil.copyfile(detector[0], checkout.folder / values[stage][0]["detector"])
    (checkout.folder / values["weights"][0]["file"]).touch()


TABLES = ("coco_to_lvis", "openimages_to_lvis", "parents")


def test_every_text_of_a_recipe_that_reaches_a_shell_is_one_argument(checkout):
    values, texts = hostile_recipe()
    assert {"datasets_root", "detector", "file", "derived_root"} <= {key[-1] for key in texts}
    named_files(checkout, values, texts)
    (checkout.folder / "hostile.yaml").write_text(yaml.safe_dump(values))
    result = checkout.run("--configfile", "hostile.yaml", "--cores", "1", "-n", "-p", "--", "all", "table5")
    assert result.returncode == 0, result.stdout[-3000:]
    commands = re.findall(r"^Shell command: (.*?)\n\n", result.stdout, re.MULTILINE | re.DOTALL)
    assert len(commands) > 15
    arguments = [argument for command in commands for argument in shlex.split(command)]
    seen = set()
    for key, text in texts.items():
        number = text.partition("<")[0]
        for argument in arguments:
            if f"{number}<" in argument or f">{number}" in argument:
                assert text in argument, (key, argument)
                seen.add(key)
    assert {("datasets_root",), ("data", "derived_root")} <= seen
    assert not list(checkout.folder.rglob("PWNED"))


def test_a_rule_runs_in_and_on_folders_with_any_name(tmp_path):
    checkout = Checkout(tmp_path / 'it\'s "$(touch PWNED)" & é; `touch PWNED`')
    root = "data's $(touch PWNED)"
    (checkout.folder / "my.yaml").write_text(yaml.safe_dump({"extends": "smoke.yaml", "datasets_root": root}))
    target = f"{root}/derived/coco_boxes_train.json"
    result = checkout.run("--configfile", "my.yaml", "--cores", "1", "--", target)
    assert result.returncode == 0, result.stdout[-3000:]
    assert (checkout.folder / target).stat().st_size > 0
    assert not list(tmp_path.rglob("PWNED"))


def test_every_placeholder_of_a_shell_command_is_quoted_or_a_number():
    numbers = r"threads|resources\.(gpu|nodes|runtime)"
    found = 0
    for path in (ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")):
        for block in re.findall(r"^ *shell:\n((?: +\(?\".*\n)+)", path.read_text(), re.MULTILINE):
            for placeholder in re.findall(r"\{([^{}]+)\}", block):
                found += 1
                assert placeholder.endswith(":q") or re.fullmatch(numbers, placeholder), (path.name, placeholder)
    assert found > 100
