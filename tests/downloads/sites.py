"""A small stand-in of all public servers, and a recipe that downloads from it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from pipeline_steps.common.cli import call_step
from pipeline_steps.download import main, parser

ROOT = Path(__file__).parents[2]
JPEG = b"\xff\xd8 image \xff\xd9"
HEADER = "group,lvis_version,file,url,bytes,md5,sha256_prefix,unpack_into,members,images,licence,purpose"
TRAIN = b'{"images": [1, 2, 3]}'
VAL = b'{"images": [4]}'
TABLE = b"ImageID,LabelName\n" * 5


def zipped(**members: bytes) -> bytes:
    """A zip archive; ``__`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def write_recipe(folder: Path, server_url: str, **download: Any) -> None:
    """``recipe.yaml`` in ``folder`` with data in ``folder/data``."""
    options = {"sources": str(folder / "sources.csv"), "mirrors": {"https://x.org": server_url}, "retries": 0}
    recipe = {
        "name": "t",
        "datasets_root": str(folder / "data"),
        "models": [{"name": "a", "detector": "d.yaml"}],
        "ensemble": {"members": [{"name": "a"}]},
        "data": {"download": {**options, "max_failed_images": 1, **download}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def publish(served: Path, folder: Path) -> None:
    """Put small files of every kind on the server, and their table of sources into ``folder``."""
    annotations = {"annotations__instances_train2017.json": TRAIN, "annotations__instances_val2017.json": VAL}
    (served / "ann.zip").write_bytes(zipped(**annotations, annotations__captions=b"{}"))
    (served / "train2017.zip").write_bytes(zipped(**{f"train2017__{i:012d}.jpg": JPEG for i in range(5)}))
    (served / "boxes.csv").write_bytes(TABLE)
    for image_id in ("00000000000000aa", "00000000000000ab"):
        (served / f"{image_id}.jpg").write_bytes(JPEG)
    (served / "00000000000000ac.jpg").write_bytes(JPEG[:-2])
    write_sources(folder, (served / "ann.zip").stat().st_size, len(TABLE))


def write_sources(folder: Path, archive_bytes: int | str, table_bytes: int | str) -> None:
    """``sources.csv`` in ``folder``, with these sizes of the archive of annotations and of the table."""
    members = "annotations/instances_train2017.json;annotations/instances_val2017.json"
    rows = [
        f"coco_annotations,,archives/ann.zip,https://x.org/ann.zip,{archive_bytes},,,coco,{members},,CC,c",
        "coco_images,,archives/train2017.zip,https://x.org/train2017.zip,,,,coco,train2017/,5,F,i",
        f"openimages_tables,,openimages/boxes.csv,https://x.org/boxes.csv,{table_bytes},,,,,,CC,b",
        "openimages_images,,openimages/train/{id}.jpg,https://x.org/{id}.jpg,,,,,,,CC,o",
    ]
    (folder / "sources.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def download(site: Path, *options: str) -> int:
    """Run the step in this process; returns its exit code."""
    return call_step(parser, main, ["--recipe", str(site / "recipe.yaml"), *options])


def start_download(site: Path, *options: str) -> subprocess.Popen[str]:
    """Run the step in a process of its own; its output is joined."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline_steps.download", "--recipe", str(site / "recipe.yaml"), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
