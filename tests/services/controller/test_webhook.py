"""The webhook takes what Alertmanager tells, once, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from seed import write_seed_artifact

from probatum.cli.workspace import Workspace
from probatum.core.canonical import sha256_hex
from probatum.core.errors import StorageError
from probatum.pipeline import proposals
from probatum.pipeline.evidence import prove
from probatum.pipeline.kinds import get_kind
from probatum.pipeline.ports import Record
from probatum.pipeline.verify import verify
from probatum.services.auth import Role, Tokens
from probatum.services.controller.app import ControllerApp
from probatum.services.controller.webhook import ALERTS_MAX, WAITING_MAX, Webhook
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

TOKEN = {"authorization": "Bearer operator"}
ZERO = "0001-01-01T00:00:00Z"


class Loop:
    """What the app shows of a loop."""

    status: dict[str, Any] = {}  # noqa: RUF012

    def run(self, stop: object) -> None: ...


class Site:
    """Controllers on one workspace, called as Alertmanager would."""

    def __init__(self, root: Path) -> None:
        self.space = Workspace(root)
        self.model = self.space.blobs.put("artifact", write_seed_artifact(root / "model.json").read_bytes())
        self.registry = Registry()
        tokens = Tokens({sha256_hex(b"operator"): Role.OPERATE, sha256_hex(b"viewer"): Role.VIEW})

        def controller() -> ControllerApp:
            webhook = Webhook(Workspace(root), tokens, self.space.clock, self.registry)
            return ControllerApp(Loop(), self.registry, webhook.routes)  # type: ignore[arg-type]

        self.controllers = [controller(), controller()]

    def post(self, *bodies: Any, headers: dict[str, str] = TOKEN) -> list[httpx.Response]:
        """Send all at once, in turn to each controller."""
        return asyncio.run(self._post(bodies, headers))

    async def _post(self, bodies: Sequence[Any], headers: dict[str, str]) -> list[httpx.Response]:
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://c") for app in self.controllers
        ]
        contents = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
        headers = {"content-type": "application/json", **headers}
        return await asyncio.gather(
            *(
                clients[i % 2].post("/alerts/webhook", content=content, headers=headers)
                for i, content in enumerate(contents)
            )
        )

    def alerts(self) -> list[Record]:
        return list(self.space.ledger.records(kind="alert"))

    def proposals(self) -> list[Record]:
        return list(self.space.ledger.records(kind="retrain_proposal"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def told(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a notification with the fields that Alertmanager 0.25 sends."""
    head = {"receiver": "probatum", "status": "firing", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://am", "version": "4", "groupKey": "{}", "truncatedAlerts": 0}  # fmt: skip
    return {**head, "alerts": list(alerts), **more}


def alert(name: str = "MLEngineDown", status: str = "firing", ends: str = ZERO, **labels: str) -> dict[str, Any]:
    return {
        "status": status, "labels": {"alertname": name, "severity": "critical", **labels}, "annotations": {"summary": "x"},
        "startsAt": "2026-01-01T00:00:00.5Z", "endsAt": ends, "generatorURL": "http://p",
        "fingerprint": sha256_hex(json.dumps([name, labels]).encode())[:16],
    }  # fmt: skip


def test_firing_and_resolved_are_one_record_each(site: Site) -> None:
    """Told five times to two controllers at once, an alert is one record; its end is another; both verify."""
    fired = told(alert(instance="127.0.0.1:4010"))
    replies = site.post(*[fired] * 5)
    assert {reply.status_code for reply in replies} == {200}, replies[0].text
    assert len({tuple(reply.json()["records"]) for reply in replies}) == 1
    resolved = told(alert(instance="127.0.0.1:4010", status="resolved", ends="2026-01-01T00:02:00Z"))
    site.post(*[resolved] * 3, fired)
    figures = [record.body["figures"] for record in site.alerts()]
    said = {"alert": "MLEngineDown", "severity": "critical"}
    assert figures == [
        {**said, "status": "firing", "lasted_s": None},
        {**said, "status": "resolved", "lasted_s": 119.5},
    ]
    assert {record.provenance for record in site.alerts()} == {"synthetic"}
    assert site.registry.value(metrics.ALERTS_RECEIVED, "taken") == 9
    assert verify(site.space.ledger, site.space).ok


def test_the_same_time_in_another_zone_is_the_same(site: Site) -> None:
    """Alertmanager writes its own zone; a record has one spelling."""
    other = told({**alert(), "startsAt": "2026-01-01T02:00:00.500+02:00"})
    site.post(told(alert()), other)
    assert len(site.alerts()) == 1


def test_psi_critical_opens_one_proposal(site: Site) -> None:
    """Both PSI alerts ask for one retraining of the model they name; told again, resolved, they ask for no other."""
    both = told(alert("MLPSICritical", model=site.model), alert("ML_PSI_Critical", model=site.model))
    replies = site.post(both, both)
    (proposal,) = site.proposals()
    assert [reply.json()["proposals"] for reply in replies] == [[proposal.hash]] * 2
    assert proposal.body["inputs"] | {"now": ""} == {
        "artifact": site.model, "trigger": "drift", "because": site.alerts()[0].hash, "now": "",
    }  # fmt: skip
    assert proposal.body["figures"]["status"] == "open"
    site.post(told(alert("MLPSIWarning", model=site.model)), told(alert("MLPSICritical", "resolved", "2026-01-02T00:00:00Z", model=site.model)))  # fmt: skip
    assert len(site.proposals()) == 1
    assert verify(site.space.ledger, site.space).ok


def test_the_end_of_an_alert_asks_for_nothing(site: Site) -> None:
    """A resolved alert is recorded, and nobody retrains because drift has gone."""
    site.post(told(alert("MLPSICritical", "resolved", "2026-01-02T00:00:00Z", model=site.model)))
    assert (len(site.alerts()), site.proposals()) == (1, [])


def test_an_answered_alert_does_not_ask_again(site: Site) -> None:
    """When a proposal has led to a model, the alert behind it, told again, opens none; a new alert does."""
    site.post(told(alert("MLPSICritical", model=site.model)))
    (opened,) = site.proposals()
    attempt = {"proposal": opened.hash, "artifact": site.model}
    prove(
        site.space.ledger, site.space, kind=proposals.ATTEMPT, subject=opened.subject, provenance=opened.provenance,
        inputs=attempt, derive=lambda *_: {"verdict": "PASS"},
    )  # fmt: skip
    site.post(told(alert("MLPSICritical", model=site.model)))
    assert len(site.proposals()) == 1
    later = {**alert("MLPSICritical", model=site.model), "startsAt": "2026-03-01T00:00:00Z"}
    site.post(told(later))
    first, second = proposals.proposals(site.space.ledger.records())
    assert (first.state, second.state) == ("passed", "open")


@pytest.mark.parametrize("model", ["ab" * 32, "../../etc/passwd", "", "=cmd|' /C calc'!A0", "<script>"])
def test_an_unknown_model_is_not_retrained(site: Site, model: str) -> None:
    """The alert is recorded; a model that is not there, or no digest at all, opens nothing and breaks nothing."""
    (reply,) = site.post(told(alert("MLPSICritical", model=model)))
    assert reply.status_code == 200
    assert len(site.alerts()) == 1
    assert site.proposals() == []
    assert len(reply.json()["problems"]) == (model == "ab" * 32)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"authorization": "Bearer guess"}, 401), ({"authorization": "Basic operator"}, 401),
     ({"authorization": "Bearer viewer"}, 403), (TOKEN | {"content-type": "text/html"}, 415)],
)  # fmt: skip
def test_who_may_not_tell_is_refused(site: Site, headers: dict[str, str], status: int) -> None:
    """Without a token of role operate, or as something else than JSON: nothing is entered."""
    (reply,) = site.post(told(alert()), headers=headers)
    assert (reply.status_code, site.alerts()) == (status, [])
    assert reply.json()["field"] in ("authorization", "content-type")


def changed(**fields: Any) -> dict[str, Any]:
    return told({**alert(), **fields})


BAD: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{", 400, "body"),
    "not UTF-8": (b'{"version":"\xff"}', 400, "body"),
    "NaN": (b'{"version":"4","alerts":NaN}', 400, "body"),
    "a list": ([], 422, "body"),
    "nested": (b'{"version":"4","x":' + b"[" * 100_000, 400, "body"),
    "another version": (told(alert(), version="3"), 422, "version"),
    "no alerts": ({"version": "4"}, 422, "alerts"),
    "empty": (told(), 422, "alerts"),
    "too many": (told(*[alert()] * (ALERTS_MAX + 1)), 422, "alerts"),
    "too large": (told({**alert(), "annotations": {"summary": "x" * (1 << 20)}}), 413, "body"),
    "no fingerprint": (told({k: v for k, v in alert().items() if k != "fingerprint"}), 422, "alerts[0].fingerprint"),
    "fingerprint": (changed(fingerprint="../x"), 422, "alerts[0].fingerprint"),
    "fingerprint with a line": (changed(fingerprint="ab\n"), 422, "alerts[0].fingerprint"),
    "status": (changed(status="pending"), 422, "alerts[0].status"),
    "time": (changed(startsAt="yesterday"), 422, "alerts"),
    "no zone": (changed(startsAt="2026-01-01T00:00:00"), 422, "alerts"),
    "before time": (changed(startsAt="0000-00-00T00:00:00Z"), 422, "alerts"),
    "after time": (changed(startsAt="9999-12-31T23:59:59-14:00"), 422, "alerts"),
    "ends before it starts": (changed(status="resolved", endsAt="2025-01-01T00:00:00Z"), 422, "alerts"),
    "label of a number": (changed(labels={"alertname": 7}), 422, "alerts[0].labels."),
    "long label": (changed(labels={"alertname": "MLEngineDown", "a": "x" * 257}), 422, "alerts[0].labels.a"),
    "label name": (changed(labels={"alertname": "MLEngineDown", "<b>": "x"}), 422, "alerts[0].labels"),
    "many labels": (changed(labels={f"l{i}": "x" for i in range(65)}), 422, "alerts[0].labels"),
    "twice": (json.dumps(told(alert()))[:-1].encode() + b',"version":"4"}', 422, "version"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_notification_is_refused(site: Site, name: str) -> None:
    """Each is a 4xx that names the field; nothing is entered, whole or in part."""
    body, status, field = BAD[name]
    (reply,) = site.post(body)
    assert (reply.status_code, site.alerts()) == (status, []), reply.text
    assert field in reply.json()["field"] + reply.json()["error"]
    assert len(reply.content) < 1_000


def test_who_leaves_amid_a_body_is_no_error(site: Site) -> None:
    """A client that goes before its body is in enters nothing and raises nothing."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer operator"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/alerts/webhook", "headers": headers, "query_string": b"", "root_path": ""}  # fmt: skip
    asyncio.run(site.controllers[0](scope, receive, send))
    assert (sent[0]["status"], site.alerts()) == (400, [])


def test_names_from_outside_are_text(site: Site) -> None:
    """Script, formula, newline, escape, NUL and path in labels are kept as harmless text; what is not ours is not kept."""
    hostile = "<script>alert(1)</script>\r\n=1+1\x1b[31m\0../../x\u2028"
    (reply,) = site.post(told(alert(symbol=hostile), alert(hostile), alert("constructor")))
    assert (reply.status_code, reply.json()["refused"]) == (200, 2)
    (record,) = site.alerts()
    kept = record.body["inputs"]["labels"]["symbol"]
    assert kept == "<script>alert(1)</script>\\r\\n=1+1\\x1b[31m\\x00../../x\\u2028"
    assert kept.isprintable()
    assert verify(site.space.ledger, site.space).ok
    assert site.registry.value(metrics.ALERTS_RECEIVED, "refused") == 2


def test_a_flood_is_held_off_and_loses_nothing(site: Site) -> None:
    """Of a hundred at once some are told to come again; who does so until heard is entered once each, with one series."""
    wave = [told(alert(instance=f"e{i}")) for i in range(100)]
    refused = 0
    for _ in range(100):
        replies = site.post(*wave)
        assert {reply.status_code for reply in replies} <= {200, 503}
        wave = [body for body, reply in zip(wave, replies, strict=True) if reply.status_code == 503]
        refused += len(wave)
        if not wave:
            break
    assert refused > 100 - 4 * WAITING_MAX
    assert len(site.alerts()) == len({r.body["inputs"]["labels"]["instance"] for r in site.alerts()}) == 100
    assert site.registry.expose().count(b"ml_alerts_received_total{") == 2


def test_a_ledger_that_is_down_is_told_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it does not answer the reply is 503, without a path of ours; afterwards the same notification is entered."""

    def fail(*_: object, **__: object) -> None:
        raise StorageError("/secret/ledger.db: disk full")

    with monkeypatch.context() as broken:
        broken.setattr("probatum.adapters.ledger.SqliteLedger.append_all", fail)
        (reply,) = site.post(told(alert()))
        assert reply.status_code == 503
        assert "secret" not in reply.text
    (reply,) = site.post(told(alert()))
    assert (reply.status_code, len(site.alerts())) == (200, 1)


def test_a_crash_between_alert_and_proposal_is_made_good(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert that was entered and whose proposal was not is asked for when it is told again."""
    body = told(alert("MLPSICritical", model=site.model))
    original: Callable[..., Record] = proposals.open_proposal

    def crash(*_: object, **__: object) -> Record:
        raise StorageError("power cut")

    monkeypatch.setattr("probatum.pipeline.notices.open_proposal", crash)
    assert site.post(body)[0].status_code == 503
    assert (len(site.alerts()), site.proposals()) == (1, [])
    monkeypatch.setattr("probatum.pipeline.notices.open_proposal", original)
    assert site.post(body)[0].status_code == 200
    assert (len(site.alerts()), len(site.proposals())) == (1, 1)


def test_a_tampered_record_is_found(site: Site) -> None:
    """The figures of both kinds are functions of their inputs: another severity or model changes them, or cannot be had."""
    site.post(told(alert("MLPSICritical", model=site.model)))
    fired, proposal = site.alerts()[0], site.proposals()[0]
    derive = get_kind("alert").derive()
    assert derive(fired.body["inputs"], site.space) == fired.body["figures"]
    bent = fired.body["inputs"] | {"labels": {"severity": "info"}}
    assert derive(bent, site.space) != fired.body["figures"]
    with pytest.raises(msgspec.ValidationError):
        derive(fired.body["inputs"] | {"status": "off"}, site.space)
    derive = get_kind("retrain_proposal").derive()
    assert derive(proposal.body["inputs"], site.space) == proposal.body["figures"]
    with pytest.raises(Exception, match="does not hold"):
        derive(proposal.body["inputs"] | {"because": "0" * 64}, site.space)
