"""Share paths and the rule that a test which needs something absent skips and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("PROBATUM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of recorded market data, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"recorded market data not found at {SHARED} (set PROBATUM_SHARED_DATA)")
    return SHARED
