"""The time budget of a training counts from the start of its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import time
time.sleep(1.5)  # as long as imports take on a busy file system
from pipeline_steps.training.stopping import StopRequest
print(StopRequest(1).seconds_left())
"""


def test_time_for_importing_counts_too():
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 30 < float(result.stdout) < 60 - 6 - 1.4
