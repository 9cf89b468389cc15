"""How a run shows where it is: Rich bars on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_EVERY_S = 5.0


@dataclass
class Meter:
    """Counts of one stage as it goes."""

    stage: str
    total: int
    spent: Callable[[], float] | None = None
    """Money that the stage's engine has cost so far."""
    rows: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def words(self) -> str:
        """Tokens a second and cost, where there are any."""
        parts = []
        if self.tokens:
            rate = self.tokens / max(time.monotonic() - self.started, 1e-6)
            parts.append(f"{rate:,.0f} tokens/s")
        if self.spent is not None and (spent := self.spent()):
            parts.append(f"{spent:,.2f} spent")
        return "  ".join(parts)

    def left(self) -> float | None:
        """Seconds left at the pace so far, or None before there is one."""
        if not self.rows or not self.total:
            return None
        return (time.monotonic() - self.started) / self.rows * max(self.total - self.rows, 0)


class Reporter:
    """Shows stages one after another."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.bars = self.console.is_terminal
        self.also: Callable[[str], None] | None = None
        """Hears every line too: the log of a Prefect flow run."""

    def say(self, text: str) -> None:
        """One plain line."""
        self.console.print(text, markup=False, soft_wrap=True)
        if self.also is not None:
            self.also(text.strip())

    @contextmanager
    def stage(
        self, name: str, total: int, spent: Callable[[], float] | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """Show a stage that handles `total` rows; yields the function that counts them."""
        meter = Meter(name, total, spent)
        with self._bar(meter) if self.bars else self._lines(meter) as show:

            def advance(rows: int, tokens: int) -> None:
                meter.rows += rows
                meter.tokens += tokens
                show()

            yield advance
        took = time.monotonic() - meter.started
        extra = meter.words()
        self.say(f"  {name:<18} {meter.rows:>8,} rows  {took:6.1f} s  {extra}".rstrip())

    @contextmanager
    def _bar(self, meter: Meter) -> Iterator[Callable[[], None]]:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=self.console,
            transient=True,
        ) as progress:
            task = progress.add_task(meter.stage, total=meter.total or None, words="")

            def show() -> None:
                progress.update(task, completed=meter.rows, words=meter.words())

            yield show

    @contextmanager
    def _lines(self, meter: Meter) -> Iterator[Callable[[], None]]:
        last = time.monotonic()

        def show() -> None:
            nonlocal last
            if time.monotonic() - last < PLAIN_EVERY_S:
                return
            last = time.monotonic()
            left = meter.left()
            eta = f"  {left:,.0f} s left" if left is not None else ""
            of = f" of {meter.total:,}" if meter.total else ""
            self.say(f"  {meter.stage}: {meter.rows:,}{of}  {meter.words()}{eta}".rstrip())

        yield show
