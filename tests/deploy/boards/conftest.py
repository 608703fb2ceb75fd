"""The ssh server that the tests of deployments share; see ssh_server.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ssh_server import SshBoard, require_server, ssh_board


@pytest.fixture(scope="session")
def board() -> Iterator[SshBoard]:
    """A board behind a real OpenSSH server, started once."""
    require_server()
    with ssh_board() as started:
        yield started
