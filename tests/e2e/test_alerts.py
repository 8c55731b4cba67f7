"""Real Prometheus and Alertmanager over engine, executors and two controllers: each fault reaches the ledger, once."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from live import SNAPSHOT, Service, Stack, StandIn, good, stack
from prometheus import Prometheus, alertmanager, prometheus

from probatum.core.canonical import sha256_hex
from probatum.core.clock import NS_PER_S, parse_utc
from probatum.pipeline.drift import snapshot
from probatum.pipeline.ports import Record
from probatum.pipeline.registry import CHALLENGER, move_alias
from probatum.pipeline.training import TrainingPlan, train
from probatum.pipeline.verify import verify
from probatum.rollout.alert_files import rule_files
from probatum.rollout.dashboard import queries
from probatum.rollout.plan import Ladder, Policy
from probatum.rollout.policy import shipped_policy
from probatum.testing.models import toy_dataset

SCALE = 0.005
TOKEN = "operator of the test"
WEBHOOK = "/alerts/webhook"


class Site:
    """Everything that runs, and when a fault was made."""

    def __init__(self, live: Stack, shadowed: StandIn, engine: Service, prom: Prometheus) -> None:
        self.live, self.shadowed, self.engine, self.prom = live, shadowed, engine, prom
        self.model = _drifting_model(live)
        self.made_ns: dict[str, int] = {}

    def made(self, alert: str) -> None:
        """Remember that the fault behind an alert was made now."""
        self.made_ns[alert] = time.time_ns()

    def records(self, alert: str, status: str) -> list[Record]:
        """Return what the ledger holds of an alert since its fault."""
        since = self.made_ns.get(alert, 0)
        found = self.live.space.ledger.records(kind="alert", subject=alert)
        return [r for r in found if r.body["figures"]["status"] == status and parse_utc(r.ts) >= since]

    def quiet(self, alert: str) -> None:
        """Wait until an alert does not fire: on a busy machine a scrape or a call may come late."""
        until = time.monotonic() + 60
        while self.prom.query(f'ALERTS{{alertname="{alert}"}}'):
            assert time.monotonic() < until, f"{alert} fires without its fault"
            time.sleep(0.2)

    def wait(self, alert: str, status: str, seconds: float = 60.0) -> Record:
        """Return the first record of an alert with this status, once there is one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := self.records(alert, status):
                return found[0]
            time.sleep(0.05)
        raise AssertionError((alert, status, self.prom.query("ALERTS"), [c.said for c in self.live.controllers]))


def _drifting_model(live: Stack) -> str:
    """Train a model on a market, make it challenger; its drift will be judged on the same market at another pace."""
    space = live.space
    space.datasets.save(toy_dataset(days=8))
    plan = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="direction@60s", model="logistic", name="toy")
    model = train(space.ledger, space, plan).digest
    move_alias(space.ledger, space, CHALLENGER, model)
    return model


def _drift(live: Stack, model: str) -> Record:
    """Record the snapshot of a market whose volume has fallen and whose moves have grown."""
    calm = toy_dataset(days=16, seed=8)
    assert calm.bars is not None
    bars = calm.bars.with_columns(volume=calm.bars["volume"] * 0.001)
    bars = bars.with_columns(
        **{name: np.exp(8.0 * np.log(bars[name] / 100.0)) for name in ("open", "high", "low", "close")}
    )
    live.space.datasets.save(replace(calm, bars=bars))
    return snapshot(live.space.ledger, live.space, model)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start it all once: engine, executors beside an engine that can be told to fail, two controllers, the watchers."""
    root, shadowed = tmp_path_factory.mktemp("alerts"), StandIn()
    rules = root / "rules"
    rules.mkdir()
    for name, text in rule_files(SCALE).items():
        (rules / name).write_text(text)
    (root / "tokens.json").write_text(json.dumps({sha256_hex(TOKEN.encode()): "operate"}))
    with stack(root, None, shadowed) as live:
        engine = Service("engine", "--artifact", str(root / "model.json"), "--port", "0")
        scraped = [part for item in live.executors for part in ("--executor", item.url)]
        place = ("--workspace", str(live.space.root), "--port", "0", "--tokens", str(root / "tokens.json"))
        live.controllers += [Service("controller", *place, *scraped, "--engine", engine.url) for _ in range(2)]
        urls = [item.url for item in live.controllers]
        with (
            alertmanager(root, [url + WEBHOOK for url in urls], TOKEN) as manager,
            prometheus(
                root, executors=[e.url for e in live.executors], engines=[engine.url], controllers=urls, rules=rules,
                alertmanager=manager,
            ) as prom,
        ):  # fmt: skip
            yield Site(live, shadowed, engine, prom)
        engine.stop()


def test_every_panel_has_data(site: Site) -> None:
    """After a short run with a canary and a snapshot, each query of the dashboard returns at least one number."""
    rollout = site.live.prepare("watched", Ladder((100,), phase_s=3_600, poll_s=1), _patient())
    site.live.start("watched")
    site.live.wait(rollout, lambda state: state.share_percent == 100)
    found = _drift(site.live, site.model).body["figures"]
    site.made("MLPSICritical")
    assert found["overall_psi"] > 0.3, found["overall_psi"]
    body = json.dumps({"snapshot": SNAPSHOT}).encode()
    missing = {title for title, _ in queries()}
    until = time.monotonic() + 60
    while missing and time.monotonic() < until:
        for _ in range(20):
            ask = urllib.request.Request(site.engine.url + "/ml/predict", body, {"content-type": "application/json"})
            urllib.request.urlopen(ask, timeout=10).close()
        time.sleep(0.2)
        answers = [(title, site.prom.query(query)) for title, query in queries()]
        missing = {title for title, answer in answers if not any(item["value"][1] != "NaN" for item in answer)}
    assert not missing


def _patient() -> Policy:
    """Return a policy under which errors end no rollout: their alert is what is tested."""
    policy = shipped_policy("default")
    criteria = [msgspec.structs.replace(c, slo=c.slo or c.abort, abort=None) for c in policy.criteria]
    return msgspec.structs.replace(policy, criteria=tuple(criteria))


FAULTS: dict[str, Callable[[Site], None]] = {
    "MLEngineDown": lambda site: site.engine.kill(),
    "MLShadowMatchLow": lambda site: setattr(site.shadowed, "answer", _far),
    "MLShadowErrorRateHigh": lambda site: setattr(site.shadowed, "answer", _broken),
}


def _far(rows: int) -> tuple[int, str]:
    return 200, json.dumps({"scores": [0.9] * rows, "version": "stand-in", "latency_ms": 0.1})


def _broken(rows: int) -> tuple[int, str]:
    return 500, json.dumps({"error": "broken", "rows": rows})


def test_each_fault_reaches_the_ledger_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Engine down, match low, errors and PSI: each fires, is recorded once by one of two controllers; what ends is too."""
    for alert, make in FAULTS.items():
        site.quiet(alert)
        site.made(alert)
        make(site)
        site.wait(alert, "firing")
        site.shadowed.answer = good
    for alert in ("MLShadowMatchLow", "MLShadowErrorRateHigh"):
        site.wait(alert, "resolved")
    drifted = site.wait("MLPSICritical", "firing")
    assert drifted.body["inputs"]["labels"]["model"] == site.model
    with capsys.disabled():
        for alert, made_ns in site.made_ns.items():
            seconds = (parse_utc(site.wait(alert, "firing").ts) - made_ns) / NS_PER_S
            print(f"\n{alert}: {seconds:.2f} s from fault to ledger, durations at {SCALE}", end="")
    records = list(site.live.space.ledger.records(kind="alert"))
    keys = [tuple(r.body["inputs"][name] for name in ("fingerprint", "starts", "status")) for r in records]
    assert len(keys) == len(set(keys))


def test_psi_critical_opened_a_proposal(site: Site) -> None:
    """The alert asked for one retraining of the model that drifted, and names itself as the reason."""
    site.wait("MLPSICritical", "firing")
    until = time.monotonic() + 30  # it follows its alert in a second append
    while not (proposals := list(site.live.space.ledger.records(kind="retrain_proposal"))):
        assert time.monotonic() < until
        time.sleep(0.1)
    (proposal,) = proposals
    because = {r.hash: r for r in site.live.space.ledger.records(kind="alert")}[proposal.body["inputs"]["because"]]
    assert because.subject in ("MLPSICritical", "ML_PSI_Critical")
    assert (proposal.body["inputs"]["artifact"], proposal.body["figures"]["status"]) == (site.model, "open")


def test_all_of_it_verifies(site: Site) -> None:
    """Every record, alerts and proposal among them, is recomputed without a finding."""
    found = verify(site.live.space.ledger, site.live.space)
    assert found.ok, found.findings


def test_what_was_told_can_be_told_again(site: Site) -> None:
    """A replayed notification changes nothing; without the token it is refused."""
    (record,) = {r.hash: r for r in site.records("MLEngineDown", "firing")}.values()
    told = record.body["inputs"]
    alert = {**told, "startsAt": told["starts"], "endsAt": "0001-01-01T00:00:00Z"}
    body = json.dumps({"version": "4", "alerts": [alert]}).encode()
    for controller in site.live.controllers:
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        with urllib.request.urlopen(urllib.request.Request(controller.url + WEBHOOK, body, headers)) as reply:
            assert json.loads(reply.read())["records"] == [record.hash]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(controller.url + WEBHOOK, body, {}))
    newer = [r for r in site.live.space.ledger.records(kind="alert") if r.body["inputs"]["starts"] == told["starts"]]
    assert len([r for r in newer if r.subject == "MLEngineDown" and r.body["inputs"]["status"] == "firing"]) == 1
