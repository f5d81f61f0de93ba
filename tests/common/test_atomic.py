"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline_steps.common.atomic import atomic_directory, atomic_output, write_json


def test_output_appears_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "deep" / "out.json"
    with atomic_output(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".json"
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]


def test_failed_block_keeps_the_old_output_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")

    def write_and_fail():
        with atomic_output(target) as temporary:
            temporary.write_text("new")
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        write_and_fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "world"
    target.mkdir()
    (target / "old").touch()
    with atomic_directory(target) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_leftover_of_a_killed_process_is_removed_by_the_next_run(tmp_path):
    target = tmp_path / "out.txt"
    code = (
        "import sys, time; from pipeline_steps.common.atomic import atomic_output\n"
        f"with atomic_output({str(target)!r}) as temporary:\n"
        "    temporary.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_output(target) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [target]


def test_old_folder_of_a_killed_replacement_is_removed_by_the_next_run(tmp_path):
    target = tmp_path / "world"
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    old = tmp_path / f".world.unfinished-{os.uname().nodename}-{finished.stdout.strip()}.old"
    old.mkdir()
    with atomic_directory(target) as temporary:
        (temporary / "new").touch()
    assert list(tmp_path.iterdir()) == [target]


def test_leftover_of_a_running_process_is_left_alone(tmp_path):
    target = tmp_path / "out.txt"
    other = tmp_path / f".out.unfinished-{os.uname().nodename}-{os.getppid()}.txt"
    other.write_text("in work elsewhere")
    with atomic_output(target) as temporary:
        temporary.write_text("whole")
    assert other.exists()


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"AP": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_termination_signal_removes_what_is_half_written(tmp_path):
    target = tmp_path / "out.txt"
    code = (
        "import time; from pipeline_steps.common.atomic import atomic_output\n"
        "from pipeline_steps.common.cli import run_step, step_parser\n"
        "def main(arguments):\n"
        f"    with atomic_output({str(target)!r}) as temporary:\n"
        "        temporary.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
        "run_step(step_parser('test', 'test'), main)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    process.stdout.close()
    assert time.monotonic() - start < 30
    assert list(tmp_path.iterdir()) == []
