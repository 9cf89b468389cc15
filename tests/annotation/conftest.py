from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from annotation.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Label Studio server, killed and started again by some tests."""
    pytest.importorskip("label_studio_sdk", reason="the review extra is not installed")
    from tests.servers import label_studio

    made = label_studio.server(tmp_path_factory.mktemp("label_studio") / "data")
    with made:
        yield made


@pytest.fixture
def owner(server: Server) -> Iterator[httpx.Client]:
    from tests.servers import label_studio

    with label_studio.owner(server) as client:
        yield client


@pytest.fixture(scope="session")
def people(server: Server) -> list[object]:
    """Three annotators with accounts of their own."""
    from tests.servers import label_studio

    with label_studio.owner(server) as client:
        return [label_studio.Person(client, f"{n}@example.org") for n in ("ann", "bob", "eve")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "campaign"
