"""Base of all configuration sections: unknown keys are refused, values cannot be changed after loading."""

import os
import unicodedata
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A group of keys. The string below a key is its documentation, in schema and config/README.md alike."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _path_text(text: str) -> str:
    """``text`` as the name of a file or folder: anything but what no shell, log or rule of Snakemake could hold."""
    if unprintable := [character for character in text if unicodedata.category(character) in ("Cc", "Cs")]:
        raise ValueError(f"{text!r} is not a valid path: it contains the control character {unprintable[0]!r}")
    rest = text.replace("{datasets_root}", "")
    if "{" in rest or "}" in rest:
        raise ValueError(f"{text!r} has braces, which are wildcards in Snakemake; only {{datasets_root}} is replaced")
    if text.startswith("-"):
        raise ValueError(f"{text!r} looks like a command-line option: write ./{text}")
    return os.path.expanduser(text)  # noqa: PTH111 - a Path would drop the slash at the end and ./ at the beginning


PathText = Annotated[str, AfterValidator(_path_text)]
"""A path in the recipe: spaces, quotes and any language are allowed; ``~`` is the home folder."""

LvisVersion = Literal["v0.5", "v1"]
LVIS_VERSIONS: tuple[str, ...] = get_args(LvisVersion)
"""Releases of LVIS."""
