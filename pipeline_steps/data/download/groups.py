"""Bring one group of sources onto the disk: what is there and whole is kept, the rest is fetched, checked, unpacked."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.download.archives import count_images, unpack
from pipeline_steps.data.download.sources import Source, mirrored
from pipeline_steps.data.download.transfer import Expected, Patience, fetch, mismatch, part_of, require_space

UNPACKED_RATIO = {"coco_images": 1.02, "coco_annotations": 3.4, "lvis": 4.0}
"""Unpacked size of a group's archives as a multiple of their own: JPEG does not shrink, JSON does."""


@dataclass(frozen=True)
class Settings:
    """How to download: see the keys of ``data.download``."""

    root: Path
    mirrors: dict[str, str]
    parallel_files: int
    keep_archives: bool
    patience: Patience


def is_whole_json(path: Path) -> bool:
    """Whether a JSON file ends as a JSON object or list does (a cheap check against truncated files)."""
    if not path.is_file() or path.stat().st_size < 2:
        return False
    with path.open("rb") as file:
        first = file.read(1)
        file.seek(max(0, path.stat().st_size - 64))
        last = file.read().rstrip()
    return (first, last[-1:]) in {(b"{", b"}"), (b"[", b"]")}


def is_present(source: Source, root: Path) -> bool:
    """Whether everything that ``source`` brings is on the disk already, whole as far as can be told quickly."""
    targets = source.targets(root)
    if not source.unpack_into:
        expected = Expected(source.bytes, source.md5, source.sha256_prefix)
        return targets[0].is_file() and not mismatch(targets[0], expected)
    if source.images is not None:
        return sum(count_images(folder) for folder in targets) == source.images
    return all(is_whole_json(path) for path in targets)


def bytes_to_fetch(source: Source, root: Path) -> int:
    """Bytes that still have to be fetched; 0 where the size is unknown."""
    part = part_of(root / source.file)
    have = part.stat().st_size if part.exists() else 0
    return max(0, (source.bytes or 0) - have)


def plan(sources: list[Source], settings: Settings) -> list[tuple[Source, bool]]:
    """Each source with whether it is on the disk already."""
    return [(source, is_present(source, settings.root)) for source in sources]


def space_needed(missing: list[Source], root: Path) -> int:
    """Bytes of disk that fetching and unpacking ``missing`` takes, with the archives still there."""
    unpacked = sum(
        round((source.bytes or 0) * UNPACKED_RATIO.get(source.group, 1.0)) for source in missing if source.unpack_into
    )
    return sum(bytes_to_fetch(source, root) for source in missing) + unpacked


def _fetch_with_bar(source: Source, settings: Settings, position: int) -> None:
    url = mirrored(source.url, settings.mirrors)
    target = settings.root / source.file
    interactive = sys.stderr.isatty()
    with tqdm(
        desc=target.name,
        total=source.bytes,
        unit="B",
        unit_scale=True,
        position=position if interactive else 0,
        leave=not interactive,
        mininterval=0.5 if interactive else 30.0,
    ) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = bar.total or total
            if done < bar.n:  # started again from the beginning
                bar.reset(total=bar.total)
            bar.update(done - bar.n)

        expected = Expected(source.bytes, source.md5, source.sha256_prefix)
        fetch(url, target, expected, settings.patience, report, tqdm.write)


def download_group(sources: list[Source], settings: Settings) -> list[Path]:
    """Fetch and unpack all ``sources`` that are not on the disk; several files at once.

    Returns:
        Files and folders that exist now.

    Raises:
        UserError: not enough disk space, a server refuses, a wrong file, a damaged archive.
    """
    missing = [source for source, present in plan(sources, settings) if not present]
    require_space(settings.root, space_needed(missing, settings.root), ", ".join(source.file for source in missing))

    def work(item: tuple[int, Source]) -> None:
        position, source = item
        _fetch_with_bar(source, settings, position)
        if source.unpack_into:
            archive = settings.root / source.file
            unpack(archive, settings.root / source.unpack_into, source.members, source.images)
            if not settings.keep_archives:
                archive.unlink()

    with ThreadPoolExecutor(settings.parallel_files) as pool:
        futures = [pool.submit(work, item) for item in enumerate(missing)]
        errors = [str(future.exception()) for future in futures if isinstance(future.exception(), UserError)]
        if errors:
            raise UserError("; ".join(errors))
        for future in futures:
            future.result()
    for source in sources:
        if not is_present(source, settings.root):
            raise UserError(f"{source.url}: unpacked, but {source.targets(settings.root)} is not whole; start again")
    return [target for source in sources for target in source.targets(settings.root)]


def folder_manifest(paths: list[Path], root: Path) -> dict[str, object]:
    """What is in folders of images: number of files and bytes of each, for the record of a download."""
    folders = {}
    for folder in paths:
        with os.scandir(folder) as entries:
            sizes = [entry.stat().st_size for entry in entries if entry.is_file() and not entry.name.startswith(".")]
        folders[str(folder.relative_to(root))] = {"files": len(sizes), "bytes": sum(sizes)}
    return {"folders": folders}
