"""The way back from a result: its manifest, those of its inputs, and so on; checked against the files of today."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import file_digest, read_json
from pipeline_steps.run.provenance.manifest import manifest_path


@dataclass(frozen=True)
class Origin:
    """One file on the way back."""

    path: Path
    depth: int  # number of steps between it and the result
    step: str  # the step that wrote it; empty if it has no manifest, like downloaded data
    problem: str  # what is wrong with it; empty if it is what it was
    repeated: bool  # its own inputs were listed before


class _Walk:
    """Compares files with what manifests say of them, each file once."""

    def __init__(self, check: bool) -> None:
        self.check = check
        self.seen: set[Path] = set()
        self._digest = cache(file_digest)

    def problem(self, path: Path, recorded: dict[str, Any]) -> str:
        if "files" in recorded:
            return "" if path.is_dir() else "the folder is missing"
        if not path.is_file():
            return "the file is missing"
        if path.stat().st_size != recorded["bytes"] or (self.check and self._digest(path) != recorded["sha256"]):
            return "the file has changed since"
        return ""

    def origins(self, path: Path, recorded: dict[str, Any], manifest: Path | None, depth: int) -> Iterator[Origin]:
        problem = self.problem(path, recorded)
        if manifest is None or not manifest.is_file():
            lost = f"its manifest {manifest} is missing" if manifest else ""
            yield Origin(path, depth, "", problem or lost, False)
            return
        content = read_json(manifest, "manifest")
        repeated = manifest in self.seen
        yield Origin(path, depth, content["step"], problem, repeated)
        if repeated:
            return
        self.seen.add(manifest)
        for name, entry in content["inputs"].items():
            own = Path(entry["manifest"]) if entry["manifest"] else None
            yield from self.origins(Path(name), entry, own, depth + 1)


def origins(result: Path, check: bool = True) -> Iterator[Origin]:
    """The result and everything it was made from, depth first; ``check`` compares digests, not only sizes.

    Raises:
        UserError: ``result`` has no manifest.
    """
    path = manifest_path(result)
    if not path.is_file():
        raise UserError(
            f"{result} has no manifest ({path.name} beside it): it was not written by a step of this pipeline"
        )
    manifest = read_json(path, "manifest")
    recorded = manifest["outputs"].get(str(result), next(iter(manifest["outputs"].values())))
    yield from _Walk(check).origins(result, recorded, path, 0)
