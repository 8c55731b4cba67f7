"""A smoke test is judged from what was stored."""

from __future__ import annotations

import io

import polars as pl
import pytest

from probatum.core.canonical import canonical_json
from probatum.core.verdict import Provenance
from probatum.pipeline.smoke import SmokeRun, figures, record_smoke
from probatum.testing.fakes import MemorySources


def _requests(latency_ms: list[float], status: list[int]) -> bytes:
    frame = pl.DataFrame(
        {
            "intended_ns": [index * 2_000_000 for index in range(len(status))],
            "latency_ns": [int(value * 1e6) for value in latency_ms],
            "status": status,
            "score": [index / len(status) if code == 200 else None for index, code in enumerate(status)],
        },
        schema={"intended_ns": pl.Int64, "latency_ns": pl.Int64, "status": pl.Int64, "score": pl.Float64},
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _metrics(success: int, error: int = 0) -> bytes:
    name = "ml_predict_requests_total"
    return (
        f"# TYPE {name} counter\n"
        f'{name}{{model_version="m",status="success"}} {success}\n{name}{{model_version="m",status="error"}} {error}\n'
    ).encode()


def _run(requests: bytes, before: bytes, after: bytes) -> SmokeRun:
    return SmokeRun("m", "m", "2024-01-01T00:00:00Z", 500.0, requests, before, after, "a" * 64)


def test_a_good_run_passes_and_its_counts_add_up() -> None:
    """A thousand quick replies that the engine counted too are a PASS with integer counts."""
    sources = MemorySources()
    run = _run(_requests([1.0] * 1_000, [200] * 1_000), _metrics(5), _metrics(1_005))
    record = record_smoke(run, Provenance.REPLAY, sources.ledger, sources)
    found = record.body["figures"]
    assert (found["verdict"], found["success"], found["errors"], found["engine_requests"]) == ("PASS", 1_000, 0, 1_000)
    assert record.provenance is Provenance.REPLAY
    assert canonical_json(figures(record.body["inputs"], sources)) == canonical_json(found)


@pytest.mark.parametrize(
    ("latency_ms", "status", "counted", "failing"),
    [
        ([1.0] * 900 + [200.0] * 100, [200] * 1_000, 1_000, "slow_rate"),
        ([1.0] * 1_000, [200] * 900 + [500] * 100, 1_000, "success_rate"),
        ([1.0] * 1_000, [200] * 900 + [-1] * 100, 1_000, "slow_rate"),
        ([1.0] * 1_000, [200] * 1_000, 990, "uncounted_requests"),
    ],
)
def test_what_is_wrong_fails_under_its_own_name(
    latency_ms: list[float], status: list[int], counted: int, failing: str
) -> None:
    """Slow replies, errors, silence and requests the engine did not count each fail their check."""
    sources = MemorySources()
    run = _run(_requests(latency_ms, status), _metrics(0), _metrics(counted))
    found = record_smoke(run, Provenance.SYNTHETIC, sources.ledger, sources).body["figures"]
    assert found["verdict"] == "FAIL"
    assert failing in [check["name"] for check in found["checks"] if check["verdict"] == "FAIL"]


def test_too_few_requests_prove_nothing() -> None:
    """Twenty perfect replies leave the claims open."""
    sources = MemorySources()
    run = _run(_requests([1.0] * 20, [200] * 20), _metrics(0), _metrics(20))
    assert record_smoke(run, Provenance.SYNTHETIC, sources.ledger, sources).body["figures"]["verdict"] == "INCONCLUSIVE"
