"""Share paths and the rule that a test which needs something absent skips and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from postgres import PostgresServer, find_binaries

_SCHEMAS = count()
SHARED = Path(os.environ.get("PROBATUM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of recorded market data, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"recorded market data not found at {SHARED} (set PROBATUM_SHARED_DATA)")
    return SHARED


def require_service(name: str, found: object) -> None:
    """Skip, saying so, where a service is not installed; fail where PROBATUM_REQUIRE_SERVICES=1 says it must be."""
    if not found:
        problem = f"{name} is not installed"
        if os.environ.get("PROBATUM_REQUIRE_SERVICES") == "1":
            pytest.fail(problem)
        pytest.skip(problem)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a PostgreSQL server of this test process; who stops it starts it again."""
    binaries = find_binaries()
    require_service("PostgreSQL", binaries)
    assert binaries is not None
    server = PostgresServer(binaries)
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of an empty schema."""
    name = f"ledger_{next(_SCHEMAS)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as session:
        session.execute(f"CREATE SCHEMA {name}")
    return postgres_server.url(name)
