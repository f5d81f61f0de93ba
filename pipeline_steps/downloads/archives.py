"""Unpack zip archives: only the wanted members, nothing outside the folder, completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from threading import Event

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.downloads.disk import require_space
from pipeline_steps.downloads.parallel import go_on
from pipeline_steps.downloads.transfer import CHUNK

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_TIMES = 30
"""Times its own size that an archive may unpack to: JPEG does not shrink, annotations to a tenth at best."""
ALWAYS_MODEST = 100_000_000
"""Bytes that any archive may unpack to."""


def count_images(folder: Path) -> int:
    """Number of image files directly in ``folder``; 0 if it does not exist."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)


def _check_member(info: zipfile.ZipInfo, archive: Path) -> None:
    name = PurePosixPath(info.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in name.parts[0]:
        raise UserError(f"{archive}: member {info.filename!r} would be written outside the folder; archive refused")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{archive}: member {info.filename!r} is a symbolic link; archive refused")


def _wanted(infos: Iterable[zipfile.ZipInfo], members: tuple[str, ...]) -> list[zipfile.ZipInfo]:
    folders = tuple(member for member in members if member.endswith("/"))
    return [
        info for info in infos if not info.is_dir() and (info.filename in members or info.filename.startswith(folders))
    ]


def _require_modest(chosen: list[zipfile.ZipInfo], archive: Path, into: Path) -> None:
    """Refuse what would fill the disk, before anything is written: by the sizes of the archive's directory.

    The directory cannot say less than what comes: :func:`_extract` stops at the size that it says.
    """
    names = [info.filename for info in chosen]
    if len(set(names)) < len(names):
        raise UserError(f"{archive}: duplicate member; archive refused")
    total, packed = sum(info.file_size for info in chosen), archive.stat().st_size
    if total > max(ALWAYS_MODEST, MOST_TIMES * packed):
        raise UserError(
            f"{archive}: its {packed} bytes would become {total}, more than {MOST_TIMES} times as many; no archive of "
            "images or annotations does that: archive refused, delete it and set a mirror in data.download.mirrors"
        )
    require_space(into, total, f"{archive.name}, unpacked,")


def _extract(file: zipfile.ZipFile, info: zipfile.ZipInfo, work: Path, stop: Event) -> None:
    target = work / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with file.open(info) as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            go_on(stop)
            left -= len(chunk)
            if left < 0:
                break
            writer.write(chunk)
    if left:
        raise zipfile.BadZipFile(f"member {info.filename!r} is not {info.file_size} bytes long")


def unpack(
    archive: Path,
    into: Path,
    members: tuple[str, ...],
    images: int | None = None,
    stop: Event | None = None,
    problem_of: Callable[[Path], str] = lambda _: "",
) -> None:
    """Unpack ``members`` of a zip archive into ``into``; each member appears whole or not at all.

    Members must not be there already (an empty folder may).

    Args:
        members: files, or folders with a slash at the end; their relative paths appear in ``into``.
        images: number of images that the unpacked folders must hold together.
        stop: ends the work with InterruptedError when it is set.
        problem_of: says what is wrong with the content of an unpacked member, before it appears under its name.

    Raises:
        UserError: no zip file, damaged, a member escapes the folder, is missing or holds something else, the count is
            wrong, or the disk or any measure is too small for what would come out.
    """
    stop = stop or Event()
    work = into / f".unpacking-{archive.stem}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                _check_member(info, archive)
            chosen = _wanted(file.infolist(), members)
            _require_members(chosen, members, images, archive)
            _require_modest(chosen, archive, into)
            progress = Progress(f"unpacking {archive.name}", len(chosen), "files")
            for info in chosen:
                _extract(file, info, work, stop)
                progress.advance()
        for member in members:
            if problem := problem_of(work / member):
                raise UserError(
                    f"{archive}: member {member!r} {problem}; delete the archive and set a mirror in "
                    "data.download.mirrors (or fix `contents` in the table of sources)"
                )
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        shutil.rmtree(work, ignore_errors=True)
        raise UserError(f"{archive} is not a valid zip archive ({error}): delete it and download it again") from None
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    for member in members:
        source, target = work / member, into / member
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    shutil.rmtree(work, ignore_errors=True)


def _require_members(
    chosen: list[zipfile.ZipInfo], members: tuple[str, ...], images: int | None, archive: Path
) -> None:
    for member in members:
        if not any(info.filename == member or info.filename.startswith(member) for info in chosen):
            raise UserError(f"{archive}: member {member!r} is missing; it is not the expected archive")
    found = sum(PurePosixPath(info.filename).suffix.lower() in IMAGE_SUFFIXES for info in chosen)
    if images is not None and found != images:
        raise UserError(f"{archive}: {found} images instead of {images}; it is not the expected archive")
