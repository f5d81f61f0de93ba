"""Optional experiment trackers, with stand-ins for their packages."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from pipeline_steps.common.errors import StoppedEarly, UserError
from pipeline_steps.training.run import Job, train
from pipeline_steps.training.stopping import StopRequest
from pipeline_steps.training.tracker import Tracker
from tests.training.world import make_recipe

STAND_INS = {
    "wandb": """
class Run:
    def __init__(self, id): self.id = id
def init(project, name, dir, id, resume):
    note("start", project=project, name=name, id=id)
    return Run(id or "run7")
def log(values, step): note("log", values=values, step=step)
def finish(): note("end")
""",
    "mlflow": """
class Info: run_id = "run7"
class Run: info = Info
def set_experiment(name): note("experiment", name=name)
def start_run(run_id, run_name):
    note("start", project=None, name=run_name, id=run_id)
    return Run
def log_metrics(values, step): note("log", values=values, step=step)
def end_run(): note("end")
""",
}
NOTE = """
import json, pathlib
def note(what, **values):
    with pathlib.Path(__file__).with_name("calls.jsonl").open("a") as file:
        file.write(json.dumps({"what": what, **values}) + "\\n")
"""


@pytest.fixture
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with the calls that a stand-in for the package has got."""
    kind, extra = request.param if isinstance(request.param, tuple) else (request.param, "")
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / f"{kind}.py").write_text(NOTE + STAND_INS[kind] + extra)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, kind, raising=False)
    importlib.invalidate_caches()
    yield folder / "calls.jsonl"
    sys.modules.pop(kind, None)


def calls(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def job(world: Path, output: Path, kind: str) -> Job:
    recipe = make_recipe(world, tracker=kind, schedule={"images": 16, "warmup_images": 4})
    return Job(recipe, "basic_coco", output / "model.pth")


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_without_its_package_a_tracker_is_one_message_before_any_work(
    world: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"package {kind} is not installed here: pip install {kind}"):
        train(job(world, tmp_path / "run", kind))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["wandb", "mlflow"], indirect=True)
def test_tracker_gets_what_metrics_jsonl_holds(world: Path, tmp_path: Path, package: Path) -> None:
    kind = next(package.parent.glob("*.py")).stem
    train(job(world, tmp_path / "run", kind))
    told = calls(package)
    start = next(call for call in told if call["what"] == "start")
    assert (start["name"], start["id"]) == ("basic_coco", None)
    assert "tiny" in (start["project"], told[0].get("name"))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    logged = [call for call in told if call["what"] == "log"]
    assert [{"iteration": call["step"], **call["values"]} for call in logged] == lines
    assert told[-1]["what"] == "end"


@pytest.mark.parametrize("package", ["wandb", "mlflow"], indirect=True)
def test_a_continued_training_goes_on_in_the_same_run(
    world: Path, tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = next(package.parent.glob("*.py")).stem
    with monkeypatch.context() as patched:
        wanted = iter([False, True])
        patched.setattr(StopRequest, "wanted", lambda self, *arguments: next(wanted, True))
        with pytest.raises(StoppedEarly):
            train(job(world, tmp_path / "run", kind))
    train(job(world, tmp_path / "run", kind))
    assert [call["id"] for call in calls(package) if call["what"] == "start"] == [None, "run7"]


@pytest.mark.parametrize("package", [("wandb", "\ndef log(values, step): raise OSError('no route')\n")], indirect=True)
def test_a_tracker_that_fails_does_not_end_a_training(
    world: Path, tmp_path: Path, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(job(world, tmp_path / "run", "wandb"))
    assert (tmp_path / "run/model.pth").is_file()
    assert caplog.text.count("wandb failed (no route)") == 1


@pytest.mark.parametrize(
    "package", [("mlflow", "\ndef start_run(**_): raise ValueError('no server')\n")], indirect=True
)
def test_a_tracker_that_does_not_start_says_what_to_do(tmp_path: Path, package: Path) -> None:
    with pytest.raises(UserError, match=r"mlflow does not start \(no server\); fix it, or set it to none"):
        Tracker("mlflow", tmp_path, "tiny", "basic", 0)
