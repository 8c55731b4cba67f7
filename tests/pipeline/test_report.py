"""The page and the documents: complete, self-contained, deterministic, and deaf to what names try to say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_S, VirtualClock
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import GENESIS
from probatum.pipeline.export import csv_bytes, export, is_export_name, safe_part
from probatum.pipeline.green import find_head
from probatum.pipeline.page import Band, Bars, Chart, Line, Section, Table, Text, page
from probatum.pipeline.ports import Record
from probatum.pipeline.report import html_report
from probatum.pipeline.summary import JUDGED
from probatum.testing.fakes import MemoryBlobs, MemoryLedger

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>\n=cmd|"calc"\u2028{{7*7}} [x](javascript:alert(3)) `|'
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collect what a page says, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.json: list[Any] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self.tags[-1][1].get("type") == "application/json":
                self.json.append(json.loads(data))
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def check(name: str, value: float | None, verdict: str, **more: Any) -> dict[str, Any]:
    base = {"name": name, "value": value, "bound": 0.62, "lower": None, "upper": None, "n": 9, "verdict": verdict}
    return {**base, "enforced": True, "reason": "", "settle": "", **more}


def gate(name: str) -> dict[str, Any]:
    checks = [
        check(
            "auc",
            0.633,
            "INCONCLUSIVE",
            lower=0.617,
            upper=0.65,
            reason=f"bound {name}",
            settle="about 4,200 more rows",
        ),
        check("precision_at_20", 0.61, "PASS", lower=0.59, upper=0.63),
        check("calibration_ece", 0.4, "FAIL", enforced=False, reason="shown only"),
    ]
    grid = [0.0, 0.5, 1.0]
    return {
        "verdict": "INCONCLUSIVE", "checks": checks, "target": "large_move@60s", "auc": 0.633,
        "roc": {"false_positive_rate": grid, "true_positive_rate": [0.0, 0.7, 1.0], "lower": [0.0, 0.6, 1.0], "upper": [0.0, 0.8, 1.0]},
        "calibration": [{"n": 5, "mean_score": 0.2, "positive_share": 0.3}, {"n": 4, "mean_score": 0.7, "positive_share": 0.6}],
        "score_histogram": {"edges": [0.0, 0.5, 1.0], "counts": [3, 6]},
        "baseline": {"name": name, "auc": 0.5, "difference": {"value": 0.1, "lower": 0.05, "upper": 0.2}, "reason": ""},
    }  # fmt: skip


def drift(name: str) -> dict[str, Any]:
    edge = {"term": 0.0, "nan": False}
    bins = [
        {"lower": None, "upper": 1.5, "reference": 30, "window": 10, **edge},
        {"lower": 1.5, "upper": None, "reference": 70, "window": 30, **edge},
        {"lower": None, "upper": None, "reference": 0, "window": 0, **edge, "nan": True},
    ]
    psi = {
        "name": name,
        "psi": 4.07,
        "bound": 0.3,
        "expected": 0.01,
        "critical": 0.1,
        "p_value": 0.001,
        "verdict": "FAIL",
    }
    feature = {"check": psi, "raw": True, "constant": False, "bins": bins}
    overall = {**psi, "name": "overall", "psi": 1.42}
    return {
        "verdict": "FAIL", "checks": [check("overall", 1.42, "FAIL", reason="moved", settle="retrain")],
        "overall": overall, "features": [feature], "score": None,
    }  # fmt: skip


def chain(name: str = "robust", provenance: Provenance = Provenance.SYNTHETIC) -> list[Record]:
    ledger = MemoryLedger(VirtualClock(1_704_067_200 * NS_PER_S))
    figures = {
        "data_import": {"rows_in": 3, "quarantined": {name: 1}},
        "offline_report": gate(name),
        "psi_snapshot": drift(name),
        "promote_check": {
            "verdict": "FAIL",
            "summary": "promote blocked: evidence is synthetic",
            "checks": [check("provenance_live", 0, "FAIL", reason="evidence is synthetic")],
        },
    }
    for kind, values in figures.items():
        ledger.append(kind, name, provenance, {"inputs": {}, "figures": values})
    return list(ledger.records())


def test_the_first_screen_holds_verdicts_bounds_and_what_would_settle_them() -> None:
    """A reader needs no scrolling to know what was refused, by which bound, and what to do about it."""
    seen = Page(html_report(chain())).words
    start = seen[: seen.index("Offline gate")]
    for part in (
        "INCONCLUSIVE", "0.633 [0.617, 0.65]", "0.61 [0.59, 0.63]", "1.42 FAIL BLOCKED SYNTHETIC",
        "robust auc INCONCLUSIVE bound robust about 4,200 more rows", "robust overall FAIL moved retrain",
        "robust promote BLOCKED promote blocked: evidence is synthetic",
        "SYNTHETIC: made by a seeded market model",
    ):  # fmt: skip
        assert part in start, part
    assert "calibration_ece" not in start, "what is only shown is no reason"


def test_the_page_asks_nobody_for_anything() -> None:
    """No address is loaded, followed or posted to; the policy forbids it, and allows exactly the two scripts within."""
    text = html_report(chain())
    seen = Page(text)
    assert seen.open == []
    assert not [a for _, a in seen.tags if {"src", "href", "action", "srcset", "poster", "data", "formaction"} & set(a)]
    assert not re.search(r"@import|url\(|XMLHttpRequest|fetch\(|WebSocket|sendBeacon|EventSource|import\(", text)
    policy = next(a["content"] for a in seen.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    assert str(policy).count("'sha256-") == 2 == len([a for a in seen.all("script") if "type" not in a])


def test_each_chart_has_caption_summary_and_numbers() -> None:
    """What the canvas shows is said in words and in a table: five charts and nothing without its text."""
    text = html_report(chain())
    seen = Page(text)
    charts = [a for a in seen.all("div") if a.get("class") == "chart"]
    assert len(charts) == len(seen.all("figure")) == len(seen.all("figcaption")) == len(seen.json) == 5
    ids = {a["id"] for a in seen.all("p") if "id" in a}
    assert all(a["aria-describedby"] in ids and a["aria-label"] for a in charts)
    assert text.count("<summary>Numbers</summary>") == 5
    assert seen.json[0]["series"][0] == {"type": "line", "name": "model", "y": [0, 0.7, 1], "dashed": False}
    assert seen.json[4]["x"] == ["≤ 1.5", "> 1.5"]
    assert [s["y"] for s in seen.json[4]["series"]] == [[0.3, 0.7], [0.25, 0.75]]


def test_names_from_outside_are_text_everywhere() -> None:
    """Markup, template syntax, formulas and new lines in names and reasons are shown, never obeyed."""
    files = export(chain(HOSTILE), MemoryBlobs())
    page_text = files["report.html"].decode()
    seen = Page(page_text)
    assert not seen.all("img")
    assert len(seen.all("script")) == len(seen.json) + 2
    assert all("onerror" not in a for _, a in seen.tags)
    assert "<script>alert(1)</script>" in "".join(seen.text)
    assert "49" not in page_text[: page_text.index("<script>var") if "<script>var" in page_text else 3000]
    green = files["GREEN_EVIDENCE.md"].decode()
    assert not re.search(r"(?<!\\)<(script|img)|(?<!\\)\[x\]|^=cmd", green, re.M)
    assert all(line.startswith("| ") for line in green.splitlines() if "alert" in line and "|" in line[:2])
    series = files["psi_series.csv"].decode()
    assert '"</script>' in series
    assert not re.search(r"^=", series.replace("\n=cmd", ""), re.M)


@given(st.text(max_size=120))
def test_a_subject_is_one_plain_folder(subject: str) -> None:
    """No subject leads out of the folder, hides, or shadows a file; different subjects never share a folder."""
    part = safe_part(subject)
    assert re.fullmatch(r"[A-Za-z0-9_+=@][A-Za-z0-9._+=@-]{0,90}", part)
    assert not is_export_name(part)
    assert part == subject or re.search(r"-[0-9a-f]{8}$", part)


@pytest.mark.parametrize(
    "subject", ["..", ".", "", "report.html", "daily", "a/b", "a\\b", "NUL", "x" * 300, "-rf", "\0"]
)
def test_awkward_subjects_are_told_apart_by_digest(subject: str) -> None:
    """What is no good folder name gets one that is, and stays distinct."""
    assert re.search(r"-[0-9a-f]{8}$", safe_part(subject))
    assert safe_part(subject) not in (safe_part(subject + "x"), "", "-")


def test_the_same_chain_gives_the_same_bytes() -> None:
    """Files are a function of the records: a verifier asks for them again."""
    assert export(chain(), MemoryBlobs()) == export(chain(), MemoryBlobs())


def test_files_bear_the_seeds_names_for_the_newest_and_for_each_subject() -> None:
    """evidence/ml holds the newest of each kind; each subject's folder its own."""
    ledger = MemoryLedger()
    for subject in ("a", "b", "a"):
        figures = {**gate(subject), "auc": 0.6 if subject == "b" else 0.7}
        ledger.append("offline_report", subject, Provenance.REPLAY, {"inputs": {"x": 1}, "figures": figures})
    files = export(list(ledger.records()), MemoryBlobs())
    names = ("offline_report.json", "eval_result.json", "eval_result.txt")
    assert set(files) == {*names, *(f"{s}/{n}" for s in "ab" for n in names), "GREEN_EVIDENCE.md", "report.html"}
    assert files["offline_report.json"] == files["a/offline_report.json"] != files["b/offline_report.json"]
    report = json.loads(files["offline_report.json"])
    assert (report["auc"], report["evidence"]["seq"], report["evidence"]["inputs"]) == (0.7, 3, {"x": 1})
    assert files["eval_result.txt"].startswith(b"INCONCLUSIVE\n")
    assert b"data: REPLAY" in files["eval_result.txt"]
    assert json.loads(files["eval_result.json"])["verdict"] == "INCONCLUSIVE"


def test_figures_cannot_pose_as_the_record_they_stand_in() -> None:
    """A figure named "evidence" does not replace provenance and hash; a reason with a line break forges no line."""
    ledger = MemoryLedger()
    checks = [check("auc", 0.5, "FAIL", reason="low\nPASS         auc: 0.9")]
    figures = {"verdict": "FAIL", "checks": checks, "evidence": {"provenance": "live"}}
    ledger.append("offline_report", "m", Provenance.SYNTHETIC, {"inputs": {}, "figures": figures})
    files = export(list(ledger.records()), MemoryBlobs())
    assert json.loads(files["offline_report.json"])["evidence"]["provenance"] == "synthetic"
    assert json.loads(files["eval_result.json"])["evidence"]["provenance"] == "synthetic"
    assert [line[:4] for line in files["eval_result.txt"].decode().splitlines()] == [
        "FAIL",
        "mode",
        "data",
        "reco",
        "FAIL",
    ]


def test_green_evidence_holds_measured_figures_and_the_head() -> None:
    """Verdicts, reasons, provenance and the head of the chain; a chapter without records says "not measured"."""
    records = chain()
    text = export(records, MemoryBlobs())["GREEN_EVIDENCE.md"]
    head = find_head(text)
    assert head is not None
    assert head[:2] == (4, records[-1].hash)
    assert b"SYNTHETIC" in text
    assert b"| auc | 0.633 | 0.62 | 0.617 | 0.65 | 9 | INCONCLUSIVE | enforced |" in text
    empty = export([], MemoryBlobs())["GREEN_EVIDENCE.md"]
    assert find_head(empty) is not None
    assert empty.count(b"Not measured.") == len(JUDGED) + 1
    assert GENESIS.encode() in empty


def test_mixed_provenance_is_said_first() -> None:
    """One synthetic record among replayed ones is not lost in the crowd."""
    ledger, clock = MemoryLedger(), count()
    for provenance in (Provenance.REPLAY, Provenance.SYNTHETIC, Provenance.REPLAY):
        ledger.append("train", str(next(clock)), provenance, {"inputs": {}, "figures": {}})
    assert "MIXED PROVENANCE (1 SYNTHETIC, 2 REPLAY)" in Page(html_report(list(ledger.records()))).words


JUNK = st.recursive(
    st.none() | st.integers(-3, 3) | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=5
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["roc", "calibration", "score_histogram", "features", "overall", "checks", "score", "baseline"]
        ),
        JUNK,
    )
)
def test_a_record_of_any_shape_is_still_a_page(figures: dict[str, Any]) -> None:
    """A forged or older record cannot take the report down with it."""
    ledger = MemoryLedger()
    for kind in ("offline_report", "psi_snapshot", "data_import", "promote_check"):
        ledger.append(kind, "m", Provenance.REPLAY, {"inputs": {}, "figures": figures})
    Page(export(list(ledger.records()), MemoryBlobs())["report.html"].decode())


def test_other_reports_can_use_the_page() -> None:
    """The drift report is made of the same parts: sections of text, tables and charts."""
    chart = Chart("T", "S", "x", "y", ("a", "b"), (Bars("now", (1.0, None)), Band("band", (0.0, 0.0), (1.0, 2.0))))
    text = page("Drift", [Section("One", (Text("<b>"), Table("", ("v",), (("PASS",),)), chart), folded=True)])
    seen = Page(text)
    assert seen.json[0]["x"] == ["a", "b"]
    assert "<b>" in seen.words
    assert {"class": "verdict PASS"} in seen.all("span")
    with pytest.raises(ParameterError, match="series now must be 1 values"):
        Chart("T", "S", "x", "y", (1.0,), (Line("now", (1.0, 2.0)),))


def test_spreadsheets_run_nothing() -> None:
    """A cell that begins like a formula is text; numbers stay numbers."""
    cells = ["=1", "+1", "-1", "@x", "\tx", "plain", -1.5]
    assert csv_bytes(["c"] * 7, [cells]).decode().splitlines()[1] == "'=1,'+1,'-1,'@x,'\tx,plain,-1.5"
