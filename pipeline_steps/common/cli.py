"""One command-line style for all steps: ``python -m pipeline_steps.<step> --help``.

A step module has its command line in ``parser`` and ``main(arguments: argparse.Namespace) -> None``, and ends with
``if __name__ == "__main__": run_step(parser, main)``.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline_steps.common.errors import EXIT_STOPPED_EARLY, EXIT_USER_ERROR, StoppedEarly, UserError, listing


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the layout of descriptions and shows defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS, {}) or action.required:
            return action.help
        return super()._get_help_string(action)


def step_parser(step: str, description: str) -> argparse.ArgumentParser:
    """Parser of the step ``pipeline_steps.<step>`` with the common style."""
    return argparse.ArgumentParser(
        prog=f"python -m pipeline_steps.{step}",
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )


def named_path(text: str) -> tuple[str, str]:
    """Argument type for NAME=FILE."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return name, path


class _NamedFiles(argparse.Action):
    def __call__(self, _parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        names = [name for name, _ in values]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{option_string}: given twice: {listing(repeated)}")
        setattr(namespace, self.dest, {name: Path(path) for name, path in values})


def add_named_files(parser: argparse.ArgumentParser, option: str, metavar: str, help: str, least: int = 0) -> None:
    """An option that takes NAME=FILE ``least`` (0 or 1) times or more; its value is a mapping of names to paths.

    Raises:
        UserError: while parsing, if a name is given twice.
    """
    kind: dict[str, Any] = {"nargs": "+", "required": True} if least else {"nargs": "*", "default": {}}
    parser.add_argument(option, type=named_path, action=_NamedFiles, metavar=metavar, help=help, **kind)


def name_files(names: Iterable[str], files: Iterable[str | Path]) -> list[str]:
    """``NAME=FILE NAME=FILE ...`` for the command line of such a step."""
    return [f"{name}={file}" for name, file in zip(names, files, strict=True)]


def _exit_on_termination(number: int, _frame: FrameType | None) -> NoReturn:
    # SystemExit unwinds the stack, so that atomic outputs remove their temporary files.
    raise SystemExit(128 + number)


def _explain(error: OSError) -> str | None:
    """Message for operating-system errors that a user can fix; None for all others."""
    name = error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk (or quota exceeded) for {name}: free up space, then run the step again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"no permission: {name} ({error.strerror}); check owner and mode of the folder"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return f"{error.strerror}: {name}"
    return None


def _quieten_libraries() -> None:
    """Leave out notices of torch about detectron2's calls, which no user of a step can act on."""
    for message in ("torch.meshgrid: in an upcoming release", "`torch.jit"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code


def call_step(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a step and return its exit code; user errors become one line on standard error without traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    _quieten_libraries()
    try:
        main(parser.parse_args(argv))
    except UserError as error:
        return _fail(str(error), EXIT_USER_ERROR)
    except StoppedEarly as error:
        return _fail(str(error), EXIT_STOPPED_EARLY)
    except KeyboardInterrupt:
        return _fail("interrupted; no incomplete file was left, run the same command again", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if os.environ.get("PIPELINE_DEBUG") or (message := _explain(error)) is None:
            raise
        return _fail(message, EXIT_USER_ERROR)
    return 0


def run_step(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> NoReturn:
    """Entry point of a step module: :func:`call_step` on the process arguments, then exit."""
    signal.signal(signal.SIGTERM, _exit_on_termination)
    sys.exit(call_step(parser, main))
