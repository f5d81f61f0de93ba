"""Errors for people: one line, no traceback, exit code non-zero."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.common.cli import add_named_files, call_step, name_files, named_path, step_parser
from pipeline_steps.common.errors import EXIT_STOPPED_EARLY, EXIT_USER_ERROR, StoppedEarly, UserError, listing
from pipeline_steps.common.files import file_digest, read_json
from pipeline_steps.common.progress import Progress, format_duration


def run(exception):
    def main(arguments):
        raise exception

    return call_step(step_parser("test", "A test."), main, [])


@pytest.mark.parametrize(
    ("exception", "code", "words"),
    [
        (UserError("train.json: no frequency"), EXIT_USER_ERROR, "error: train.json: no frequency"),
        (StoppedEarly("stopped at 5"), EXIT_STOPPED_EARLY, "stopped at 5"),
        (KeyboardInterrupt(), 130, "run the same command again"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.json"), EXIT_USER_ERROR, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out.json"), EXIT_USER_ERROR, "out.json"),
    ],
)
def test_expected_failures_are_one_line_without_traceback(capsys, exception, code, words):
    assert run(exception) == code
    message = capsys.readouterr().err
    assert words in message
    assert len(message.splitlines()) == 1


def test_defects_of_the_code_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_named_path_wants_name_and_file():
    assert named_path("a=b=c") == ("a", "b=c")
    for text in ("a", "=b", "a="):
        with pytest.raises(Exception, match="NAME=FILE"):
            named_path(text)


def named_files_of(*arguments: str) -> tuple[int, dict[str, Path] | None]:
    """Exit code and value of an option with NAME=FILE."""
    parser, found = step_parser("test", "A test."), []
    add_named_files(parser, "--files", "NAME=FILE", "files", least=0)
    code = call_step(parser, lambda arguments: found.append(arguments.files), arguments)
    return code, found[0] if found else None


@given(st.dictionaries(st.from_regex(r"[A-Za-z_]\w*", fullmatch=True), st.text("a=/ .é", min_size=1)))
def test_named_files_are_read_as_they_are_written(files):
    expected = {name: Path(file) for name, file in files.items()}
    assert named_files_of(*(["--files"] if files else []), *name_files(files, files.values())) == (0, expected)


def test_a_name_that_is_given_twice_is_refused_before_the_step_runs(capsys):
    assert named_files_of("--files", "a=x", "b=y", "a=z") == (EXIT_USER_ERROR, None)
    assert capsys.readouterr().err == "error: --files: given twice: a\n"
    with pytest.raises(ValueError):
        name_files(["a"], [])


@pytest.mark.parametrize("content", [b"", b'{"images": [1, 2', b"<html>"])
def test_truncated_json_is_named_with_its_size(tmp_path, content):
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, "LVIS annotations")
    assert str(path) in str(error.value)
    assert f"{len(content)} bytes" in str(error.value)


def test_missing_json_names_file_and_remedy(tmp_path):
    with pytest.raises(UserError, match="run make_mini"):
        read_json(tmp_path / "none.json", "LVIS annotations", "run make_mini")


def test_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_listing_counts_what_it_leaves_out():
    assert listing([1, 2, 3], 2) == "1, 2 and 1 more"
    assert listing([1, 2]) == "1, 2"


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5s"), (75, "1m15s"), (3700, "1h01m"), (-1, "0s")])
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


def test_progress_shows_rate_and_time_left_and_always_the_end(capsys):
    progress = Progress("predicting", 3, "images", interval=0)
    progress.advance()
    progress.advance(2, note="done well")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("predicting: 1/3 images")
    assert lines[0].endswith(" left")
    assert "3/3" in lines[1]
    assert lines[1].endswith("done well")
