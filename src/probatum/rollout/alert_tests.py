"""Write promtool's unit test of each alert: it fires just beyond its bound, not within it, not a step early, not on nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from probatum.rollout import series
from probatum.rollout.alerts import ALERTS, EVERY_S, Alert
from probatum.rollout.signals import ENGINE_UP, PSI_OVERALL, WINDOWS_S, Level, Ratio, Selector, duration

_STEPS = 400
_EVENTS = 1_000  # a step
_LATER_S = 600
_RUN, _MODEL = "btc#2", "ab" * 32
_LEADER = 'job="probatum-controller",instance="leads"'
_WAITER = 'job="probatum-controller",instance="waits"'

Feed = dict[str, str]
"""Series to values, in promtool's notation."""


Check = dict[str, Any]


class Case(msgspec.Struct, frozen=True):
    """Hold what is fed and what promtool must find, under a claim."""

    claim: str
    feed: Feed
    checks: list[Check]


def prometheus_tests() -> list[dict[str, Any]]:
    """Return the tests of every alert and its twin; cases of one claim whose feeds agree share a run of promtool's."""
    worlds: list[Case] = []
    for case in (case for alert in ALERTS for case in _cases(alert)):
        for index, world in enumerate(worlds):
            if world.claim == case.claim and all(world.feed.get(k, v) == v for k, v in case.feed.items()):
                worlds[index] = Case(world.claim, world.feed | case.feed, world.checks + case.checks)
                break
        else:
            worlds.append(case)
    return [
        {
            "name": world.claim,
            "interval": duration(EVERY_S),
            "input_series": [{"series": name, "values": values} for name, values in world.feed.items()],
            "alert_rule_test": world.checks,
        }
        for world in worlds
    ]


def _cases(alert: Alert) -> Iterator[Case]:
    signal, feed = alert.signal, _feed(alert, beyond=True)
    due_s = alert.for_s + (EVERY_S if isinstance(signal, Ratio) else 0)  # a rate takes two samples
    quiet = [_at(due_s + _LATER_S, name, []) for name in (alert.name, alert.twin)]
    yield Case("fires just beyond its bound, after its time", feed, _fires(alert, due_s))
    yield Case("is quiet within its bound", _feed(alert, beyond=False), quiet)
    thin = _thin(alert)
    yield Case("is quiet on nothing, its twin is not", thin, _blind(alert, alert.for_s, _twin_labels(alert, thin)))
    if isinstance(signal, Ratio):
        ended = _blind(alert, 21 * EVERY_S + alert.for_s, _twin_labels(alert, feed))
        yield Case("has a twin that sees the end", _ending(alert, 20), ended)
        yield Case("sees a slow signal", _slow(alert), _fires(alert, _slow_s(signal) + alert.for_s)[1:])
    elif signal.lasts_s:
        stale = _blind(alert, signal.lasts_s + alert.for_s, _twin_labels(alert, feed))
        yield Case("has a twin that sees what is stale", feed, stale)
    if alert.during:
        yield Case("is quiet where no canary runs", feed | _canary(0), quiet)
        lost = {name: values for name, values in feed.items() if _LEADER not in name}
        yield Case("has a twin that misses the controller", lost, _blind(alert, alert.for_s, [{}]))


def _fires(alert: Alert, seconds: int) -> list[Check]:
    """Expect the alert then, and not a step before."""
    said = {"exp_labels": alert.labels | _labels(alert), "exp_annotations": {"summary": alert.summary}}
    return [_at(seconds - EVERY_S, alert.name, []), _at(seconds, alert.name, [said])]


def _blind(alert: Alert, seconds: int, labels: list[dict[str, str]]) -> list[Check]:
    """Expect the twin then, not a step before, and never the alert."""
    said = [{"exp_labels": alert.twin_labels | x, "exp_annotations": {"summary": alert.twin_summary}} for x in labels]
    return [_at(seconds - EVERY_S, alert.twin, []), _at(seconds, alert.twin, said), _at(seconds, alert.name, [])]


def _at(seconds: int, name: str, expected: list[dict[str, Any]]) -> Check:
    return {"eval_time": duration(seconds), "alertname": name, "exp_alerts": expected}


def _labels(alert: Alert) -> dict[str, str]:
    """Return the labels that an alert has from its series."""
    if isinstance(alert.signal, Ratio):
        return {"run": _RUN} if alert.signal.by else {}
    return {"job": series.ENGINES, "instance": "e"} if alert.signal is ENGINE_UP else {"model": _MODEL}


def _twin_labels(alert: Alert, feed: Feed) -> list[dict[str, str]]:
    if isinstance(alert.signal, Ratio):
        return [{"run": _RUN} if alert.signal.by else {}]
    if alert.signal is ENGINE_UP:
        return [{"job": series.ENGINES}]
    return [{}] if alert.during or not feed else [{}, {"model": _MODEL}]


# --- what is fed ------------------------------------------------------------------------------------------------------


def _feed(alert: Alert, *, beyond: bool) -> Feed:
    """Return series one event in a thousand (or 0.001) beyond or within the bound, plenty of them."""
    signal, upward = alert.signal, (alert.beyond == ">") == beyond
    if isinstance(signal, Ratio):
        part = round(alert.bound * _EVENTS) + (1 if upward else -1)
        feed = {name: f"0+{step:g}x{_STEPS}" for name, step in _ratio(signal, part, _EVENTS).items()}
    elif signal is ENGINE_UP:
        feed = {f'up{{job="{series.ENGINES}",instance="e"}}': f"{int(not beyond)}x{_STEPS}"}
    else:
        feed = _psi(signal, alert.bound + (0.001 if upward else -0.001))
    return feed | (_canary(5) if alert.during else {})


def _thin(alert: Alert) -> Feed:
    """Return what is bad, but too little of it to say so; for a gauge, nothing."""
    canary = _canary(5) if alert.during else {}
    if isinstance(alert.signal, Ratio):
        bad = 0 if alert.beyond == "<" else 1
        steps = alert.signal.n_min - 2
        ratio = _ratio(alert.signal, bad, 1)
        return {name: f"0+{step:g}x{steps} {step * steps:g}x{_STEPS}" for name, step in ratio.items()} | canary
    if isinstance(alert.signal, Level) and alert.signal.lasts_s:
        return _psi(alert.signal, None) | canary
    return {}


def _ending(alert: Alert, steps: int) -> Feed:
    """Return a feed of the ratio whose processes end after so many steps."""
    kept = _canary(5) if alert.during else {}
    feed = {name: values for name, values in _feed(alert, beyond=True).items() if name not in kept}
    return {name: values.replace(f"x{_STEPS}", f"x{steps} stale") for name, values in feed.items()} | kept


def _slow(alert: Alert) -> Feed:
    """Return one event a minute, each of them bad."""
    assert isinstance(alert.signal, Ratio)
    bad = 0.0 if alert.beyond == "<" else 0.5
    feed = {name: f"0+{step:g}x{_STEPS}" for name, step in _ratio(alert.signal, bad, 0.5).items()}
    return feed | (_canary(5) if alert.during else {})


def _slow_s(signal: Ratio) -> int:
    """Return when one event a minute is surely enough: a rounded sum may fall a hair short of the last one."""
    assert 60 * signal.n_min < WINDOWS_S[-1]
    return 60 * (signal.n_min + 1)


def _ratio(signal: Ratio, part: float, whole: float) -> dict[str, float]:
    """Return series to increments a step: ``part`` spread over the values of its label, the rest over its own."""
    rest = whole if signal.within else whole - part
    spare = 0.01 * rest if len(signal.rest) > 1 else 0.0
    shares = [rest - spare, spare]
    labels = f',run="{_RUN}"' if signal.by else ""
    found = _spread(signal.part, part, labels)
    for item, share in zip(signal.rest, shares, strict=False):
        found |= _spread(item, share, labels)
    return found


def _spread(item: Selector, amount: float, labels: str) -> dict[str, float]:
    if not item.label:
        return {item.metric: amount}
    return {f'{item.metric}{{{item.label}="{v}"{labels}}}': amount / len(item.values) for v in item.values}


def _psi(signal: Level, value: float | None) -> Feed:
    """Return gauges of a snapshot taken at 0 (None: of too few rows) beside what must not be looked at."""

    def name(feature: str, enforced: str, who: str = _LEADER) -> str:
        return f'{series.PSI}{{model="{_MODEL}",feature="{feature}",enforced="{enforced}",{who}}}'

    feature = "overall" if signal is PSI_OVERALL else "ret1"
    shown = {} if value is None else {name(feature, "true"): f"{value:g}x{_STEPS}"}
    others = {name("mid", "false"): f"9x{_STEPS}", name("overall", "true", _WAITER): f"9x{_STEPS}"}
    times = {f'{series.PSI_TIME}{{model="{_MODEL}",{_LEADER}}}': f"0x{_STEPS}"}
    leads = {name: f"{x}x{_STEPS}" for name, x in _leads().items()}
    return {**shown, **others, **times, **leads}


def _canary(share: int) -> Feed:
    """Return what two controllers say of an attempt: the one that waits has not heard that the last one ended."""

    def name(run: str, who: str) -> str:
        return f'{series.CANARY_SHARE}{{rollout="btc",run="{run}",{who}}}'

    shares = {name(_RUN, _LEADER): share, name("btc#1", _LEADER): 0, name("btc#1", _WAITER): 50}
    return {name: f"{x}x{_STEPS}" for name, x in (shares | _leads()).items()}


def _leads() -> dict[str, int]:
    return {f"{series.CONTROLLER_LEADS}{{{who}}}": int(who == _LEADER) for who in (_LEADER, _WAITER)}
