"""Problems found in a data set, listed by kind with a few examples each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Kind:
    """One kind of problem."""

    severity: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """Collects problems. An *error* breaks training or evaluation; a *warning* is unusual but harmless."""

    def __init__(self, examples: int = 3) -> None:
        self.limit = examples
        self.kinds: dict[str, Kind] = {}

    def _add(self, severity: str, kind: str, example: str) -> None:
        entry = self.kinds.setdefault(kind, Kind(severity))
        entry.count += 1
        if len(entry.examples) < self.limit:
            entry.examples.append(example)

    def error(self, kind: str, example: str) -> None:
        """Count an error."""
        self._add("error", kind, example)

    def warning(self, kind: str, example: str) -> None:
        """Count a warning."""
        self._add("warning", kind, example)

    def count(self, severity: str) -> int:
        """Number of problems of a severity, over all kinds."""
        return sum(entry.count for entry in self.kinds.values() if entry.severity == severity)

    def lines(self) -> list[str]:
        """The report: errors first, most frequent kinds first."""
        lines = []
        for severity in ("error", "warning"):
            kinds = [(name, kind) for name, kind in self.kinds.items() if kind.severity == severity]
            lines.append(f"{severity}s: {sum(kind.count for _, kind in kinds) or 'none'}")
            for name, kind in sorted(kinds, key=lambda item: (-item[1].count, item[0])):
                more = "" if kind.count <= len(kind.examples) else ", ..."
                lines.append(f"  {kind.count:7d}  {name}: {'; '.join(kind.examples)}{more}")
        return lines
