"""Drift gauges say what the newest snapshots say, and nothing of models that are not at work."""

from __future__ import annotations

import math
from typing import Any

import pytest

from probatum.core.errors import StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import seal
from probatum.pipeline.ports import Record
from probatum.services.controller.gauges import DriftGauges
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

MODEL, OTHER = "a" * 64, "b" * 64
TS = "2026-01-01T00:00:00Z"
TS_S = 1_767_225_600.0


def snapshot(rows: int = 1_000, overall: float | None = 0.4) -> Record:
    figures = {
        "rows": rows, "overall": {"name": "overall", "psi": overall, "enforced": True},
        "features": [{"check": {"name": "ret1", "psi": 0.1, "enforced": True}}, {"check": {"name": "mid", "psi": 9.0, "enforced": False}}],
    }  # fmt: skip
    inputs = {"artifact": MODEL, "settings": {"rows_min": 1_000}}
    body = {"inputs": inputs, "figures": figures}
    return seal(1, TS, "psi_snapshot", "m", Provenance.SYNTHETIC, body, "0" * 64)


def psi(registry: Registry, model: str, feature: str, enforced: str = "true") -> float:
    return registry.value(metrics.PSI_SCORE, model, feature, enforced)


def test_a_snapshot_is_shown_and_leaves_with_its_model() -> None:
    """Overall, enforced and watched features stand apart; when the model is no longer at work nothing stands."""
    registry = Registry()
    gauges = DriftGauges(registry)
    gauges.show({MODEL: snapshot()}, [MODEL, OTHER])
    assert [psi(registry, MODEL, "overall"), psi(registry, MODEL, "ret1"), psi(registry, MODEL, "mid", "false")] == [
        0.4,
        0.1,
        9.0,
    ]
    assert [registry.value(metrics.PSI_TIME, model) for model in (MODEL, OTHER)] == [TS_S, 0.0]
    gauges.show({MODEL: snapshot()}, [OTHER])
    assert math.isnan(psi(registry, MODEL, "overall"))
    assert math.isnan(registry.value(metrics.PSI_TIME, MODEL))
    gauges.show({MODEL: snapshot()}, [MODEL])
    assert psi(registry, MODEL, "ret1") == 0.1


@pytest.mark.parametrize("few", [snapshot(rows=999), snapshot(overall=None)])
def test_too_few_rows_show_no_psi(few: Record) -> None:
    """What could not be judged is absent, also where a number stood before; when it was asked stands."""
    registry = Registry()
    gauges = DriftGauges(registry)
    gauges.show({MODEL: snapshot()}, [MODEL])
    gauges.show({MODEL: few}, [MODEL])
    assert math.isnan(psi(registry, MODEL, "overall"))
    assert registry.value(metrics.PSI_TIME, MODEL) == TS_S


def test_a_full_page_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that takes no more labels leaves the rest as it is; the loop goes on."""

    def full(*_: Any) -> None:
        raise StorageError("too many label values")

    registry = Registry()
    monkeypatch.setattr(registry, "gauge", full)
    DriftGauges(registry).show({MODEL: snapshot()}, [MODEL])
    assert math.isnan(psi(registry, MODEL, "overall"))
