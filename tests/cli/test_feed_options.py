"""The executor's class of data follows from where its feed reads, never from what somebody types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from probatum.cli import executor
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.services.executor import run


def build(tmp_path: Path, **changes: Any) -> Any:
    """Wire an executor as the command does, with its own defaults; nothing connects before it is started."""
    context = executor.executor.make_context("executor", ["-w", str(tmp_path)])
    told = {name: value for name, value in context.params.items() if name not in ("workspace", "host", "port")}
    return executor.build(tmp_path, **told | changes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Provenance.SYNTHETIC),
        ({"feed": "binance", "symbols": "X"}, Provenance.LIVE),
        ({"feed": "binance", "symbols": "X", "market": "usdm"}, Provenance.LIVE),
        ({"feed": "binance", "symbols": "X", "url": "wss://stream.binance.com:9443"}, Provenance.SYNTHETIC),
        ({"feed": "binance", "symbols": "X", "rest_url": "https://api.binance.com"}, Provenance.SYNTHETIC),
    ],
)
def test_counters_bear_the_class_of_the_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], expected: Provenance
) -> None:
    """Live only at built-in addresses; what is pushed, or read from an address that was named, is synthetic."""
    seen: list[Provenance] = []

    class Meter(run.RunMeter):
        def __init__(self, log: Any, registry: Any, provenance: Provenance, *rest: Any) -> None:
            seen.append(provenance)
            super().__init__(log, registry, provenance, *rest)

    monkeypatch.setattr(run, "RunMeter", Meter)
    build(tmp_path, **options)
    assert seen == [expected]
    assert [path.name for path in tmp_path.glob("recorded/*")] == ([expected.value] if options else [])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"symbols": "X"}, "left out, or given with --feed"),
        ({"url": "ws://x"}, "left out, or given with --feed"),
        ({"feed": "binance"}, "symbols must be 1 to 100"),
        ({"feed": "binance", "symbols": "X", "grid": "7s"}, "grid must be a whole part of a minute"),
        ({"feed": "binance", "symbols": "X", "grid": "often"}, "grid must be like"),
        ({"feed": "binance", "symbols": "X", "feature_set": "robust"}, "--has volume"),
        ({"feed": "binance", "symbols": "X", "feature_set": "book", "target": "next_move"}, "tick size must be given"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, options: dict[str, str], problem: str) -> None:
    """Each refusal names the option and what is allowed."""
    with pytest.raises((ParameterError, click.UsageError), match=problem):
        build(tmp_path, **options)
