from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.downloads.server import Server
from tests.downloads.sites import publish, write_recipe


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Path:
    """A folder with a recipe that downloads everything from the server."""
    publish(server.root, tmp_path)
    write_recipe(tmp_path, server.url)
    return tmp_path
