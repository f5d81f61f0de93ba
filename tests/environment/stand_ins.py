"""A small copy of the environment's scripts whose lock and extras name stand-in wheels: no network, no gigabytes."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DETECTRON2_FILES = {"detectron2/__init__.py": b"", "detectron2/_C.cpython-310-x86_64-linux-gnu.so": b"\x7fELF"}


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes], tag: str = "py3-none-any") -> Path:
    """Writes an installable wheel; a tag other than py3-none-any also marks it as not pure Python."""
    information = f"{name}-{version}.dist-info"
    purelib = str(tag == "py3-none-any").lower()
    files = {
        **files,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {purelib}\nTag: {tag}\n".encode(),
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{information}/RECORD": f"{record}{information}/RECORD,,\n".encode()}.items():
            archive.writestr(path, content)
    return wheel


def wheel_of_installed(folder: Path, name: str) -> Path:
    """The installed distribution's Python files as a wheel."""
    distribution = importlib.metadata.distribution(name)
    files = {
        str(path): path.read_binary()
        for path in distribution.files or []
        if path.suffix == ".py" and not str(path).startswith("..")
    }
    return make_wheel(folder, name, distribution.version, files)


def pin(wheel: Path, digest: str | None = None) -> str:
    """Line of a lock for a wheel; ``digest`` (hex) replaces the true sha256."""
    name, version, *_ = wheel.name.split("-")
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"


@dataclass(frozen=True)
class StandIn:
    """The scripts of workflow/environment with a lock, extras and wheels of their own, under ``root``."""

    root: Path
    wheels: Path

    @property
    def scripts(self) -> Path:
        return self.root / "workflow" / "environment"

    @property
    def lock(self) -> Path:
        return self.root / "requirements.lock"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        return {**kept, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels.as_uri(), **variables}

    def run(self, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs one of the scripts with pip cut off from every index but the stand-in wheels."""
        return subprocess.run(
            [self.scripts / script, *map(str, arguments)],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
        )

    def make_venv(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("make_venv.sh", self.venv, **variables)


def make_stand_in(root: Path) -> StandIn:
    """``root`` may not exist yet."""
    stand_in = StandIn(root, root / "wheels")
    stand_in.wheels.mkdir(parents=True)
    shutil.copytree(PROJECT / "workflow" / "environment", stand_in.scripts)
    wheels = stand_in.wheels
    detectron2 = make_wheel(wheels, "sal_detectron2", "0.7.2", DETECTRON2_FILES, tag="cp310-cp310-linux_x86_64")
    detectron2 = detectron2.rename(wheels / "sal_detectron2-0.7.2-cp310-none-any.whl")
    (stand_in.scripts / "detectron2.txt").write_text(pin(detectron2))
    extras = [make_wheel(wheels, name, "1.0", {f"{name}.py": b""}) for name in ("lvis", "ensemble_boxes")]
    (stand_in.scripts / "extras.txt").write_text("".join(map(pin, extras)))
    locked = [wheel_of_installed(wheels, name) for name in ("packaging", "wheel")]
    locked.append(make_wheel(wheels, "example", "1.0", {"example.py": b""}))
    stand_in.lock.write_text("".join(map(pin, locked)))
    return stand_in


def importable(python: Path, *modules: str) -> set[str]:
    """Those of ``modules`` that the interpreter can import."""
    code = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m)])"
    return set(subprocess.check_output([python, "-I", "-c", code, *modules], text=True).split())
