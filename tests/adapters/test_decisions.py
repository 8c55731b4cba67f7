"""Logged decisions are read back whole while executors write."""

from __future__ import annotations

from pathlib import Path

import pytest

from probatum.adapters.decision_log import ParquetDecisionLog
from probatum.adapters.decisions import ParquetDecisions
from probatum.adapters.journal import LogSettings
from probatum.core.clock import SystemClock
from probatum.core.errors import DataError
from probatum.models.artifact import FeatureSpec
from probatum.monitoring.shadow import DecisionRow

SPECS = (FeatureSpec("toy", ("x", "y"), "f" * 64), FeatureSpec("other", ("z",), "e" * 64))


def write(log: ParquetDecisionLog, numbers: range, width: int) -> None:
    for n in numbers:
        log.append(DecisionRow(n, 1_000 + n, 0, f"{width}-{n}", "", "BTC", "", [float(n)] * width, 0.5, 1))


def test_finished_files_and_open_journals_are_read_together(tmp_path: Path) -> None:
    """Rows of two executors, one closed and one that still writes, come back once each, in time, without a lock."""
    closed, open_ = (ParquetDecisionLog(tmp_path, spec, SystemClock(), LogSettings(flush_s=0.01)) for spec in SPECS)
    write(closed, range(50), 2)
    closed.close()
    write(open_, range(50, 80), 1)
    while open_.counts.written < 30:
        pass
    frame = ParquetDecisions(tmp_path).read(1_000 + 10, 1_000 + 70)
    assert frame["ts"].to_list() == list(range(1_010, 1_070))
    assert frame["f_x"].drop_nulls().to_list() == [float(n) for n in range(10, 50)]
    assert frame["f_z"].drop_nulls().to_list() == [float(n) for n in range(50, 70)]
    assert set(frame["fingerprint"]) == {"f" * 64, "e" * 64}
    open_.close()
    assert ParquetDecisions(tmp_path).read(1_010, 1_070).select(frame.columns).equals(frame)


def test_no_decisions_are_an_empty_table(tmp_path: Path) -> None:
    """A folder that is missing, or a time without decisions, gives no rows but the columns."""
    frame = ParquetDecisions(tmp_path / "none").read(0, 10)
    assert frame.height == 0
    assert {"ts", "decision_id", "baseline", "challenger", "fingerprint"} <= set(frame.columns)


def test_a_file_that_is_no_log_is_named(tmp_path: Path) -> None:
    """What stands in the folder and cannot be read is an error with its name, not silence."""
    (tmp_path / "decisions-x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"decisions-x\.parquet"):
        ParquetDecisions(tmp_path).read(0, 10)
