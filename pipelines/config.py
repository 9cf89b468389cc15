"""The base of every stage's config: frozen, strict, every key documented under its field."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A stage's settings. Unknown keys and wrong types are errors; all of it enters the digest."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        # Neither has a JSON form, so neither can be in a manifest.
        allow_inf_nan=False,
    )


Advance = Callable[[int, int], None]
"""Called as work gets done, with rows finished and tokens written since the last call."""


def silent(rows: int, tokens: int) -> None:
    """An `Advance` that tells nobody."""
