"""Problems found in a data set, listed by check with a few examples each."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pipeline_steps.common.errors import UserError

log = logging.getLogger(__name__)

Purpose = Literal["training", "evaluation"]
"""Evaluation stands for all uses of ground truth: metrics, pictures, FiftyOne."""

REFUSED, LEFT_OUT = "refused", "left out"
_DOES = {REFUSED: "refuses the file", LEFT_OUT: "leaves them out"}
ALWAYS_ALLOWED = 10
"""Annotations that training may leave out of a file of any size."""


class Check(NamedTuple):
    """A kind of problem and what each purpose does about it; empty: nothing, it is unusual or misleading only."""

    name: str
    training: str = ""
    evaluation: str = ""
    harmless: bool = False  # a warning: unusual, but harmless


@dataclass
class Kind:
    """Where a check failed."""

    check: Check
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def severity(self) -> str:
        """``error`` if a step refuses the file, leaves something out or goes wrong; else ``warning``."""
        return "warning" if self.check.harmless else "error"


class Findings:
    """Collects problems. An *error* breaks training or evaluation; a *warning* is unusual but harmless."""

    def __init__(self, examples: int = 3) -> None:
        self.limit = examples
        self.kinds: dict[str, Kind] = {}

    def add(self, check: Check, examples: Iterable[object]) -> None:
        """Count failures of a check, each named by its example."""
        for example in examples:
            entry = self.kinds.setdefault(check.name, Kind(check))
            entry.count += 1
            if len(entry.examples) < self.limit:
                entry.examples.append(str(example))

    def error(self, name: str, example: str) -> None:
        """Count an error of which no step takes notice."""
        self.add(Check(name), [example])

    def warning(self, name: str, example: str) -> None:
        """Count a warning."""
        self.add(Check(name, harmless=True), [example])

    def count(self, severity: str) -> int:
        """Number of problems of a severity, over all kinds."""
        return sum(entry.count for entry in self.kinds.values() if entry.severity == severity)

    def _told(self, entry: Kind) -> str:
        more = f" and {entry.count - len(entry.examples)} more" * (entry.count > len(entry.examples))
        return f"{entry.check.name}: {'; '.join(entry.examples)}{more}"

    def refuse(self, path: Path, purpose: Purpose) -> None:
        """Stop if a check failed that the purpose insists on.

        Raises:
            UserError: names the file, the checks and examples.
        """
        refused = [entry for entry in self.kinds.values() if getattr(entry.check, purpose) == REFUSED]
        if refused:
            raise UserError(f"{path}: {'; '.join(map(self._told, refused[:3]))} (check_dataset lists every problem)")

    def _left_out(self) -> list[Kind]:
        return [entry for entry in self.kinds.values() if entry.check.training == LEFT_OUT]

    def excess(self, annotations: int, limit: float) -> str:
        """Why training may not leave out what it would of a file's annotations; empty if it may.

        Args:
            annotations: how many the file has.
            limit: share that may be left out (``data.max_unusable_annotations``).
        """
        count, allowed = sum(e.count for e in self._left_out()), max(ALWAYS_ALLOWED, int(limit * annotations))
        told = f"{count} of {annotations} annotations cannot be used, {allowed} are allowed"
        return f"{told} (data.max_unusable_annotations)" * (count > allowed)

    def leave_out(self, path: Path, annotations: int, limit: float) -> None:
        """Say in the log which of the annotations of the file ``path`` training leaves out; see :meth:`excess`.

        Raises:
            UserError: more than it may.
        """
        told = "; ".join(f"{entry.count} {self._told(entry)}" for entry in self._left_out())
        if excess := self.excess(annotations, limit):
            raise UserError(f"{path}: {excess}: {told}")
        if told:
            count = sum(entry.count for entry in self._left_out())
            log.warning("%s: left out %d of %d annotations: %s", path, count, annotations, told)

    def lines(self) -> list[str]:
        """The report: errors first, most frequent kinds first."""
        lines = []
        for severity in ("error", "warning"):
            kinds = [(name, kind) for name, kind in self.kinds.items() if kind.severity == severity]
            lines.append(f"{severity}s: {sum(kind.count for _, kind in kinds) or 'none'}")
            for name, kind in sorted(kinds, key=lambda item: (-item[1].count, item[0])):
                more = "" if kind.count <= len(kind.examples) else ", ..."
                does = [f"{use} {_DOES[value]}" for use in get_args(Purpose) if (value := getattr(kind.check, use))]
                told = f" ({', '.join(does)})" if does else ""
                lines.append(f"  {kind.count:7d}  {name}: {'; '.join(kind.examples)}{more}{told}")
        return lines
