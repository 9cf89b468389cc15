from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.engines import fleet, openai
from tests.pipelines.engines.fake_server import (
    FakeServer,
)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff and probes of the `openai` engine within hundredths of a second."""
    monkeypatch.setattr(openai, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(openai, "BACKOFF_LAST_S", 0.05)
    monkeypatch.setattr(fleet, "PROBE_FIRST_S", 0.05)
    monkeypatch.setattr(fleet, "PROBE_LAST_S", 0.1)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running
