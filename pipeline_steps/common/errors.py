"""Errors that are meant to be read by the person who started the step, and the exit codes they lead to."""

from collections.abc import Iterable

EXIT_USER_ERROR = 2
"""Bad input, configuration or data: the message names the file, the field and the remedy."""

EXIT_STOPPED_EARLY = 75
"""Stopped before the end with a checkpoint saved (EX_TEMPFAIL): start the same command again to continue."""


class UserError(Exception):
    """Something the user can fix. The message says what is wrong, where, and what to do; no traceback is shown."""


class StoppedEarly(Exception):
    """Work stopped in good order before its end (time budget or signal); running it again continues it."""


def listing(items: Iterable[object], limit: int = 5) -> str:
    """Format the first ``limit`` items of an iterable for a message: ``3, 5, 8 and 12 more``."""
    values = [str(item) for item in items]
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"
