"""Base of all configuration sections: unknown keys are refused, values cannot be changed after loading."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of keys. The string below a key is its documentation, in schema and config/README.md alike."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
