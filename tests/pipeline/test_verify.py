"""Whatever is changed behind the chain's back is found, and its place is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probatum.adapters.ledger import GUARDS
from probatum.adapters.ledger_sql import COLUMNS
from probatum.cli.evidence import export_evidence
from probatum.cli.workspace import Workspace
from probatum.core.canonical import canonical_json, sha256_hex
from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, VirtualClock
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import BAR_SCHEMA
from probatum.market.quality import Recording, SourceFile
from probatum.models import metrics
from probatum.pipeline.evidence import GENESIS, preimage
from probatum.pipeline.gate import run_gate
from probatum.pipeline.importing import import_recording
from probatum.pipeline.kinds import KINDS
from probatum.pipeline.registry import move_alias
from probatum.pipeline.training import TrainingPlan, train
from probatum.pipeline.verify import Verification, implausible, verify
from probatum.testing.fakes import MemoryLedger, MemorySources

START_NS = 1_704_067_200 * NS_PER_S


def bars(minutes: int) -> Recording:
    """Return a random walk of one-minute bars, one of them with a negative price."""
    rng = np.random.default_rng(5)
    close = 40_000.0 * np.exp(np.cumsum(rng.normal(0, 5e-4, minutes)))
    ts = START_NS + NS_PER_MINUTE * np.arange(1, minutes + 1)
    frame = pl.DataFrame(
        {
            "ts_event": ts, "ts_recv": ts, "open": close, "high": close, "low": close, "close": close,
            "volume": rng.lognormal(3, 1, minutes), "spread": [None] * minutes,
            "source": [0] * minutes, "row": range(1, minutes + 1),
        },
        schema={**BAR_SCHEMA, "source": pl.Int32(), "row": pl.Int64()},
    )  # fmt: skip
    source = SourceFile("bars.csv", "ab" * 32, minutes)
    calendar = Calendar()
    return Recording("csv", "BTCUSDT", Provenance.REPLAY, calendar, None, {"bars": frame}, (source,))


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with an import, a training, a gate, an alias and their exported files."""
    place = Workspace(tmp_path_factory.mktemp("proven"), VirtualClock(START_NS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 50)
        import_recording(bars(4_000), save=place.datasets.save, ledger=place.ledger, sources=place)
        plan = TrainingPlan(symbols=("BTCUSDT",), set="v1.8.1", target="direction@60s", model="logistic", name="m")
        trained = train(place.ledger, place, plan)
        run_gate(place.ledger, place, trained.digest)
        move_alias(place.ledger, place, "challenger", trained.digest)
    export_evidence(place)
    return place.root


@pytest.fixture
def copy(proven: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(proven, tmp_path / "copy")
    return Workspace(tmp_path / "copy", VirtualClock(START_NS))


def check(place: Workspace) -> Verification:
    files = {name: place.evidence.read(name) or b"" for name in place.evidence.names()}
    return verify(place.ledger, place, exported=files)


def places(result: Verification) -> str:
    return "\n".join(f"{finding.place}: {finding.problem}" for finding in result.findings)


def test_what_nobody_touched_verifies(copy: Workspace) -> None:
    """Every figure is recomputed, the training too, and every exported file is what the chain exports."""
    result = check(copy)
    assert result.findings == ()
    assert result.notes == ()
    assert (result.records, result.figures_checked, result.blobs_checked) == (4, 4, 3)
    assert result.files_checked == len(copy.evidence.names()) > 8
    assert result.head == copy.ledger.head()


STORED = ("blobs", "data", "evidence")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_byte_in_any_file_is_named(
    proven: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Artifact, predictions, quarantine, partition, manifest, exported file: whichever was touched is named."""
    names = sorted(p.relative_to(proven).as_posix() for top in STORED for p in (proven / top).rglob("*") if p.is_file())
    name = data.draw(st.sampled_from([name for name in names if not name.endswith("latest")]))
    root = tmp_path_factory.mktemp("flip") / "w"
    shutil.copytree(proven, root)
    content = bytearray((root / name).read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    (root / name).write_bytes(content)
    result = check(Workspace(root))
    assert not result.ok
    assert (name if name.startswith("evidence") else str(root / name)) in places(result)
    shutil.rmtree(root)


def test_every_kind_of_stored_file_is_there_to_be_flipped(proven: Path) -> None:
    """The property above draws from all kinds of files, not from the few that happen to exist."""
    folders = {p.parent.name for top in STORED for p in (proven / top).rglob("*") if p.is_file()}
    assert {"artifact", "predictions", "quarantine", "bars", "manifests", "ml", "m"} <= folders


def forge(
    path: Path, edit: Callable[[int, dict[str, Any]], Any], keep: int = 1_000, *, says: dict[str, str] | None = None
) -> None:
    """Edit bodies (and what ``says`` replaces in subject or provenance) and re-hash the whole chain behind them, as someone with the file and our source code could."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(f"SELECT {', '.join(COLUMNS)} FROM records ORDER BY seq").fetchall()
        for name in GUARDS:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DELETE FROM records")
        prev = GENESIS
        for seq, ts, kind, subject, provenance, body, _, _ in rows[:keep]:
            document = json.loads(body)
            edit(seq, document)
            subject, provenance = [(says or {}).get(word, word) for word in (subject, provenance)]
            text = canonical_json(document)
            digest = sha256_hex(preimage(seq, ts, kind, subject, provenance, text, prev))
            values = (seq, ts, kind, subject, provenance, text.decode(), prev, digest)
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            prev = digest
        for guard in GUARDS.values():
            db.execute(guard)
        db.commit()


def test_an_edited_figure_behind_a_rehashed_chain_is_found(copy: Workspace) -> None:
    """The chain is consistent again, and the files are exported anew: only recomputation tells, with path and both values."""
    honest = next(copy.ledger.records(kind="offline_report")).body["figures"]["auc"]
    forge(copy.ledger.path, lambda seq, body: body["figures"].update(auc=0.64) if seq == 3 else None)
    export_evidence(copy)
    result = check(copy)
    assert (
        places(result) == f"record 3 (offline_report), figures.auc: the record says 0.64, recomputed it is {honest!r}"
    )


@pytest.mark.parametrize(
    ("says", "problems"),
    [
        ({"replay": "live"}, ["provenance: the record says live, it rests on replay data"] * 4),
        ({"replay": "synthetic"}, []),
        ({"m": "champion-of-all"}, ["subject: the record says champion-of-all, it is of m"] * 3),
        ({"BTCUSDT": "GOLD"}, ["subject: the record says GOLD, it is of BTCUSDT"]),
    ],
)
def test_a_record_cannot_claim_better_data_or_another_subject(
    copy: Workspace, says: dict[str, str], problems: list[str]
) -> None:
    """No figure contains them, so they are held to the artifact and data below. A weaker class claims nothing."""
    forge(copy.ledger.path, lambda *_: None, says=says)
    shutil.rmtree(copy.evidence.root)
    found = places(check(copy)).splitlines()
    assert [line.split(", ", 1)[1] for line in found] == problems


def test_other_libraries_are_named_as_a_possible_reason(copy: Workspace) -> None:
    """A training that comes out differently says which libraries it was not made with."""

    def edit(seq: int, body: dict[str, Any]) -> None:
        if seq == 2:
            body["inputs"]["versions"]["numpy"] = "1.0"
            body["figures"]["artifact"] = "ab" * 32

    forge(copy.ledger.path, edit)
    shutil.rmtree(copy.evidence.root)
    copy.blobs.path("artifact", "ab" * 32).write_bytes(b"")
    found = places(check(copy))
    assert f"{'ab' * 32}.json: the bytes were changed" in found
    forge(copy.ledger.path, lambda seq, body: body["figures"].update(artifact="none") if seq == 2 else None)
    assert "record 2 (train), figures.artifact: the record says none" in places(check(copy))
    assert "(made with numpy 1.0, here " in places(check(copy))


def test_edited_inputs_are_found_too(copy: Workspace) -> None:
    """Other inputs give other figures; inputs that name nothing give a message, never a stack trace."""
    forge(copy.ledger.path, lambda seq, body: body["inputs"].update(seed=8) if seq == 3 else None)
    export_evidence(copy)
    assert "record 3 (offline_report), figures." in places(check(copy))
    forge(copy.ledger.path, lambda seq, body: body["inputs"].clear() if seq in (1, 3) else None)
    export_evidence(copy)
    assert "record 1 (data_import): the figures cannot be recomputed: KeyError" in places(check(copy))


def test_an_edited_row_is_named_and_what_stands_before_it_is_still_checked(copy: Workspace) -> None:
    """Without re-hashing, the row itself gives it away."""
    with closing(sqlite3.connect(copy.ledger.path)) as db:
        db.execute("DROP TRIGGER records_no_update")
        db.execute("UPDATE records SET body = replace(body, '\"rows\"', '\"rowz\"') WHERE seq = 3")
        db.execute(GUARDS["records_no_update"])
        db.commit()
    result = check(copy)
    assert result.findings[0].place == f"{copy.ledger.path}, record 3"
    assert (result.records, result.figures_checked) == (2, 2)


def test_a_cut_chain_is_noticed_by_the_files_that_remember_it(copy: Workspace) -> None:
    """Deleting the last records leaves a valid chain. The exported head tells; without it nothing could."""
    forge(copy.ledger.path, lambda *_: None, keep=2)
    result = check(copy)
    assert "GREEN_EVIDENCE.md: exported when record 4 was" in places(result)
    assert "it was cut or rewritten" in places(result)
    shutil.rmtree(copy.evidence.root)
    assert check(copy).ok


def test_an_older_export_is_compared_with_the_chain_as_it_was(copy: Workspace) -> None:
    """New records do not make an old export wrong; the note says how far it reaches. An edit is named by file and line."""
    digest = next(copy.ledger.records(kind="alias")).body["inputs"]["artifact"]
    move_alias(copy.ledger, copy, "champion", digest)
    result = check(copy)
    assert result.ok
    assert result.notes == ("evidence/ml was exported at record 4; 1 newer records are not in it",)
    path = copy.evidence.path("eval_result.txt")
    path.write_bytes(b"PASS\n" + path.read_bytes().split(b"\n", 1)[1])
    copy.evidence.path("psi_snapshot.json").write_bytes(b"{}")
    copy.evidence.path("notes.md").write_bytes(b"mine")
    copy.evidence.path("train.json").unlink()
    result = check(copy)
    assert places(result).splitlines() == [
        "evidence/ml/eval_result.txt: line 1 is not what the chain exports",
        "evidence/ml/psi_snapshot.json: bears the name of evidence, but the chain does not export it",
        "evidence/ml/train.json: missing: the chain exports it",
    ]
    assert "evidence/ml/notes.md is not from the chain, not checked, no evidence" in result.notes


def test_files_without_a_head_prove_nothing(copy: Workspace) -> None:
    """Who removes the line that names the head, or the file, is told so."""
    path = copy.evidence.path("GREEN_EVIDENCE.md")
    path.write_bytes(b"# all green\n")
    assert "without the line that names the head" in places(check(copy))


def test_renderings_of_another_version_are_not_compared(copy: Workspace) -> None:
    """The wording of the pages may change between versions; the data files may not."""
    path = copy.evidence.path("GREEN_EVIDENCE.md")
    path.write_bytes(path.read_bytes().replace(b"rendered by probatum ", b"rendered by probatum 9.9-"))
    copy.evidence.path("report.html").write_bytes(b"older")
    result = check(copy)
    assert result.ok
    assert any(note.startswith("rendered by version 9.9-") for note in result.notes)


def test_a_record_nobody_can_recompute_is_not_verified() -> None:
    """An unknown kind is a finding: what cannot be checked does not pass. Its name cannot drive the terminal."""
    ledger = MemoryLedger()
    ledger.append("horoscope", "x\n", Provenance.LIVE, {"inputs": {}, "figures": {"auc": 0.99}})
    assert places(verify(ledger, MemorySources())) == (
        "record 1 (horoscope): unknown to this version: its figures cannot be recomputed"
    )
    ledger.append("\x1b[2J", "x", Provenance.LIVE, {"inputs": {}, "figures": {}})
    assert all(f.place.isprintable() for f in verify(ledger, MemorySources()).findings)


def test_an_empty_chain_is_valid_and_proves_nothing() -> None:
    """No records, no findings, the genesis head."""
    result = verify(MemoryLedger(), MemorySources(), exported={})
    assert (result.ok, result.records, result.head) == (True, 0, GENESIS)


@pytest.mark.parametrize(
    ("kind", "figures", "place"),
    [
        ("data_import", {"rows_in": 10, "rows_stored": 8, "rows_merged": 0, "rows_ignored": 0, "rows_quarantined": 1}, "figures.rows_in"),
        ("offline_report", {"verdict": "PASS", "checks": [{"verdict": "FAIL", "enforced": True}]}, "figures.verdict"),
        ("offline_report", {"verdict": "PASS", "checks": []}, "figures.checks"),
        ("offline_report", {"verdict": "PASS", "checks": [{"verdict": "GREAT", "enforced": True}]}, "figures.checks"),
        ("train", {"a": [{"auc": 1.2}]}, "figures.a[0].auc"),
        ("train", {"error_rate": -0.1}, "figures.error_rate"),
        ("train", {"x": {"lower": 0.7, "upper": 0.6}}, "figures.x"),
    ],
)  # fmt: skip
def test_impossible_figures_are_named(kind: str, figures: dict[str, Any], place: str) -> None:
    """Arithmetic needs no data: counts that do not add up and rates beyond 1 are wrong whatever was measured."""
    assert [path for path, _ in implausible(KINDS[kind], figures)] == [place]


def test_possible_figures_are_left_alone() -> None:
    """Missing bounds, INCONCLUSIVE and monitored failures are no impossibility."""
    checks = [
        {"verdict": "INCONCLUSIVE", "enforced": True, "lower": None, "upper": 0.5, "value": 0.4},
        {"verdict": "FAIL", "enforced": False},
    ]
    assert list(implausible(KINDS["offline_report"], {"verdict": "INCONCLUSIVE", "checks": checks, "auc": 1})) == []
