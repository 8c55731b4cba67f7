"""What the dashboard answers over HTTP: who sees what, who may do what, what is refused, and how it follows the ledger."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashsite import HOLDERS, Site, observe
from live import Service

from probatum.core.canonical import sha256_hex
from probatum.core.clock import SystemClock, VirtualClock
from probatum.core.errors import StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.training import TrainingPlan, train
from probatum.pipeline.views import VIEWS
from probatum.rollout.machine import Stage
from probatum.services.auth import Role, read_tokens
from probatum.services.controller import board as boards
from probatum.services.controller import dashboard as dashboards
from probatum.services.controller.board import Board
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

ACTS = {
    "pause": (Role.OPERATE, {"rollout": "r"}),
    "resume": (Role.OPERATE, {"rollout": "r"}),
    "abort": (Role.OPERATE, {"rollout": "r"}),
    "confirm": (Role.APPROVE, {"rollout": "r", "phrase": "ONAY: yes"}),
    "waive": (Role.APPROVE, {"model": "v1.8-b0", "blocker": "drill", "reason": "x"}),
    "verify": (Role.OPERATE, {}),
    "propose": (Role.OPERATE, {"model": "v1.8-b0", "reason": "x"}),
    "retrain": (Role.OPERATE, {"proposal": "0" * 16}),
}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def awaiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One whose rollout ``r`` awaits its confirmation; what is asked here is all refused, so tests can share it."""
    found = Site(tmp_path_factory.mktemp("awaiting"))
    found.rollout("r")
    httpx.get(found.url + "/rollout.json")
    yield found
    found.stop()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, closed=True)
    found.running("secret-name")
    yield found
    found.stop()


def test_every_page_and_twin_of_an_empty_ledger(site: Site) -> None:
    """Before anything happened each page says so; its twin is JSON with the same policy against scripts from elsewhere."""
    for page in VIEWS:
        html, twin = httpx.get(f"{site.url}/{page}"), httpx.get(f"{site.url}/{page}.json")
        assert (html.status_code, twin.status_code) == (200, 200), page
        assert twin.json()["ledger"] == {
            "seq": 0,
            "problem": "",
            "age_s": twin.json()["ledger"]["age_s"],
            "reading": False,
        }
        for reply in (html, twin):
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.headers["cache-control"] == "no-store"


def test_a_closed_dashboard_shows_nothing_without_a_token(closed: Site) -> None:
    """Pages, twins, stream and status want role view; what is served without is a frame, styles, health and metrics."""
    for path in ("/", "/rollout", "/rollout.json", "/events", "/status", "/rollout?name=secret-name"):
        reply = httpx.get(closed.url + path)
        assert reply.status_code == 401, path
        assert "secret" not in reply.text
    for path in ("/", "/rollout", "/rollout.json"):
        assert "secret-name" in httpx.get(closed.url + path, headers=bearer("look")).text
    assert "role view is needed" in httpx.get(closed.url + "/rollout.json").text
    assert httpx.get(closed.url + "/", headers=bearer("wrong")).status_code == 401
    for path in ("/health", "/metrics", "/static/dash.css", "/static/dash.js", "/assets/page.js"):
        assert httpx.get(closed.url + path).status_code == 200
    assert "secret" not in httpx.get(closed.url + "/health").text
    assert httpx.get(closed.url + "/session", headers=bearer("drive")).json() == {"role": "operate", "name": "olga"}


def test_a_picture_is_let_in_once(closed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that the photographer is given shows the page once, within a minute; a made-up one never."""
    url = closed.url + "/rollout?name=secret-name"
    once = closed.dashboard.admit(url)
    assert "secret-name" in httpx.get(once).text
    assert httpx.get(once).status_code == 401
    assert httpx.get(url + "&pass=").status_code == 401
    monkeypatch.setattr(dashboards, "PASS_S", -1.0)
    assert httpx.get(closed.dashboard.admit(url)).status_code == 401


@pytest.mark.parametrize("verb", ACTS)
def test_each_act_needs_its_role(awaiting: Site, verb: str) -> None:
    """Without a token 401, with one that does not reach 403 and the role that does; the ledger is left as it was."""
    site = awaiting
    before = site.space.ledger.head()
    role, body = ACTS[verb]
    assert httpx.post(f"{site.url}/actions/{verb}", json=body).status_code == 401
    for token, (held, _) in HOLDERS.items():
        if held < role:
            reply = httpx.post(f"{site.url}/actions/{verb}", json=body, headers=bearer(token))
            assert (reply.status_code, reply.json()["error"]) == (
                403,
                f"a token with role {role.name.lower()} is needed",
            )
    assert site.space.ledger.head() == before


@pytest.mark.parametrize(
    ("verb", "content", "media", "status", "says"),
    [
        ("abort", b"{", "application/json", 400, "JSON"),
        ("abort", b"[]", "application/json", 422, "object"),
        ("abort", b"{}", "application/json", 422, "rollout"),
        ("abort", b'{"rollout":"r","force":true}', "application/json", 422, "force"),
        ("abort", b'{"rollout":"r","rollout":"q"}', "application/json", 422, "twice"),
        ("abort", b'{"rollout":"r"}', "text/plain", 415, "content-type"),
        ("abort", b'{"rollout":"r"}', "application/x-www-form-urlencoded", 415, "content-type"),
        ("abort", b'{"rollout":"' + b"x" * 9_000 + b'"}', "application/json", 413, "too large"),
        ("abort", b'{"rollout":"../../etc"}', "application/json", 422, "known: r"),
        ("pause", b'{"rollout":"r"}', "application/json", 422, "awaiting_confirmation"),
        ("confirm", b'{"rollout":"r","phrase":"ONAY: please"}', "application/json", 422, "void"),
        ("waive", b'{"model":"nobody","blocker":"drill","reason":"x"}', "application/json", 422, "unknown model"),
        ("waive", b'{"model":"m","blocker":"drill","reason":"x","hours":1e9}', "application/json", 422, "hours"),
        ("waive", b'{"model":"m","blocker":"drill","reason":"x","hours":NaN}', "application/json", 400, "JSON"),
        ("verify", b'{"by":"somebody else"}', "application/json", 422, "by"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused(
    awaiting: Site, verb: str, content: bytes, media: str, status: int, says: str
) -> None:
    """Each is a 4xx that names what is wrong, and nothing is appended."""
    site = awaiting
    before = site.space.ledger.head()
    reply = httpx.post(f"{site.url}/actions/{verb}", content=content, headers={**bearer("sign"), "content-type": media})
    assert reply.status_code == status, reply.text
    assert says in reply.text
    assert "Traceback" not in reply.text
    assert site.space.ledger.head() == before
    assert httpx.get(f"{site.url}/actions/{verb}").status_code == 405


def test_an_abort_is_on_disk_when_it_returns(site: Site) -> None:
    """Share 0 and the event stand in the ledger, by name; the root cause follows; a second abort appends nothing."""
    rollout = site.running("r")
    observe(rollout, 40)
    httpx.get(site.url + "/")
    reply = httpx.post(site.url + "/actions/abort", json={"rollout": "r", "reason": "why"}, headers=bearer("drive"))
    assert reply.json() == {"done": "abort", "by": "olga", "rollout": "r", "stage": "aborted", "share_percent": 0}
    rollout.refresh()
    assert (rollout.state.stage, rollout.state.reason) == (Stage.ABORTED, "by olga: why")
    again = httpx.post(site.url + "/actions/abort", json={"rollout": "r"}, headers=bearer("drive"))
    assert (again.status_code, again.json()["stage"]) == (200, "aborted")
    events = [r.body["inputs"]["event"]["event"] for r in site.space.ledger.records(kind="rollout_event", subject="r")]
    assert events.count("aborted") == 1


def test_verify_now(site: Site) -> None:
    """It is recorded who asked and that nothing was found; a second one meanwhile is refused."""
    site.running("r")
    site.board.verifying.begin("vera")
    assert httpx.post(site.url + "/actions/verify", json={}, headers=bearer("drive")).status_code == 409
    site.board.verifying.run(lambda: None)
    assert httpx.post(site.url + "/actions/verify", json={}, headers=bearer("drive")).status_code == 202
    view = _until(site, "evidence", lambda view: view["verified"] is not None)
    assert view["verified"]["verdict"] == "PASS"
    (record,) = site.space.ledger.records(kind="verification")
    assert record.body["inputs"]["by"] == "olga"
    assert site.board.verifying.state is None


def test_a_retraining_is_proposed_and_attempted(site: Site) -> None:
    """A proposal bears its asker's words and name; an attempt runs behind its button, one at a time, and says why it could not."""
    site.space.datasets.save(toy_dataset(days=5))
    plan = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="direction@60s", model="logistic", name="toy")
    model = train(site.space.ledger, site.space, plan).digest
    _until(site, "models", lambda view: view["models"])
    asked = httpx.post(site.url + "/actions/propose", json={"model": "toy", "reason": "why"}, headers=bearer("drive"))
    (proposal,) = _until(site, "models", lambda view: view["proposals"])["proposals"]
    assert (proposal["proposal"], proposal["artifact"], proposal["state"]) == (asked.json()["proposal"], model, "open")
    (request,) = site.space.ledger.records(kind="retrain_request")
    assert request.body["inputs"]["reason"] == "olga: why"
    body = {"proposal": proposal["proposal"]}
    site.board.retraining.begin("vera")
    assert httpx.post(site.url + "/actions/retrain", json=body, headers=bearer("drive")).status_code == 409
    site.board.retraining.run(lambda: None)
    assert httpx.post(site.url + "/actions/retrain", json=body, headers=bearer("drive")).status_code == 202
    said = _until(site, "models", lambda view: (view["retraining"] or {}).get("problem"), 60)["retraining"]
    assert said["by"] == "olga"
    assert "the data allow no attempt" in said["problem"]
    assert "of the 20,160 observations needed" in said["problem"]  # 14 days of minutes
    assert len(list(site.space.ledger.records(kind="retrain_data"))) == 1
    assert "The last attempt ended" in httpx.get(site.url + "/models").text


def _until(site: Site, page: str, wanted: Any, seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if wanted(view := httpx.get(f"{site.url}/{page}.json").json()):
            return view
        time.sleep(0.1)
    raise AssertionError(view)


def test_a_rollout_page_has_the_numbers_of_the_machine(site: Site) -> None:
    """Share, phases and each criterion's n, n needed, bound and verdict are those that the pure functions give."""
    rollout = site.running("r")
    observe(rollout, 20, bad=0)
    found = _until(site, "rollout", lambda view: view["rollout"]["checks"])["rollout"]
    errors = next(check for check in found["checks"] if check["name"] == "error_rate")
    assert {key: errors[key] for key in ("n", "bad", "n_needed", "missing", "verdict")} == {
        "n": 20, "bad": 0, "n_needed": 36, "missing": 16, "verdict": "INCONCLUSIVE",
    }  # fmt: skip
    assert errors["bound"] == pytest.approx(0.1)  # the ladder: a share of 10 % may not risk more than 1 % of all
    assert [phase["standing"] for phase in found["phases"]] == ["now", "next", "next", "next", "next"]
    assert found["acts"] == ["pause", "abort"]
    assert found["phrase"] is None


def test_the_stream_says_what_changed_and_ends_when_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event at once and one for each change, beats between; more clients than are allowed are refused; a drain ends all."""
    monkeypatch.setattr(dashboards, "CLIENTS_MAX", 1)
    monkeypatch.setattr(dashboards, "BEAT_S", 0.2)
    rollout = site.running("r")
    with httpx.stream("GET", site.url + "/events") as reply:
        lines = reply.iter_lines()
        first = json.loads(next(lines)[6:])
        assert httpx.get(site.url + "/events").status_code == 503
        observe(rollout, 10)
        seen = []
        while not (seen and seen[-1].startswith("data: ")):
            seen.append(next(lines))
        assert json.loads(seen[-1][6:])["seq"] > first["seq"]
        while not seen[-1].startswith(": "):
            seen.append(next(lines))
        began = time.monotonic()
        site.dashboard.close()
        assert all(line in ("", ": still here") or line.startswith("data: ") for line in lines)
        assert time.monotonic() - began < 2.0
    for _ in range(100):
        if not site.dashboard._clients:
            break
        time.sleep(0.02)
    assert site.dashboard._clients == 0


def test_another_chain_is_read_anew_and_a_vanished_one_is_a_problem(site: Site, tmp_path: Path) -> None:
    """A ledger that was put back from elsewhere replaces what was known; one that is gone does not: the pages say so."""
    site.running("before")
    assert "before" in httpx.get(site.url + "/rollout").text
    ledger = site.space.root / "ledger.db"
    ledger.rename(tmp_path / "kept.db")
    view = _until(site, "rollout", lambda view: view["ledger"]["problem"])
    assert "is empty, and held" in view["ledger"]["problem"]
    assert view["rollout"]["name"] == "before"
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    other.running("after")
    other.stop()
    shutil.copy(other.space.root / "ledger.db", ledger)
    shutil.copytree(other.space.root / "blobs", site.space.root / "blobs", dirs_exist_ok=True)
    view = _until(site, "rollout", lambda view: not view["ledger"]["problem"] and view["rollout"]["name"] == "after")
    assert [item["name"] for item in view["others"]] == ["after"]


class Hanging(MemoryLedger):
    """A ledger that does not answer until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.broken = False

    def head(self) -> str:
        self.let.wait(10)
        if self.broken:
            raise StorageError("no route to the database")
        return super().head()


def test_no_page_waits_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is never held; after a short wait a page goes on with what is known, and says why."""
    monkeypatch.setattr(boards, "WAIT_S", 0.1)
    monkeypatch.setattr(boards, "LOOK_S", 0.0)
    ledger = Hanging()
    status = {"role": "leading", "problem": "", "rollouts": []}
    board = Board(ledger, MemorySources(), SystemClock(), status=lambda: status)

    async def story() -> None:
        ledger.let.set()
        await board.fresh()
        assert board.status.problem == ""
        ledger.let.clear()
        began = time.monotonic()
        for _ in range(6):
            await board.fresh()
        assert time.monotonic() - began < 2.0
        assert board.status.problem == "it does not answer"
        assert board.view("overview")["chain"]["records"] == 0
        ledger.broken = True
        ledger.let.set()
        for _ in range(3):
            await board.fresh()
        assert board.status.problem == "no route to the database"
        ledger.broken = False
        ledger.append("alert", "x", Provenance.SYNTHETIC, {"inputs": {}, "figures": {}})
        for _ in range(3):
            await board.fresh()
        assert (board.status.problem, board.status.seq) == ("", 1)

    asyncio.run(story())


def test_one_look_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred clients at one instant cost one look at the ledger, and one view."""
    looks = []

    class Counting(MemoryLedger):
        def head(self) -> str:
            looks.append(1)
            return super().head()

    board = Board(
        Counting(), MemorySources(), SystemClock(), status=lambda: {"role": "", "problem": "", "rollouts": []}
    )

    async def crowd() -> None:
        await asyncio.gather(*(board.fresh() for _ in range(100)))

    asyncio.run(crowd())
    assert len(looks) == 1
    monkeypatch.setattr(board, "_clock", VirtualClock())
    assert board.view("models") is board.view("models")


def test_tokens_have_names(tmp_path: Path) -> None:
    """The file gives role and name; without a name the holder is named by the digest; a bad role is refused by name."""
    path = tmp_path / "tokens.json"
    one, two = sha256_hex(b"one"), sha256_hex(b"two")
    path.write_text(json.dumps({one: "approve Ada Lovelace", two: "view"}))
    tokens = read_tokens(path)
    assert tokens.require(b"Bearer one", Role.APPROVE) == "Ada Lovelace"
    assert tokens.require(b"bearer two", Role.VIEW) == f"token {two[:8]}"


def test_the_command_serves_it_and_drains_at_once(tmp_path: Path) -> None:
    """`probatum controller --tokens` is closed, opens with a token, and ends in seconds though a page follows it."""
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({sha256_hex(b"look"): "view vera"}))
    found = Service(
        "controller", "--workspace", str(tmp_path / "w"), "--executor", "http://127.0.0.1:1", "--tokens", str(path), "--port", "0"
    )  # fmt: skip
    try:
        assert httpx.get(found.url + "/").status_code == 401
        assert "does not answer" in httpx.get(found.url + "/shadow", headers=bearer("look")).text
        with httpx.stream("GET", found.url + "/events", headers=bearer("look")) as reply:
            lines = reply.iter_lines()
            next(lines)
            began = time.monotonic()
            found.process.send_signal(signal.SIGTERM)
            assert all(line in ("", ": still here") or line.startswith("data: ") for line in lines)
            found.process.wait(10)
            assert time.monotonic() - began < 5.0
    finally:
        found.stop()
