"""Show the newest drift snapshots of the models at work, for the rules that judge them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from probatum.core.clock import NS_PER_S, parse_utc
from probatum.core.errors import StorageError
from probatum.pipeline.ports import Record
from probatum.services.telemetry import metrics
from probatum.services.telemetry.metrics import Metric
from probatum.services.telemetry.registry import Gauge, Registry

OVERALL = "overall"

_log = logging.getLogger("probatum.controller")
_Series = tuple[Metric, tuple[str, ...]]


class DriftGauges:
    """Keep the gauges of drift at what the ledger says; a model that is no longer at work leaves them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._gauges: dict[_Series, Gauge] = {}

    def show(self, snapshots: Mapping[str, Record], models: Iterable[str]) -> None:
        """Set the gauges of ``models`` (digests) from the newest snapshot of each."""
        values = {key: v for model in sorted(models) for key, v in _values(model, snapshots.get(model))}
        for gone in self._gauges.keys() - values.keys():
            self._gauges[gone].clear()
        try:
            for (metric, labels), value in values.items():
                if (metric, labels) not in self._gauges:
                    self._gauges[metric, labels] = self._registry.gauge(metric, *labels)
                self._gauges[metric, labels].set(value)
        except StorageError as error:  # a full page must not stop the rollouts; the alert's twin tells
            _log.error("%s", error.message)


def _values(model: str, snapshot: Record | None) -> Iterable[tuple[_Series, float]]:
    """Yield what is shown of one model: with too few rows only when that was found, without a snapshot that there is none."""
    yield (metrics.PSI_TIME, (model,)), 0.0 if snapshot is None else parse_utc(snapshot.ts) / NS_PER_S
    if snapshot is None:
        return
    found: dict[str, Any] = snapshot.body["figures"]
    if found["rows"] >= snapshot.body["inputs"]["settings"]["rows_min"]:
        checks = [*(feature["check"] for feature in found["features"]), {**found[OVERALL], "name": OVERALL}]
        for check in checks:
            if check["psi"] is not None:
                labels = (model, check["name"], str(check["enforced"]).lower())
                yield (metrics.PSI_SCORE, labels), check["psi"]
