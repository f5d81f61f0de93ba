from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.download.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.close()
