"""What all pages share: the template environment that escapes every text, and whole-file writing."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import escape

from flows import charts, visible
from pipelines.durable import explained


def environment() -> Environment:
    """Templates in which a text that nobody marked as markup is escaped and made visible."""
    made = Environment(
        loader=PackageLoader("flows"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible.finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=charts.number,
        block=visible.block,
        inline=visible.inline,
        plain=visible.plain,
        bare=lambda text: escape(visible.plain(text)),
    )
    return made


def write_page(page: str, path: Path) -> None:
    """Write the page beside its final place, then rename: a reader never sees half a page."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.tmp")
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
