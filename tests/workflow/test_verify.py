"""Damage to a finished run is found although every time stamp is in order, and the command that is shown mends it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline_steps.run.provenance.record import read_record
from tests.workflow.checkout import Checkout

pytestmark = pytest.mark.slow

SMOKE = ("--configfile", "config/smoke.yaml", "--cores", "1")


@contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """Other bytes under the old time stamp, or no file, for the length of the block."""
    before, times = path.read_bytes(), path.stat()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        if content is not None:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def verified(smoke: Checkout, target: str = "verify") -> tuple[int, list[str]]:
    """Exit code, and what was found, each line once."""
    result = smoke.run(*SMOKE, target)
    return result.returncode, list(dict.fromkeys(line.strip() for line in result.stdout.splitlines()))


def test_every_file_of_a_finished_run_is_covered_by_a_digest(smoke):
    results = smoke.folder / "results/smoke"
    covered = {smoke.folder / name for path in results.rglob("*.manifest.json") for name in read_record(path).outputs}
    written = {path for path in results.rglob("*") if path.is_file() and not path.name.endswith(".manifest.json")}
    left_alone = {
        path
        for path in written
        if {"logs", "benchmarks"} & set(path.relative_to(results).parts)
        or path.name.startswith(("checkpoint", "events.out.tfevents", ".snakemake"))
        or path in (results / "recipe.yaml", results / "rule_graph.json")
    }
    assert sorted(map(str, written - left_alone - covered)) == []


def test_undamaged_run_passes(smoke):
    code, lines = verified(smoke)
    assert code == 0
    assert any(line.startswith("results/smoke: undamaged") for line in lines)


def test_damaged_edited_and_deleted_results_are_named_and_the_command_mends_them(smoke):
    results = smoke.folder / "results/smoke"
    boxes = results / "predictions/val/basic/boxes.parquet"
    metrics = results / "evaluation/ensemble/metrics.json"
    shard = results / "ensemble/test/masks_shards/1-of-2.parquet"
    content = bytearray(boxes.read_bytes())
    content[len(content) // 2] ^= 1
    with damaged(boxes, bytes(content)), damaged(metrics, metrics.read_bytes() + b" "), damaged(shard, None):
        assert set(smoke.planned("--configfile", "config/smoke.yaml", "--", "all")) == set()
        code, lines = verified(smoke)
        command = shlex.split(next(line for line in lines if line.startswith("snakemake ")))
        options = command[1 : command.index("--cores")] + command[command.index("--cores") + 2 :]
        planned = smoke.planned(*options)
    assert code != 0
    for path, words in ((boxes, "has changed since gather_shards"), (metrics, "has changed"), (shard, "is missing")):
        assert any(line.startswith(f"{path.relative_to(smoke.folder)}: {words}") for line in lines), lines
    assert (planned["gather_boxes"], planned["predict_masks"]) == (1, 2 + 2 + 1)  # basic, ensemble on val; the shard
    assert planned["write_submission"] == 1
    assert not planned["predict_boxes"] + planned["finetune_lvis"]


def test_damaged_image_of_the_mini_world_is_told(smoke):
    image = next((smoke.folder / "datasets/smoke/coco/val2017").glob("*.jpg"))
    with damaged(image, image.read_bytes()[:-1]):
        code, lines = verified(smoke)
    assert code != 0
    assert any(line.startswith("datasets/smoke/coco: has changed since it was drawn: snakemake ") for line in lines)


def test_the_end_of_a_run_reads_what_the_submission_rests_on(smoke):
    model = smoke.folder / "results/smoke/pretrain/basic_coco/model.pth"
    page = smoke.folder / "results/smoke/report/index.html"
    with damaged(page, b"page"):
        assert verified(smoke, "all")[0] == 0
    with damaged(model, model.read_bytes()[:-1]):
        code, lines = verified(smoke, "all")
    assert code != 0
    assert any(
        line.startswith("results/smoke/pretrain/basic_coco/model.pth: has changed since train") for line in lines
    )
