"""Which Python the shell commands of the workflow run with."""

import os
import sys
from pathlib import Path


def put_interpreter_first() -> None:
    """Make ``python`` in child processes the interpreter that runs now, whether its environment is activated or not."""
    folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != folder:
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
