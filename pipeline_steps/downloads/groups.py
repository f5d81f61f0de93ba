"""Download sources: complete files on the disk are used in place, the rest is fetched, checked and unpacked.

What is there and not whole is named and never touched: it may be somebody's only copy, or a link to shared data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images_on_disk import count_folder
from pipeline_steps.data.sources.expected import content_mismatch, mismatch
from pipeline_steps.data.sources.source import Source, mirrored
from pipeline_steps.data.sources.space import is_absent, space_needed
from pipeline_steps.downloads.archives import count_images, unpack
from pipeline_steps.downloads.bars import FileBar
from pipeline_steps.downloads.disk import explained_if_full, require_space
from pipeline_steps.downloads.locks import exclusive
from pipeline_steps.downloads.parallel import in_parallel
from pipeline_steps.downloads.transfer import NotServed, Patience, fetch


@dataclass(frozen=True)
class Settings:
    """How to download: see the keys of ``data.download``."""

    root: Path
    mirrors: dict[str, str]
    parallel_files: int
    keep_archives: bool
    patience: Patience


@dataclass(frozen=True)
class State:
    """What is on the disk of a source."""

    source: Source  # the source
    absent: list[Path] = field(default_factory=list)  # members (or the file itself) that are not there
    problems: list[str] = field(default_factory=list)  # what is there and cannot be used, with the reason


def is_whole_json(path: Path) -> bool:
    """Whether a JSON file begins and ends as an object or a list does (a cheap check against truncated files)."""
    size = path.stat().st_size
    if size < 2:
        return False
    with path.open("rb") as file:
        first = file.read(1)
        file.seek(max(0, size - 64))
        last = file.read().rstrip()
    return (first, last[-1:]) in {(b"{", b"}"), (b"[", b"]")}


def _problem(source: Source, target: Path) -> str:
    """What is wrong with an existing target; empty if it is whole as far as can be told without reading it all."""
    if not source.unpack_into:
        if not target.is_file():
            return "is not a file"
        return mismatch(target, source.expected)
    if source.images is not None:
        found = count_images(target)
        return "" if found == source.images else f"holds {found} images instead of {source.images}"
    return "" if target.is_file() and is_whole_json(target) else "is not a complete JSON file"


def _wrong_content(source: Source, path: Path) -> str:
    """How a JSON file's content differs from what the table of sources says; empty if it does not, or says nothing."""
    return content_mismatch(path, source.contents) if source.contents and path.is_file() else ""


def examine(source: Source, root: Path) -> State:
    """Look at what is on the disk of a source."""
    state = State(source)
    for target in source.targets(root):
        if is_absent(target):
            state.absent.append(target)
        elif not target.exists():
            state.problems.append(f"{target} is a link to {target.readlink()}, which does not exist")
        elif problem := _problem(source, target):
            state.problems.append(f"{target} {problem}")
    return state


def require_usable(states: list[State]) -> None:
    """Refuse what is on the disk and not whole.

    Raises:
        UserError: with every such file or folder, and what to do.
    """
    problems = [problem for state in states for problem in state.problems]
    if problems:
        raise UserError(f"{'; '.join(problems)}: complete or replace it, or delete it and start again to download it")


def _way_on(source: Source) -> str:
    """What to do about a file that its server does not give out, as the end of a message."""
    if source.group == "lvis" and source.lvis_version == "v0.5":
        return (
            f". If LVIS v0.5 is no longer published: put {', '.join(source.members)} where the dry run of this step "
            "shows, or use LVIS v1, for which config/challenge_v1.yaml is the same recipe"
        )
    return ""


def _bring(source: Source, settings: Settings, position: int, stop: Event) -> None:
    """Fetch and unpack one source, unless another process has done it in the meantime."""
    archive = settings.root / source.file
    with exclusive(archive, FileBar.tell, stop):
        state = examine(source, settings.root)
        require_usable([state])
        if not state.absent:
            return
        with (
            explained_if_full(f"fetching {archive.name}", archive.parent, "what has been downloaded is kept"),
            FileBar(archive.name, source.bytes, position) as bar,
        ):
            url = mirrored(source.url, settings.mirrors)
            try:
                fetch(url, archive, source.expected, settings.patience, bar.report, bar.tell, stop)
            except NotServed as error:
                raise UserError(f"{error}{_way_on(source)}") from None
        if not source.unpack_into:
            return
        into = settings.root / source.unpack_into
        members = tuple(
            member for member, target in zip(source.members, source.targets(settings.root), strict=True)
            if target in state.absent
        )  # fmt: skip
        with explained_if_full(f"unpacking {archive.name}", into, "the archive is kept"):
            unpack(archive, into, members, source.images, stop, lambda path: _wrong_content(source, path))
        if not settings.keep_archives and not any(is_absent(into / member) for member in source.others):
            archive.unlink()


def download_group(sources: list[Source], settings: Settings) -> list[Path]:
    """Fetch and unpack all ``sources`` that are not on the disk; several files at once.

    Another process that brings the same file is waited for.

    Returns:
        Files and folders that exist now.

    Raises:
        UserError: not enough disk space, a server refuses, a wrong file, a damaged archive, or something on the disk
            that is not whole.
    """
    states = [examine(source, settings.root) for source in sources]
    require_usable(states)
    missing = [state.source for state in states if state.absent]
    require_space(settings.root, space_needed(missing, settings.root), ", ".join(source.file for source in missing))
    stop = Event()
    errors = in_parallel(
        lambda item: _bring(item[1], settings, item[0], stop), enumerate(missing), settings.parallel_files, stop
    )
    if errors:
        raise UserError("; ".join(map(str, errors)))
    return require_whole(sources, settings.root)


def require_whole(sources: list[Source], root: Path, look_inside: bool = False) -> list[Path]:
    """The files and folders of all sources, which must be on the disk and whole.

    With ``look_inside`` those of which the table of sources says the contents are read, and counted.

    Raises:
        UserError: something is not there, not whole, or holds something else.
    """
    states = [examine(source, root) for source in sources]
    require_usable(states)
    if look_inside:
        for state in states:
            present = [path for path in state.source.targets(root) if path not in state.absent]
            wrong = [(path, _wrong_content(state.source, path)) for path in present]
            state.problems.extend(f"{path} {problem}" for path, problem in wrong if problem)
        require_usable(states)
    absent = [str(path) for state in states for path in state.absent]
    if absent:
        raise UserError(f"{', '.join(absent)} not found: run the data stage, or put it there")
    return [target for source in sources for target in source.targets(root)]


def manifest(paths: list[Path], root: Path) -> dict[str, object]:
    """What is on the disk, for the record and for the workflow: bytes of files; images and bytes of folders."""
    named = {path.relative_to(root).as_posix(): path for path in paths}
    files = {name: {"bytes": path.stat().st_size} for name, path in named.items() if path.is_file()}
    folders = {name: count_folder(path) for name, path in named.items() if not path.is_file()}
    return {key: value for key, value in (("files", files), ("folders", folders)) if value}
