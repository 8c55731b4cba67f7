"""Look at every page in a real browser: wide and narrow, light and dark, live, hostile, and with the database gone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from canary import bench
from dashsite import Site, observe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.conftest import require_service

from probatum.adapters.ledger import SqliteLedger
from probatum.core.clock import VirtualClock, parse_utc
from probatum.core.verdict import Provenance
from probatum.monitoring.shadow import Outcome, ShadowCounts
from probatum.pipeline.canary import dry_run, preflight
from probatum.pipeline.rollout import KIND
from probatum.pipeline.views import VIEWS
from probatum.rollout.machine import Stage

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\n../../etc/passwd {{7*7}} =cmd|'/c'!A1 "
    + "x" * 3_000
)
WIDTHS = (1280, 390)

# Rectangles of visible text that lie on one another: of every text node, cut to what its scrolling ancestors show.
OVERLAPS = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, box = node.parentElement;
    if (!node.data.trim() || box.closest(".hidden, .skip, script") || !box.checkVisibility({visibilityProperty: true})) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      let [l, t, rr, b] = [r.left, r.top, r.right, r.bottom];
      for (let up = box; up && up !== document.body; up = up.parentElement) {
        if (getComputedStyle(up).overflow === "visible") continue;
        const c = up.getBoundingClientRect();
        [l, t, rr, b] = [Math.max(l, c.left), Math.max(t, c.top), Math.min(rr, c.right), Math.min(b, c.bottom)];
      }
      if (rr - l > 2 && b - t > 4) found.push([l, t, rr, b, node.data.trim().slice(0, 40), box]);
    }
  }
  const clashes = [];
  found.sort((a, b) => a[1] - b[1]);
  found.forEach((a, i) => {
    for (let j = i + 1; j < found.length && found[j][1] < a[3] - 3; j++) {
      const b = found[j];
      if (a[5] === b[5] || a[5].contains(b[5]) && getComputedStyle(b[5]).display === "inline" && a[3] - b[1] < 6) continue;
      if (Math.min(a[2], b[2]) - Math.max(a[0], b[0]) > 2 && Math.min(a[3], b[3]) - Math.max(a[1], b[1]) > 3) clashes.push([a[4], b[4]]);
    }
  });
  return clashes;
}"""


def counted() -> dict[str, Any]:
    """Return what an executor says that has compared a while."""
    counts = ShadowCounts()
    for i in range(500):
        counts.heard(0.5, 0.5 + i % 40 / 100, 2_000, 900_000 + 10_000 * i)
    counts.missed(Outcome.TIMEOUT)
    return {"url": "http://executor-1:4001", "problem": "", "match_rate": counts.match_rate, "breaker": {"state": "closed"},
            "rollout": {"share": 0.05, "sequence": 12}, "counts": counts.to_dict()}  # fmt: skip


def fill(site: Site) -> None:
    """Put a judged and rehearsed model into the ledger, a drift of some days, a running canary, and names that mean harm."""
    place = bench()
    rollout = place.opened()
    preflight(rollout, now_ns=place.start_ns, newest_ns=place.start_ns, provenance=place.dataset.provenance)
    dry_run(rollout, place.recording, now_ns=place.start_ns)
    for (kind, _), data in place.sources.blobs._data.items():
        site.space.blobs.put(kind, data)
    clock = VirtualClock()
    ledger = SqliteLedger(site.space.root / "ledger.db", clock)
    for record in place.ledger.records():
        clock.set(max(parse_utc(record.ts), clock.now_ns()))
        ledger.append(record.kind, record.subject, record.provenance, record.body)
        if record.kind == "psi_snapshot":
            for day in range(1, 6):
                figures = {**record.body["figures"], "timestamp": f"2024-02-{day:02d}T00:00:00Z"}
                ledger.append(record.kind, record.subject, record.provenance, {**record.body, "figures": figures})
    live = site.running("live-canary")
    for n in (20, 60):
        observe(live, n)
    say = {"status": "firing", "says": HOSTILE}
    ledger = site.space.ledger
    ledger.append("alert", "MLPSICritical", Provenance.SYNTHETIC, {"inputs": {}, "figures": say})
    ledger.append("retrain_proposal", HOSTILE, Provenance.SYNTHETIC, {"inputs": {"model": HOSTILE}, "figures": {}})
    asked = {"artifact": HOSTILE, "trigger": HOSTILE, "now": "2026-01-01T00:00:00Z"}
    ledger.append("retrain_proposal", HOSTILE, Provenance.SYNTHETIC, {"inputs": asked, "figures": {"reason": HOSTILE}})
    train = {"inputs": {}, "figures": {"artifact": "ab" * 32, "target": HOSTILE, "verdict": "FAIL"}}
    ledger.append("train", HOSTILE, Provenance.SYNTHETIC, train)
    ledger.append(
        "psi_snapshot", "of another shape", Provenance.SYNTHETIC, {"inputs": {}, "figures": {"verdict": "FAIL"}}
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    require_service("chromium", path)
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    jobs = [{"job": "psi_snapshot", "next": "2026-01-01T01:00:00Z", "last": None, "overdue": False, "note": HOSTILE}]
    dead = {"url": "http://executor-2:4001", "problem": "does not answer: refused"}
    found = Site(tmp_path_factory.mktemp("site"), shadow=lambda: [counted(), dead], jobs=lambda: jobs)
    fill(found)
    yield found
    found.stop()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Return what opens a page; afterwards nothing may have been said on the console, nor asked of another host."""
    said: list[str] = []
    contexts = []

    def open_page(path: str, *, width: int = 1280, theme: str = "light", token: str = "", quiet: bool = True) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
        contexts.append(context)
        if token:
            context.add_init_script(f"sessionStorage.setItem('probatum-token', {token!r})")
        page = context.new_page()
        page.on("request", lambda request: None if request.url.startswith(site.url) else said.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        if quiet:
            page.on(
                "console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None
            )
        page.goto(site.url + path)
        expect(page.locator("#link")).to_have_attribute("data-state", "on")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_can_be_read(visit: Callable[..., Page], site: Site, width: int, theme: str) -> None:
    """On each page axe finds nothing serious, no two texts lie on one another, and nothing is wider than the window."""
    page = visit("/", width=width, theme=theme)
    for name in VIEWS:
        page.goto(f"{site.url}/{name}")
        page.evaluate("document.querySelectorAll('main details').forEach((box) => (box.open = true))")
        page.wait_for_timeout(150)
        wide, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= window, (name, wide)
        assert page.evaluate(OVERLAPS) == [], name
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [
            (item["id"], item["nodes"][0]["html"][:300]) for item in found if item["impact"] in ("serious", "critical")
        ]
        assert grave == [], name
        assert page.title().endswith("Probatum")


def test_the_checks_can_fail(visit: Callable[..., Page]) -> None:
    """Two texts put on one another are found, and so is a control without a name."""
    page = visit("/jobs")
    assert page.evaluate(OVERLAPS) == []
    page.evaluate("document.querySelector('h1').style.cssText = 'position:absolute;top:120px;left:260px'")
    page.evaluate("document.querySelectorAll('h2')[1].style.cssText = 'position:absolute;top:120px;left:260px'")
    assert page.evaluate(OVERLAPS) != []
    page.evaluate("document.querySelector('main').append(document.createElement('input'))")
    assert any(item["id"] == "label" for item in Axe().run(page).response["violations"])


def test_charts_are_drawn_and_told(visit: Callable[..., Page]) -> None:
    """Each chart has its canvas, a name, a sentence and its numbers as a table."""
    for path, least in (("/rollout?name=live-canary", 2), ("/shadow", 2), ("/drift", 2)):
        page = visit(path)
        charts = page.locator(".chart")
        assert charts.count() >= least, path
        for chart in charts.all():
            expect(chart.locator("canvas")).to_have_count(1)
            assert chart.get_attribute("aria-label")
            assert page.locator(f"#{chart.get_attribute('aria-describedby')}").inner_text()
    assert page.locator("figure table tbody tr").count() > 5


def test_keys_alone_lead_everywhere(visit: Callable[..., Page]) -> None:
    """The first stop skips to the content; menu and token field are reached by tabbing, and open by Enter."""
    page = visit("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(page.url.split("#")[0])
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "token-value"


def test_it_lives(visit: Callable[..., Page], site: Site) -> None:
    """A reading that is appended changes the page without a reload, a verdict is announced, and typed words stay."""
    rollout = site.running("moving")
    page = visit("/rollout?name=moving")
    page.evaluate("window.same = true")
    page.fill("#reason", "half a sentence")
    observe(rollout, 30)
    errors = page.locator(".criteria li", has_text="error rate")
    expect(errors).to_contain_text("0 of 30")
    expect(errors).to_contain_text("30 of 36 samples needed")
    expect(errors).to_contain_text("INCONCLUSIVE")
    observe(rollout, 400)
    expect(errors).to_contain_text("PASS")
    expect(page.locator("#says")).to_contain_text("verdict PASS")
    assert page.evaluate("window.same")
    assert page.input_value("#reason") == "half a sentence"
    observe(rollout, 460, bad=30)
    expect(page.locator(".hero .chip").first).to_contain_text("aborted")
    expect(page.locator("#says")).to_contain_text("aborted")


def test_abort_by_click(visit: Callable[..., Page], site: Site) -> None:
    """A view-only token is refused with the reason and moves nothing; with one that may, one click sets share 0, by name."""
    rollout = site.running("to-abort")
    observe(rollout, 50)
    page = visit("/rollout?name=to-abort", quiet=False)
    abort = page.get_by_role("button", name="Abort now")
    abort.click()
    expect(page.locator("#token-value")).to_be_focused()
    for token, holder in (("look", "vera, may view"), ("drive", "olga, may operate")):
        if not page.locator("#token-value").is_visible():
            page.locator("#token > summary").click()
        page.fill("#token-value", token)
        page.get_by_role("button", name="Use", exact=True).click()
        expect(page.locator("#token-name")).to_have_text(holder)
        if token == "look":
            abort.click()
            expect(page.locator(".acts output")).to_have_text("Refused: a token with role operate is needed")
            rollout.refresh()
            assert rollout.state.stage is Stage.RUNNING
    page.fill("#reason", "wrong model")
    abort.click()
    expect(page.locator(".hero .chip").first).to_contain_text("aborted")
    rollout.refresh()
    assert (rollout.state.stage, rollout.state.share_percent) == (Stage.ABORTED, 0)
    assert rollout.state.reason == "by olga: wrong model"
    documents = list(site.space.ledger.records(kind="rollout_document", subject="to-abort"))
    assert documents[-1].body["inputs"]["share"] == 0


def test_a_closed_dashboard_opens_with_a_token(browser: Browser, tmp_path: Path) -> None:
    """Without a token there is a frame that asks for one; with it the page comes, and goes when it is forgotten."""
    closed = Site(tmp_path, closed=True)
    closed.running("secret-name")
    page = browser.new_page()
    page.goto(closed.url + "/rollout")
    expect(page.locator("main")).to_contain_text("A token with role view is needed")
    page.locator("#token > summary").click()
    page.fill("#token-value", "look")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.locator("main")).to_contain_text("secret-name")
    expect(page.locator("#link")).to_have_attribute("data-state", "on", timeout=12_000)
    page.locator("#token > summary").click()
    page.get_by_role("button", name="Forget").click()
    expect(page.locator("main")).not_to_contain_text("secret-name")
    page.close()
    closed.stop()


def test_confirm_pause_resume(visit: Callable[..., Page], site: Site) -> None:
    """A wrong phrase shows the reason and moves nothing; the right one starts, under the approver's name; then pause and resume."""
    rollout = site.rollout("to-confirm")
    page = visit("/rollout?name=to-confirm", token="sign", quiet=False)
    phrase = page.locator("#phrase").inner_text()
    page.fill("#typed", phrase.replace("5..100%", "25..100%"))
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("form[data-act=confirm] output")).to_contain_text("Refused: confirmation void")
    rollout.refresh()
    assert rollout.state.stage is Stage.AWAITING_CONFIRMATION
    page.fill("#typed", phrase)
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator(".hero .chip").first).to_contain_text("running")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".hero .chip").first).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".hero .chip").first).to_contain_text("running")
    rollout.refresh()
    assert rollout.state.approver == "ada"
    events = [r.body["inputs"]["event"] for r in site.space.ledger.records(kind=KIND, subject="to-confirm")]
    assert [(e["event"], e.get("by", e.get("approver"))) for e in events[3:]] == [
        ("confirmed", "ada"), ("paused", "ada"), ("resumed", "ada"),
    ]  # fmt: skip


def test_waive(visit: Callable[..., Page], site: Site) -> None:
    """A waiver given on the page stands in the ledger under its holder's name, and the blocker says so at once."""
    page = visit("/blockers", token="sign")
    page.get_by_text("Waive a blocker of robust").click()
    form = page.locator("form[data-act=waive]").nth(1)
    form.get_by_label("Blocker").select_option("drill")
    form.get_by_label("Reason").fill("drilled last week")
    form.get_by_role("button", name="Waive").click()
    expect(page.locator("main")).to_contain_text("drilled last week")
    waiver = list(site.space.ledger.records(kind="waiver"))[-1].body["inputs"]
    assert (waiver["by"], waiver["blocker"]) == ("ada", "drill")


def test_hostile_names_are_text(visit: Callable[..., Page], site: Site) -> None:
    """Scripts, paths, formulas and huge names from outside are shown as what they are, and run nowhere."""
    site.rollout(HOSTILE[:180])
    page = visit("/", width=390)
    for path in ("/", "/models", "/jobs", "/rollout", "/evidence", "/blockers"):
        page.goto(site.url + path)
        assert "<script>window.hacked=1</script><img src=x" in page.locator("main").inner_text(), path
        assert page.evaluate(
            "[window.hacked, document.querySelectorAll('img, main script:not([type=\"application/json\"])').length]"
        ) == [None, 0]
        wide, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= window, path
    page.get_by_role("link", name="Rollout", exact=True).click()
    page.locator("a", has_text="window.hacked").first.click()
    assert "/etc/passwd {{7*7}}" in page.locator(".hero h2").inner_text().replace("\n", " ")


def test_the_database_goes_and_comes_back(visit: Callable[..., Page], site: Site) -> None:
    """Without the ledger each page answers 503 and shows what it held, and how long ago; it recovers by itself."""
    page = visit("/models", quiet=False)
    ledger = site.space.root / "ledger.db"
    hidden = ledger.with_name("elsewhere.db")
    ledger.rename(hidden)
    try:
        ledger.write_bytes(b"not a ledger" * 1_000)
        expect(page.locator("[data-part=state]")).to_contain_text("The ledger cannot be read")
        expect(page.locator("[data-part=state]")).to_contain_text(re.compile(r"held \d+ s ago"))
        expect(page.locator("#link-text")).to_have_text("the ledger cannot be read")
        assert "robust" in page.locator("main").inner_text()
        reply = page.request.get(site.url + "/rollout.json")
        assert reply.status == 503
        assert json.loads(reply.text())["rollout"]["name"]
        assert page.request.get(site.url + "/drift").status == 503
    finally:
        hidden.rename(ledger)
    expect(page.locator("[data-part=state]")).to_be_empty(timeout=10_000)
    expect(page.locator("#link")).to_have_attribute("data-state", "on")
    assert page.request.get(site.url + "/drift").status == 200
