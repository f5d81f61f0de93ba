"""Jobs run in an image by Apptainer, for which a stand-in runs the command here and notes how it was called."""

from __future__ import annotations

import json
import sys

STAND_IN = """#!{python}
import json, os, sys
if "--version" in sys.argv:
    sys.exit(print("apptainer version 1.3.4"))
with open("calls", "a") as file:
    print(json.dumps(sys.argv), file=file)
command = sys.argv[sys.argv.index("/images/lvis.sif") + 1 :]
os.execvp(command[0], command)
"""


def test_jobs_run_in_the_image_that_the_environment_names(checkout, monkeypatch):
    folder = checkout.folder / "bin"
    folder.mkdir()
    (folder / "apptainer").write_text(STAND_IN.format(python=sys.executable))
    (folder / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{checkout.environment()['PATH']}")
    monkeypatch.setenv("LVIS_CONTAINER", "/images/lvis.sif")
    asked = ("--configfile", "config/smoke.yaml", "--cores", "1", "--apptainer-args=--nv")
    result = checkout.run(*asked, "--software-deployment-method", "apptainer", "--", "make_mini")
    assert result.returncode == 0, result.stdout
    first, *_ = (checkout.folder / "calls").read_text().splitlines()
    binary, verb, *options, image, shell, _, command = json.loads(first)
    assert (binary, verb, image, shell) == (str(folder / "apptainer"), "exec", "/images/lvis.sif", "bash")
    assert "--nv" in options
    assert "python -m pipeline_steps.make_mini" in command
    assert (checkout.folder / "datasets/smoke/mini_world.json").exists()
