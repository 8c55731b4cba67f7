"""The declarations of metrics."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tests.conftest import require_service

from probatum.core.errors import ParameterError
from probatum.services.telemetry.metrics import METRICS, Metric
from probatum.services.telemetry.registry import Registry

SEED_NAMES = {
    "ml_predict_requests_total", "ml_predict_latency_ms", "ml_model_version", "ml_feature_extractions_total",
    "ml_prediction_score", "ml_model_errors_total", "ml_shadow_success_total", "ml_shadow_error_total",
    "ml_shadow_match_total", "ml_shadow_mismatch_total", "ml_shadow_abs_delta", "ml_shadow_latency_ms",
    "ml_shadow_latency_delta_ms", "ml_shadow_match_rate", "ml_baseline_latency_ms", "ml_psi_score",
}  # fmt: skip


def filled() -> Registry:
    """Return a registry in which every metric has a value, under labels that need escaping."""
    registry = Registry()
    for metric in METRICS:
        labels = ['a"b\\c\nd'] * len(metric.labels)
        if metric.kind == "counter":
            registry.counter(metric, *labels).inc()
        elif metric.kind == "gauge":
            registry.gauge(metric, *labels).set(0.5)
        else:
            registry.histogram(metric, *labels).observe(0.7)
    return registry


def test_every_metric_of_the_seed_is_declared_once():
    """Each name of the seed exists, and no name (twins included) is declared twice."""
    names = [metric.name for metric in METRICS] + [metric.twin.name for metric in METRICS if metric.twin]
    assert set(names) >= SEED_NAMES
    assert len(names) == len(set(names))


def test_latency_buckets_have_edges_at_the_bounds_and_below_a_millisecond():
    """A criterion at 60, 80 or 120 ms reads a bucket, not an interpolation; the twin has the same edges in seconds."""
    text = filled().expose().decode()
    for name in ("ml_predict_latency", "ml_shadow_latency", "ml_baseline_latency"):
        for edge in ("0.1", "0.5", "60.0", "80.0", "120.0"):
            assert f'le="{edge}"' in "".join(line for line in text.splitlines() if line.startswith(f"{name}_ms_bucket"))
        for edge in ("0.0001", "0.0005", "0.06", "0.08", "0.12"):
            twin = "".join(line for line in text.splitlines() if line.startswith(f"{name}_seconds_bucket"))
            assert f'le="{edge}"' in twin


def test_a_histogram_without_edges_and_edges_without_a_histogram_are_refused():
    """A declaration that cannot be exposed is not accepted."""
    with pytest.raises(ParameterError):
        Metric("x", "histogram", "x")
    with pytest.raises(ParameterError):
        Metric("x", "counter", "x", (), (1.0,))
    with pytest.raises(ParameterError):
        Metric("x", "histogram", "x", (), (2.0, 1.0))


def test_promtool_reads_the_text_and_only_minds_the_seeds_own_units():
    """promtool parses the exposition; what it lints is the seed's names, each of which has a conventional twin."""
    require_service("promtool", shutil.which("promtool"))
    done = subprocess.run(["promtool", "check", "metrics"], input=filled().expose(), capture_output=True, check=False)
    assert done.returncode in (0, 3), done.stderr.decode()
    minded = {line.split()[0] for line in done.stderr.decode().splitlines() if line.strip()}
    assert minded <= {metric.name for metric in METRICS if metric.twin}, done.stderr.decode()
