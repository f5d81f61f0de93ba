"""Manifests as they are read again: what a step wrote and read, by names relative to where the workflow ran."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import read_json
from pipeline_steps.run.provenance.manifest import MANIFEST_SUFFIX

Entries = dict[str, dict[str, Any]]
"""Size and SHA-256 of files by name; folders are resolved into their files."""


@dataclass(frozen=True)
class Record:
    """One manifest: what a step wrote and read."""

    file: Path
    step: str  # name of the step
    ended: str  # when it ended, as written
    outputs: Entries  # its outputs; files of a folder singly
    inputs: Entries  # its inputs
    # what the workflow makes to get an output: the folder of a file in a folder, the main output for a record beside it
    declared: Mapping[str, str]
    manifests: Mapping[str, str]  # manifest of each input that had one

    @property
    def main(self) -> str:
        """Its main output."""
        return next(iter(self.declared.values()))


def _files(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """File, what was declared (the file, or its folder), and size and digest, of a manifest's outputs or inputs."""
    for name, entry in entries.items():
        if "files" in entry:
            yield from ((f"{name}/{item}", name, dict(one)) for item, one in entry["files"].items())
        else:
            yield name, name, dict(entry)


def read_record(path: Path, root: Path = Path("/nowhere")) -> Record:
    """Read a manifest; absolute names below ``root`` become relative to it (a step was run from another folder).

    Raises:
        UserError: it is damaged, or no manifest.
    """

    def short(entries: Mapping[str, Any]) -> dict[str, Any]:
        return {
            str(Path(name).relative_to(root) if Path(name).is_relative_to(root) else name): entry
            for name, entry in entries.items()
        }

    content = read_json(path, "manifest", "it is missing")
    try:
        outputs, inputs = list(_files(short(content["outputs"]))), list(_files(short(content["inputs"])))
        outputs += [(name, outputs[0][1], entry) for name, _, entry in _files(short(content.get("beside", {})))]
        for _, _, entry in (outputs[0], *outputs, *inputs):  # a manifest without outputs is none
            entry["bytes"], entry["sha256"]
        return Record(
            file=path,
            step=content["step"],
            ended=content["times"]["ended"],
            outputs={name: entry for name, _, entry in outputs},
            inputs={name: entry for name, _, entry in inputs},
            declared={name: declared for name, declared, _ in outputs},
            manifests={
                name: next(iter(short({entry["manifest"]: None})))
                for name, entry in short(content["inputs"]).items()
                if entry.get("manifest")
            },
        )
    except (AttributeError, IndexError, KeyError, TypeError):
        raise UserError(f"{path} is not a manifest") from None


def root_of(folder: Path) -> Path:
    """The folder that the workflow ran in, which the names in the manifests of its results are relative to.

    Raises:
        UserError: ``folder`` has no manifests, or the results were moved or renamed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder of results/, for example results/mini")
    by_hand = False
    for path in sorted(folder.rglob(f"*{MANIFEST_SUFFIX}")):
        try:
            name = Path(read_record(path).main)
        except UserError:
            continue  # a finding of its own
        if name.is_absolute():  # its step was run by hand from another folder
            by_hand = True
            continue
        parts, there = name.parent.parts, path.absolute().parent
        if there.parts[len(there.parts) - len(parts) :] != parts:
            raise UserError(
                f"{path} is about {name}: the results were moved or renamed; put them back at {name.parent} of the "
                "folder that the workflow ran in"
            )
        return Path(*there.parts[: len(there.parts) - len(parts)])
    if by_hand:
        return folder.absolute().parents[1]
    raise UserError(f"{folder} has no manifests (*{MANIFEST_SUFFIX}): nothing in it was made by this pipeline")
