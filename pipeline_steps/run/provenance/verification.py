"""Whether results are what their manifests say, and were made from one another: by digests, never by times.

Three things are compared: each output with the digest that its step has recorded; each input with the output of the
step that made it (a step that ran on an older version of its input breaks this chain); and each input that no step made
(data, tables, detectors) with the digest that its readers have recorded. All bytes of these files are read. Images are
not among them: the annotations that name them are (for their numbers and sizes see :mod:`pipeline_steps.verify`).
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import file_digest
from pipeline_steps.run.provenance.manifest import MANIFEST_SUFFIX, manifest_path
from pipeline_steps.run.provenance.record import Record, read_record, root_of

THREADS = 8
"""Files read at once: hashing releases the interpreter, and network file systems serve several readers faster."""


def start_command(arguments: Sequence[str], recipe: str) -> str:
    """How to start the workflow as Snakemake was started now, with its Snakefile and its profile, or here.

    ``recipe`` is the resolved one; empty where another workflow configures this one.
    """

    def given(*names: str) -> list[str]:
        """The option, as the first of its names, with its value; nothing if it is not given."""
        found = [value for word, value in pairwise(arguments) if word in names]
        found += [word.partition("=")[2] for word in arguments if word.partition("=")[0] in names and "=" in word]
        return [names[0], found[0]] if found else []

    profile = given("--profile")
    command = ["snakemake", *given("--snakefile", "-s"), *profile, *(["--configfile", recipe] if recipe else [])]
    return shlex.join(command) + ("" if profile else " --cores all")


@dataclass(frozen=True)
class Finding:
    """Something that is not what it should be."""

    path: str
    problem: str  # what is wrong with it
    again: tuple[str, ...] = ()  # results to make again, which fixes it
    # results to make again if the change of the file is meant; otherwise it has to be put back
    if_meant: tuple[str, ...] = ()


@dataclass
class Verification:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    not_made: list[str] = field(default_factory=list)
    """Expected results that no step has made yet, and that nothing is made from."""
    results: int = 0
    files: int = 0
    bytes: int = 0
    reached: frozenset[str] = frozenset()
    """Files that the expected results rest on, these included."""


class _Results:
    """All manifests of a run, and the digests of today."""

    def __init__(self, root: Path, drawn: str) -> None:
        self.root, self.drawn = root, drawn
        self.records: dict[str, Record] = {}
        self.producer: dict[str, Record] = {}
        self.findings: dict[tuple[str, str], Finding] = {}
        self.digests: dict[str, str] = {}

    def find(self, path: str, problem: str, again: Iterable[str] = (), if_meant: Iterable[str] = ()) -> None:
        """Note a finding; the same one of several results becomes one."""
        known = self.findings.get((path, problem))
        again, if_meant = dict.fromkeys(again), dict.fromkeys(if_meant)
        if known:
            again, if_meant = dict.fromkeys(known.again) | again, dict.fromkeys(known.if_meant) | if_meant
        self.findings[path, problem] = Finding(path, problem, tuple(again), tuple(if_meant))

    def collect(self, manifests: Iterable[str]) -> None:
        """Read manifests, and those of the inputs that they name, to the end of the chain."""
        waiting = list(manifests)
        while waiting:
            name = waiting.pop()
            if name in self.records or not (self.root / name).is_file():
                continue
            try:
                record = read_record(self.root / name, self.root)
            except UserError as error:
                self.find(name, f"is not a complete manifest ({error}): make the result beside it again")
                continue
            self.records[name] = record
            for output in record.outputs:
                other = self.producer.get(output)
                if other is None or other.ended <= record.ended:
                    self.producer[output] = record
            waiting += record.manifests.values()

    def hash(self) -> tuple[int, int]:
        """Digests of all files that manifests name, several at once; returns the number of files and bytes read."""
        names = {name for record in self.records.values() for name in (*record.outputs, *record.inputs)}
        sizes = {name: (self.root / name).stat().st_size for name in names if (self.root / name).is_file()}
        largest_first = sorted(sizes, key=lambda name: -sizes[name])
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            digests = pool.map(lambda name: file_digest(self.root / name), largest_first)
            self.digests = dict(zip(largest_first, digests, strict=True))
        return len(sizes), sum(sizes.values())

    def _difference(self, name: str, entry: Mapping[str, Any]) -> str:
        if name not in self.digests:
            return "is missing"
        return "" if self.digests[name] == entry["sha256"] else "has changed"

    def check_outputs(self) -> None:
        for name, record in self.producer.items():
            if difference := self._difference(name, record.outputs[name]):
                when = f" since {record.step} wrote it ({record.ended})" if difference == "has changed" else ""
                self.find(name, f"{difference}{when}", [record.declared[name]])

    def check_inputs(self) -> None:
        for record in self.records.values():
            if not any(self.producer.get(output) is record for output in record.outputs):
                continue  # another manifest is about these outputs now
            for name, entry in record.inputs.items():
                self._check_input(record, name, entry)

    def _check_input(self, record: Record, name: str, entry: Mapping[str, Any]) -> None:
        producer = self.producer.get(name)
        if producer is not None:
            if producer.outputs[name]["sha256"] != entry["sha256"]:
                self.find(record.main, f"was not made from the current {name}, but from another version", [record.main])
            return
        difference = self._difference(name, entry)
        if difference == "has changed":
            difference = "has changed since results were made from it"
        if name in record.manifests:  # it was a result; its manifest is gone or damaged
            self.find(name, f"{difference}, and its manifest too" if difference else "has lost its manifest", [name])
        elif difference and self.drawn and name.startswith(f"{self.drawn}/"):
            self.find(name, difference, [name])
        elif difference:
            self.find(name, difference, if_meant=[record.main])

    def rest_on(self, names: Iterable[str]) -> set[str]:
        """All files that some results were made from, through all steps; not the results themselves."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            record = self.producer.get(waiting.pop())
            new = [] if record is None else [name for name in record.inputs if name not in found]
            found.update(new)
            waiting += new
        return found


def _is_made(name: str, results: _Results) -> bool:
    return name in results.producer or any(output.startswith(f"{name}/") for output in results.producer)


def verify_results(
    folder: Path, expected: Sequence[str] = (), only: Sequence[str] = (), drawn: str = ""
) -> Verification:
    """Compare the results in a folder with their manifests, and these with one another.

    Args:
        expected: results that should be there, as the workflow names them; they need manifests.
        only: nothing but these results and what they rest on.
        drawn: folder of data that the workflow draws itself, and can draw again.

    Raises:
        UserError: as for :func:`root_of`.
    """
    root = root_of(folder)
    manifests = sorted(folder.rglob(f"*{MANIFEST_SUFFIX}"))
    results = _Results(root, drawn)
    if only:
        results.collect(str(manifest_path(Path(name))) for name in only)
    else:
        results.collect(str(path.absolute().relative_to(root)) for path in manifests)
    outcome = Verification()
    for name in dict.fromkeys((*only, *expected)):
        if _is_made(name, results):
            continue
        if (root / name).exists():
            results.find(name, "has no manifest, so its origin is unknown", [name])
        else:
            outcome.not_made.append(name)
    outcome.files, outcome.bytes = results.hash()
    results.check_outputs()
    results.check_inputs()
    outcome.results = len(results.records)
    outcome.findings = sorted(results.findings.values(), key=lambda finding: finding.path)
    ends = [file for name in (*expected, *only) for file in _files_of(name, results)]
    outcome.reached = frozenset((*ends, *results.rest_on(ends)))
    _leave_out_what_follows(outcome, results)
    return outcome


def _leave_out_what_follows(outcome: Verification, results: _Results) -> None:
    """Keep only what does not rest on others that are made again: the workflow makes that anyway."""

    def first(names: set[str]) -> set[str]:
        return {name for name in names if not results.rest_on(_files_of(name, results)) & names}

    again = first({name for finding in outcome.findings for name in finding.again})
    if_meant = first({name for finding in outcome.findings for name in finding.if_meant})
    outcome.findings = [
        replace(
            finding,
            again=tuple(name for name in finding.again if name in again),
            if_meant=tuple(name for name in finding.if_meant if name in if_meant),
        )
        for finding in outcome.findings
    ]


def _files_of(name: str, results: _Results) -> list[str]:
    """A result as files: itself, or those of a folder."""
    return [name, *(output for output in results.producer if output.startswith(f"{name}/"))]
