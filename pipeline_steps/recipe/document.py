"""Documentation of the recipe's keys and JSON schema for editors, generated from their declaration."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline_steps.recipe.layers import is_section
from pipeline_steps.recipe.schema import Recipe

_MANY: dict[Any, tuple[str, str]] = {list: ("list of ", "`[]`"), dict: ("by name: ", "`{}`")}
"""Sections that occur several times: words before the link, and the default."""

START, END = "<!-- keys: generated -->", "<!-- keys: end -->"


def _or_null(schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _of_layers(schema: Any) -> Any:
    """A schema of whole recipes as one of layers: nothing is required, null takes away, lists can change by name."""
    if isinstance(schema, list):
        return [_of_layers(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = ("required", "default") if "$ref" in schema else ("required",)  # a section's default is all its keys
    schema = {key: _of_layers(part) for key, part in schema.items() if key not in left_out}
    if isinstance(values := schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _or_null(values)
    if "properties" in schema:
        schema["properties"] = {
            key: part if "$ref" in part else _or_null(part) for key, part in schema["properties"].items()
        }
    if "$ref" in schema.get("items", ()):
        schema = {"anyOf": [schema, {"type": "object", "additionalProperties": _or_null(schema["items"])}]}
    return schema


def schema_text() -> str:
    """JSON schema of a recipe file, for editors: it may extend another, and change or take away what that has."""
    schema = _of_layers(Recipe.model_json_schema())
    schema["properties"]["extends"] = {"type": "string", "description": "Recipe that this one is laid over."}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"


def _type_name(annotation: Any) -> str:
    text = (
        annotation.__name__
        if isinstance(annotation, type) and not getattr(annotation, "__args__", None)
        else str(annotation)
    )
    return text.replace("typing.", "").replace("pipeline_steps.recipe.", "").replace("NoneType", "none")


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{signs[key]} {getattr(rule, key)}" for rule in field.metadata for key in signs if hasattr(rule, key)]
    return ", ".join(found)


def _inner_section(annotation: Any) -> type[BaseModel] | None:
    return next((kind for kind in (annotation, *get_args(annotation)) if is_section(kind)), None)


def _rows(section: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in section.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|").replace("``", "`")
        inner = _inner_section(field.annotation)
        if inner is not None:
            many, empty = _MANY.get(get_origin(field.annotation), ("", "see there"))
            kind = f"{many}[{inner.__name__}](#{inner.__name__.lower()})"
            default = "required" if field.is_required() else empty
        else:
            kind = f"`{_type_name(field.annotation)}`".replace("|", "\\|")
            default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            limits = _limits(field)
            kind += f" {limits}" if limits else ""
        yield f"| `{name}` | {kind} | {default} | {meaning} |"


def sections(root: type[BaseModel]) -> list[type[BaseModel]]:
    """``root`` and every section below it, each once, in order of first mention."""
    found = [root]
    for section in found:
        for field in section.model_fields.values():
            inner = _inner_section(field.annotation)
            if inner is not None and inner not in found:
                found.append(inner)
    return found


def key_table() -> str:
    """Markdown: one table for each section of the recipe."""
    parts = []
    for section in sections(Recipe):
        text = " ".join((section.__doc__ or "").split()).replace("``", "`")
        parts.append(f"### {section.__name__}\n\n{text}\n\n" + "\n".join(_rows(section)) + "\n")
    return "\n".join(parts)


def readme_with_keys(page: str) -> str:
    """``page`` with everything between the two markers replaced by the key tables."""
    before, rest = page.split(START, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{START}\n\n{key_table()}\n{END}{after}"
