"""What is looked at before the first job of a run: GPUs or a cluster, permissions, and room for the whole recipe."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline_steps.cluster.queue import refuse_queued_jobs
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import existing_folder
from pipeline_steps.common.progress import format_bytes
from pipeline_steps.data.sources.source import Source
from pipeline_steps.data.sources.space import BYTES_PER_IMAGE, absent_targets, most_images, space_needed, used_sources
from pipeline_steps.estimates.estimates import recipe_estimate
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.run.data_files import DatasetPaths, is_writable
from pipeline_steps.starting import jobs


def fitted(recipe: Recipe, gpus: int, cores: int) -> Recipe:
    """The recipe with a ``compute`` that this machine can give; no other key changes, and no result.

    A training that asks for more GPUs, or for more nodes, gets as many as there are and divide every batch; its batch
    is then worked through in more parts. A job's threads are its GPU's share of the cores. ``gpus``: at least 1.
    """
    compute = recipe.compute

    def with_gpus(count: int) -> Recipe:
        update = {
            "training_gpus": count,
            "training_nodes": 1,
            "inference_gpus": min(compute.inference_gpus, gpus),
            "threads": min(compute.threads, max(1, cores // gpus)),
        }
        return recipe.model_copy(update={"compute": compute.model_copy(update=update)})

    wanted = compute.training_gpus * compute.training_nodes
    if not (wanted or compute.inference_gpus):
        return recipe
    if wanted <= gpus:
        return with_gpus(wanted)
    batches = [recipe.training_of(model).images_per_batch for model in recipe.trained]
    return with_gpus(next(n for n in range(gpus, 0, -1) if all(batch % n == 0 for batch in batches)))


def check_devices(recipe: Recipe, asked: int, cluster: str, gpus: Sequence[str]) -> None:
    """Refuse jobs that have no GPU to run on; ``asked``: the most GPUs that a job of this run asks for.

    Args:
        cluster: name of Snakemake's executor; empty for jobs on this machine, which has ``gpus``.

    Raises:
        UserError: there is no GPU here, or no Slurm.
    """
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--profile slurm submits jobs with sbatch, which is not on PATH: start it on a login node")
    if asked and not cluster and not gpus:
        raise UserError(
            f"jobs of recipe {recipe.name} need up to {asked} GPUs, but this machine has none (by "
            "CUDA_VISIBLE_DEVICES and nvidia-smi): use --profile slurm on a cluster, set their number in "
            "compute.local_gpus, or run on the CPU with compute: {device: cpu, training_gpus: 0, inference_gpus: 0}, "
            "as config/mini.yaml does"
        )


def missing_sources(recipe: Recipe, paths: DatasetPaths) -> list[Source]:
    """Sources of the recipe's data that are not whole on the disk; without the images of OpenImages."""
    if recipe.data.source != "download":
        return []
    files = [source for source in used_sources(recipe) if source.group != "openimages_images"]
    return [source for source in files if absent_targets(source, paths.root)]


def _bytes_in(folder: Path) -> int:
    return sum(Path(at, name).lstat().st_size for at, _, names in os.walk(folder) for name in names)


def room_needed(recipe: Recipe, paths: DatasetPaths, results: Path, results_bytes: int) -> Iterator[tuple[Path, int]]:
    """Folders that the recipe fills, and bytes that are still missing there; results take so many bytes in the end."""
    data = space_needed(missing_sources(recipe, paths), paths.root)
    folder = paths.openimages_images
    images = max(0, most_images(recipe) - (sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0))
    yield paths.root, data + images * BYTES_PER_IMAGE
    yield results, max(0, results_bytes - _bytes_in(results))


def check_room(needed: Sequence[tuple[Path, int]]) -> None:
    """Refuse a recipe that does not fit on the disk; folders on the same disk are counted together.

    Raises:
        UserError: what is needed, and what is free.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in needed:
        disks.setdefault(existing_folder(folder).stat().st_dev, []).append((folder, size))
    for folders in disks.values():
        size, free = sum(size for _, size in folders), shutil.disk_usage(existing_folder(folders[0][0])).free
        if free < size:
            what = " and ".join(f"{format_bytes(size)} in {folder}" for folder, size in folders if size)
            raise UserError(
                f"the whole recipe still needs {what}, but only {format_bytes(free)} are free there: free up space, "
                "set datasets_root to a larger disk, or make results a link to one (data.download.check_room: false "
                "skips this check)"
            )


def check_permissions(recipe: Recipe, paths: DatasetPaths, results: Path, brings_data: bool) -> None:
    """Refuse folders that this run has to write to and cannot; it may bring data: download them, or draw them.

    Raises:
        UserError: names the folder and what would have been put there.
    """
    folders = {results: "results", paths.made_root: "files derived from the data (data.derived_root)"}
    if brings_data:
        missing = [path for source in missing_sources(recipe, paths) for path in absent_targets(source, paths.root)]
        folders[paths.root] = f"data that are not there yet ({listing(missing, 3) or 'datasets_root'})"
    for folder, what in folders.items():
        if not is_writable(folder):
            raise UserError(f"no permission to write to {folder} ({what}): change its permissions, or the folder")


def check_start(recipe: Recipe, paths: DatasetPaths, results: Path, workflow: Any, gpus: Sequence[str]) -> None:
    """Refuse to start without GPUs, permissions or room, or while jobs of an earlier run are in the cluster's queue.

    Raises:
        UserError: what is missing, and what to do.
    """
    cluster = jobs.cluster(workflow)
    check_devices(recipe, jobs.most_gpus(workflow), cluster, gpus)
    brings_data = any(rule.startswith(("download_", "make_mini")) for rule in jobs.job_counts(workflow))
    check_permissions(recipe, paths, results, brings_data)
    if paths.downloaded and brings_data and recipe.data.download.check_room:
        disk = recipe_estimate(recipe, results).disk
        check_room(list(room_needed(recipe, paths, results, disk.checkpoints + disk.results)))
    if cluster == "slurm":
        refuse_queued_jobs(Path.cwd())
