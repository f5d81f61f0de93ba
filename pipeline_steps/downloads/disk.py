"""Room on the disk: asked for before a download, explained when it runs out all the same."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import free_space
from pipeline_steps.common.progress import format_bytes


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Stop before a download that cannot fit.

    Raises:
        UserError: fewer than ``needed`` bytes are free where ``folder`` is.
    """
    free = free_space(folder)
    if free < needed:
        raise UserError(
            f"{what} needs {format_bytes(needed)}, but only {format_bytes(free)} are free in {folder}: free space or "
            "set datasets_root to a larger disk"
        )


@contextmanager
def explained_if_full(doing: str, folder: Path, kept: str) -> Iterator[None]:
    """Turn the error of a full disk into a UserError that says what was being done and what is left of it."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"no space left on the disk (or quota exceeded) in {folder} while {doing}: free space, then start again; "
            f"{kept}"
        ) from None
