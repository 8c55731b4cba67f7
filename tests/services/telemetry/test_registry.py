"""Counting in shared pages."""

from __future__ import annotations

import math
import os
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as ReferenceHistogram
from prometheus_client.parser import text_string_to_metric_families

from probatum.core.errors import ParameterError, StorageError, UnknownNameError
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry, new_pages


def samples(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what an independent parser reads in the exposition."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(registry.expose().decode())
        for sample in family.samples
    }


@given(st.lists(st.floats(0, 5_000), max_size=40))
def test_a_histogram_counts_as_prometheus_client_does(values: list[float]):
    """Buckets (edges inclusive), sum and count equal those of the reference client."""
    reference = CollectorRegistry()
    theirs = ReferenceHistogram("h", "h", registry=reference, buckets=metrics.LATENCY_MS)
    registry = Registry()
    ours = registry.histogram(metrics.BASELINE_LATENCY)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    read = samples(registry)
    for family in reference.collect():
        for sample in family.samples:
            if sample.name == "h_created":
                continue
            name = sample.name.replace("h_", "ml_baseline_latency_ms_", 1)
            assert read[name, tuple(sample.labels.items())] == pytest.approx(sample.value, abs=1e-9)


# Without control characters, on which the reference parser itself splits lines.
LABEL = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")) | st.just("\n"), max_size=30)


@given(LABEL)
def test_a_label_value_survives_the_exposition(text: str):
    """Quotes, backslashes, line ends and everything else come back from the parser as they went in."""
    registry = Registry()
    registry.counter(metrics.MODEL_ERRORS, text).inc(3)
    assert samples(registry)["ml_model_errors_total", (("error_type", text),)] == 3


def test_the_sum_over_forked_processes_is_exact():
    """Four processes count 10,000 events each in pages of their own: any of them exposes 40,000."""
    pages = new_pages(4)
    children = []
    for own in range(4):
        pid = os.fork()
        if pid == 0:
            counter = Registry(pages, own).counter(metrics.MODEL_ERRORS, "x")
            for _ in range(10_000):
                counter.inc()
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert Registry(pages, 2).value(metrics.MODEL_ERRORS, "x") == 40_000


def test_a_successor_goes_on_where_its_predecessor_stopped():
    """A registry over a used page finds its series and never sets them back."""
    pages = new_pages(1)
    Registry(pages).counter(metrics.MODEL_ERRORS, "x").inc(5)
    second = Registry(pages)
    second.counter(metrics.MODEL_ERRORS, "y").inc()
    second.counter(metrics.MODEL_ERRORS, "x").inc()
    assert second.value(metrics.MODEL_ERRORS, "x") == 6
    assert second.value(metrics.MODEL_ERRORS, "y") == 1


def test_a_gauge_is_absent_until_set_and_after_clear_and_the_largest_of_all_processes():
    """No value is no line: an unset gauge is not a zero."""
    pages = new_pages(2)
    one, two = Registry(pages, 0), Registry(pages, 1)
    gauge = one.gauge(metrics.SHADOW_MATCH_RATE)
    assert b"ml_shadow_match_rate" not in one.expose()
    gauge.set(0.5)
    two.gauge(metrics.SHADOW_MATCH_RATE).set(0.25)
    assert one.value(metrics.SHADOW_MATCH_RATE) == 0.5
    gauge.clear()
    assert two.value(metrics.SHADOW_MATCH_RATE) == 0.25
    two.gauge(metrics.SHADOW_MATCH_RATE).clear()
    assert math.isnan(one.value(metrics.SHADOW_MATCH_RATE))


def test_wrong_kinds_labels_and_too_many_series_are_refused():
    """A wrong use is an error where it is made; a full page refuses a new series and keeps the old ones."""
    registry = Registry()
    with pytest.raises(UnknownNameError):
        registry.counter(metrics.BASELINE_LATENCY)
    with pytest.raises(ParameterError):
        registry.counter(metrics.MODEL_ERRORS)
    registry.counter(metrics.MODEL_ERRORS, "x").inc()
    versions = [f"version-{i}-{'x' * 100}" for i in range(2_000)]
    with pytest.raises(StorageError):
        list(map(partial(registry.histogram, metrics.PREDICT_LATENCY), versions))
    assert registry.value(metrics.MODEL_ERRORS, "x") == 1


def test_a_derived_gauge_is_computed_when_somebody_looks():
    """``before_expose`` runs at each exposition."""
    registry = Registry()
    match, gauge = registry.counter(metrics.SHADOW_MATCH), registry.gauge(metrics.SHADOW_MATCH_RATE)
    registry.before_expose(lambda: gauge.set(registry.value(metrics.SHADOW_MATCH) / 4))
    match.inc(3)
    assert samples(registry)["ml_shadow_match_rate", ()] == 0.75
    assert samples(registry)["ml_shadow_match_ratio", ()] == 0.75
