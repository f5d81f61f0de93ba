"""Replicates: an entry of ``pretraining``, ``models`` or ``experts`` with ``seeds`` stands for one model per seed.

Expanded while a recipe is read, so that everything after it sees ordinary models. A replicate starts from the
replicate of its own seed of a replicated pre-training: runs of one seed in different settings are then fair pairs.
"""

from collections.abc import Mapping
from typing import Any

LISTS = ("pretraining", "models", "experts")


def replicate_name(name: str, seed: int) -> str:
    """Name of the replicate of ``name`` with ``seed``."""
    return f"{name}_s{seed}"


def _seeds(entry: Any) -> list[int]:
    """Seeds of an entry as written; empty for anything that is not a model with a list of numbers (checked later)."""
    if not (isinstance(entry, Mapping) and isinstance(entry.get("name"), str)):
        return []
    seeds = entry.get("seeds")
    return seeds if isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds) else []


def _replicates(entry: Mapping[str, Any], seeds_of: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    name, seeds, init = entry["name"], _seeds(entry), entry.get("init", "")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}: duplicate seed in seeds {seeds}")
    if min(seeds) < 0:
        raise ValueError(f"{name}: negative seed in seeds {seeds}")
    if entry.get("seed") is not None:
        raise ValueError(f"{name}: set seed or seeds, not both")
    missing = sorted(set(seeds) - set(seeds_of.get(init, seeds)))
    if missing:
        raise ValueError(f"{name}: its pre-training {init} has no seed {', '.join(map(str, missing))}")
    rest = {key: value for key, value in entry.items() if key != "seeds"}
    return [
        {
            **rest,
            "name": replicate_name(name, seed),
            "seed": seed,
            "replicate_of": name,
            "init": replicate_name(init, seed) if init in seeds_of else init,
        }
        for seed in seeds
    ]


def expand_replicates(values: dict[str, Any]) -> dict[str, Any]:
    """Raw values of a recipe with every entry that has ``seeds`` replaced by its replicates.

    A replicate is called ``<name>_s<seed>`` and names its entry as ``replicate_of``. Rows of ``report.tables`` that
    name the entry then name all its replicates.

    Raises:
        ValueError: seeds that are given twice, beside ``seed``, or that a pre-training lacks.
    """
    entries = [entry for key in LISTS if isinstance(values.get(key), list) for entry in values[key]]
    seeds_of = {entry["name"]: seeds for entry in entries if (seeds := _seeds(entry))}
    if not seeds_of:
        return values
    result = dict(values)
    for key in LISTS:
        if isinstance(values.get(key), list):
            result[key] = [
                one for entry in values[key] for one in (_replicates(entry, seeds_of) if _seeds(entry) else [entry])
            ]
    report = values.get("report")
    if isinstance(report, Mapping) and isinstance(report.get("tables"), Mapping):
        tables = {name: _expanded_rows(rows, seeds_of) for name, rows in report["tables"].items()}
        result["report"] = {**report, "tables": tables}
    return result


def _expanded_rows(rows: Any, seeds_of: Mapping[str, list[int]]) -> Any:
    if not isinstance(rows, Mapping):
        return rows
    return {
        row: [one for name in names for one in _expanded_names(name, seeds_of)] if isinstance(names, list) else names
        for row, names in rows.items()
    }


def _expanded_names(name: Any, seeds_of: Mapping[str, list[int]]) -> list[Any]:
    seeds = seeds_of.get(name) if isinstance(name, str) else None
    return [replicate_name(name, seed) for seed in seeds] if seeds else [name]
