"""Processes behind one socket."""

from __future__ import annotations

import subprocess
import sys

import pytest

from probatum.core.errors import ParameterError
from probatum.services.fleet import bind, url_of

DIES = """
import os, sys
from probatum.services.fleet import Supervisor, bind
started = []
def work(worker, orphan_fd):
    os._exit(3)
sys.exit(Supervisor(2, bind("127.0.0.1", 0), work, started.append).run())
"""


def test_workers_that_die_young_again_and_again_end_the_service():
    """A service that cannot start says so with its exit code instead of forking for ever."""
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 2 < done.stderr.count("replacing it") < 10


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70_000), ("256.0.0.1", 0), ("192.0.2.1", 0), ("::1", -1), ("", 0)]
)
def test_an_address_that_cannot_be_bound_is_named(host: str, port: int):
    """The message holds host and port, and no stack trace reaches the user; no host at all is not every address."""
    with pytest.raises(ParameterError, match="host, port"):
        bind(host, port)


def test_the_url_of_a_socket_holds_its_port():
    """IPv6 addresses stand in brackets."""
    with bind("127.0.0.1", 0) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        sock = bind("::1", 0)
    except ParameterError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert url_of(sock).startswith("http://[::1]:")
