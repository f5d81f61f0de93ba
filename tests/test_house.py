"""The houses of ``pipeline_steps`` and the directions of the imports between them, read from the code."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipeline_steps"

STEPS = "the steps"
ORDER = (
    ("common",),
    ("cluster",),
    ("recipe",),
    ("run",),
    ("detections", "modeling", "data"),
    ("openimages", "evaluation", "training", "inference"),
    ("estimates", "analysis"),
    ("report", "inspection", "starting", "downloads", "mini_world"),
    (STEPS,),
)
"""From the ground up. A house imports from its own floor and from those below."""

FLOOR = {house: floor for floor, houses in enumerate(ORDER) for house in houses}

ONLY_FOR = {"downloads": "download", "mini_world": "make_mini"}
"""Houses that nobody enters but one step."""

WITHOUT_DETECTRON2 = ("modeling.losses", "detections.", "evaluation.")
"""Beginnings of modules that anybody can read and try without detectron2."""


def _imported(node: ast.AST, package: list[str]) -> list[str]:
    """Full names that an import statement asks for; ``package`` is that of the module in which it stands."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else []
    origin = ".".join([*base, *filter(None, [node.module])])
    return [f"{origin}.{alias.name}" for alias in node.names]


def read_imports(root: Path) -> tuple[dict[str, set[str]], set[str]]:
    """The modules of the package ``root`` that each of its modules imports, and the modules that import detectron2.

    Names leave out the package's own: ``data.lvis``. Imports inside of functions count, too.
    """
    paths = {path.relative_to(root).with_suffix("").parts: path for path in root.rglob("*.py")}
    modules = {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for parts, path in paths.items()}
    imports: dict[str, set[str]] = {}
    with_detectron2 = set()
    for module, path in modules.items():
        package = [root.name, *path.relative_to(root).parent.parts]
        imports[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node, package):
                top, _, inner = name.partition(".")
                if top == "detectron2":
                    with_detectron2.add(module)
                while top == root.name and inner and inner not in modules:
                    inner = inner.rpartition(".")[0]
                if top == root.name and inner and inner != module:
                    imports[module].add(inner)
    return imports, with_detectron2


def problems(root: Path) -> list[str]:
    """What is wrong with the imports of the package ``root``, one line each."""
    imports, with_detectron2 = read_imports(root)
    houses = {path.name for path in root.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    found = [f"{house}/ has no place in ORDER of {Path(__file__).name}: give it one" for house in houses - set(FLOOR)]

    def house(module: str) -> str:
        first = module.partition(".")[0]
        return first if first in houses else STEPS

    between: dict[str, set[str]] = {}
    for module, imported in sorted(imports.items()):
        for other in sorted(imported):
            above, below = house(module), house(other)
            if above == below:
                continue
            between.setdefault(above, set()).add(below)
            if FLOOR.get(below, 0) > FLOOR.get(above, len(ORDER)):
                found.append(f"{module} imports {other}: {above} is below {below} and must not know it")
            elif below in ONLY_FOR and module != ONLY_FOR[below]:
                found.append(f"{module} imports {other}: only the step {ONLY_FOR[below]} may import {below}")
    for what, graph in (("houses", between), ("files", imports)):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found.append(f"{what} import each other in a circle: {' <- '.join(error.args[1])}")
    found += [
        f"{module} imports detectron2; {', '.join(WITHOUT_DETECTRON2)} do without"
        for module in sorted(with_detectron2)
        if module.startswith(WITHOUT_DETECTRON2)
    ]
    return found


def test_imports_point_down() -> None:
    assert not (found := problems(PACKAGE)), "\n" + "\n".join(found)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A sound package with a module in every house."""
    root = tmp_path / "pipeline_steps"
    files = {f"{house}/thing.py": "" for house in FLOOR if house != STEPS}
    files |= {"training/thing.py": "from pipeline_steps.modeling.thing import x\n"}
    files |= {"download.py": "from pipeline_steps.downloads import thing\n", "make_mini.py": "", "train.py": ""}
    files |= {"modeling/losses.py": "import torch\n", "modeling/thing.py": "import detectron2.layers\n"}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert problems(root) == []
    return root


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("training/new.py", "from pipeline_steps.estimates.thing import x", "training is below estimates"),
        ("training/new.py", "def f():\n    import pipeline_steps.report.thing", "training is below report"),
        ("common/new.py", "from ..recipe import thing", "common.new imports recipe.thing: common is below recipe"),
        ("data/new.py", "from pipeline_steps import train", "data is below the steps"),
        (
            "report/new.py",
            "from pipeline_steps.mini_world import thing",
            "only the step make_mini may import mini_world",
        ),
        ("train.py", "from pipeline_steps.downloads.thing import x", "only the step download may import downloads"),
        ("modeling/thing.py", "from pipeline_steps.training.thing import x", "houses import each other in a circle"),
        ("data/thing.py", "from pipeline_steps.data import new\n", ""),
        ("attic/thing.py", "", "attic/ has no place in ORDER"),
        ("modeling/losses.py", "from detectron2.layers import x", "modeling.losses imports detectron2"),
        ("evaluation/new.py", "import detectron2", "evaluation.new imports detectron2"),
    ],
)
def test_a_wrong_import_is_named(package: Path, file: str, text: str, message: str) -> None:
    path = package / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    found = "\n".join(problems(package))
    assert message in found if message else not found


def test_a_circle_of_files_within_a_house_is_named(package: Path) -> None:
    (package / "data/thing.py").write_text("from pipeline_steps.data import other\n")
    (package / "data/other.py").write_text("from pipeline_steps.data.thing import x\n")
    (found,) = problems(package)
    assert found.startswith("files import each other in a circle")
    assert "data.thing" in found
    assert "data.other" in found
