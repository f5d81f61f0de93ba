"""What ``make gpu ENV=none`` needs of an interpreter that is there already, and what to type where it is missing.

Imports nothing outside of the standard library, so that it can name what is missing.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "numba": "numba",
    "pyarrow": "pyarrow",
    "msgspec": "msgspec",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "yaml": "pyyaml",
    "requests": "requests",
    "tqdm": "tqdm",
    "pycocotools": "pycocotools",
    "hypothesis": "hypothesis",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "fvcore": "fvcore",
    "iopath": "iopath",
    "portalocker": "portalocker",
    "omegaconf": "omegaconf",
    "antlr4": "antlr4-python3-runtime",
    "hydra": "hydra-core",
    "yacs": "yacs",
    "tabulate": "tabulate",
    "termcolor": "termcolor",
    "cloudpickle": "cloudpickle",
    "tensorboard": "tensorboard",
}
"""Modules that the tests on a GPU import, also inside detectron2, and the packages that bring them."""

OLDEST_PYTHON, OLDEST_TORCH = (3, 11), (2, 11)


def pinned(package: str) -> str:
    """The package with its version of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==\S+", lock, re.MULTILINE)
    return found[0] if found else package


def is_there(module: str) -> bool:
    """Whether a module can be imported (without importing it)."""
    return importlib.util.find_spec(module) is not None


def problems() -> list[str]:
    """What is missing, one line for each package with the command that installs it."""
    found = []
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        found.append(f"Python {version}: 3.11 or later is needed; PYTHON=/path/to/python3 make gpu ENV=none")
    python = sys.executable
    for module, package in MODULES.items():
        if not is_there(module):
            # Its requirements are in the list: nothing that is there is exchanged for another version.
            alone = "" if package.startswith("torch") else "--no-deps "
            found.append(f"{package}: {python} -m pip install {alone}{pinned(package)}")
    if not is_there("detectron2"):
        found.append(f"detectron2: workflow/environment/install_extras.sh {python}")
    if is_there("torch"):
        import torch

        version = tuple(int(part) for part in torch.__version__.split(".")[:2])
        if version < OLDEST_TORCH:
            oldest = ".".join(map(str, OLDEST_TORCH))
            found.append(f"torch {torch.__version__}: {oldest} or later is needed; {python} -m pip install torch")
    return found


def require() -> None:
    """End with one message and exit code 2 if something is missing."""
    missing = problems()
    if missing:
        lines = "\n".join(f"  {line}" for line in missing)
        print(f"error: make gpu with {sys.executable} lacks {len(missing)} package(s):\n{lines}", file=sys.stderr)
        raise SystemExit(2)
