"""Jobs and reports from the command line, and the units that other schedulers run them by."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from click.testing import CliRunner
from tests.conftest import require_service
from watch import logged, model, put

from probatum.cli.main import cli
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, SystemClock, format_utc, parse_utc
from probatum.core.errors import BlockedError, ParameterError, UnknownNameError
from probatum.core.schedule import HOURLY
from probatum.pipeline.job_units import cron_jobs, systemd_units
from probatum.pipeline.jobs import JOBS, KIND, RETRAIN, Book
from probatum.pipeline.registry import CHALLENGER, move_alias


def workspace(root: Path, days: int = 1) -> Workspace:
    """Return a workspace with a challenger and decisions logged until now."""
    space = Workspace(root)
    move_alias(space.ledger, space, CHALLENGER, space.blobs.put("artifact", model().to_bytes()))
    now = SystemClock().now_ns()
    put(root / "decisions", logged(now - now % NS_PER_HOUR - days * NS_PER_DAY, days * 24, per_hour=30))
    return space


def called(space: Workspace, *arguments: str) -> Any:
    done = CliRunner().invoke(cli, [*arguments, "--workspace", str(space.root), "-o", "json"])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.output)


def test_run_ls_report(tmp_path: Path) -> None:
    """A slot is run once; the list, the exported files, and both pages tell of it; the chain verifies."""
    space = workspace(tmp_path)
    assert {row["slot"] for row in called(space, "jobs", "ls")} == {None}
    for name in JOBS:
        (ran,) = called(space, "jobs", "run", name, "--slot", "now")
        assert ran["records"] or name == RETRAIN  # which asks where there is a champion
        assert called(space, "jobs", "run", name, "--slot", ran["slot"]) == []
    assert {row["outcome"] for row in called(space, "jobs", "ls")} == {"done"}
    date = format_utc(space.clock.now_ns() - NS_PER_DAY)[:10]
    assert {
        f"daily/report_{date}.json",
        "daily/ml_daily_reports.csv",
        "weekly/ml_weekly_summaries.csv",
        "psi_series.csv",
    } <= set(space.evidence.names())
    for period in ("daily", "weekly"):
        html, markdown = (Path(path).read_text() for path in called(space, "report", period))
        assert html.startswith("<!doctype html>")
        assert "| decisions |" in markdown
    assert called(space, "evidence", "verify")["findings"] == []


def test_missed_slots_are_caught_up(tmp_path: Path) -> None:
    """After a day in which nobody ran it, one call does all 24 hours, oldest first."""
    space = workspace(tmp_path)
    begun = HOURLY.newest(space.clock.now_ns()) - NS_PER_DAY
    Book(space.ledger).register(begun)
    ran = [parse_utc(item["slot"]) for item in called(space, "jobs", "run", "psi_snapshot")]
    assert ran == list(HOURLY.slots(begun, ran[-1]))
    assert len(ran) >= 24  # an hour may have ended meanwhile


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("jobs", "run", "psi"), UnknownNameError, "psi_snapshot"),
        (("jobs", "run", "daily_report", "--slot", "2026-03-02T00:00:01Z"), ParameterError, "past instant"),
        (("jobs", "run", "daily_report", "--slot", "2999-03-02T00:00:00Z"), ParameterError, "past instant"),
        (("jobs", "run", "daily_report", "--slot", "yesterday"), ParameterError, "ISO 8601"),
        (("jobs", "export"), ParameterError, "at least one of the two"),
        (("report", "daily"), BlockedError, "jobs run daily_report"),
    ],
)
def test_what_cannot_be_run_is_named(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    """A job, a slot or a report that does not exist is an error that says what does; nothing is appended."""
    space = Workspace(tmp_path)
    with pytest.raises(error, match=said):
        called(space, *arguments)
    assert list(space.ledger.records(kind=KIND)) == []


def test_report_of_an_unknown_day(tmp_path: Path) -> None:
    """A day without a report, or a date that is a path, is refused with the days that have one."""
    space = workspace(tmp_path)
    called(space, "jobs", "run", "daily_report", "--slot", "now")
    with pytest.raises(UnknownNameError, match="known: 20"):
        called(space, "report", "daily", "--date", "../../etc/passwd")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """systemd finds nothing wrong with the timers and services, and each calls its job."""
    require_service("systemd-analyze", shutil.which("systemd-analyze"))
    CliRunner().invoke(
        cli,
        ["jobs", "export", "--systemd", str(tmp_path), "--command", "/bin/true", "--workspace", "/var/lib/probatum"],
        catch_exceptions=False,
    )
    units = sorted(tmp_path.iterdir())
    assert len(units) == 2 * len(JOBS)
    for name in JOBS:
        text = (tmp_path / f"probatum-{name.replace('_', '-')}.service").read_text()
        assert f"ExecStart=/bin/true jobs run {name} --slot due --workspace /var/lib/probatum\n" in text
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    named = [line for line in done.stderr.splitlines() if "probatum" in line]
    assert (done.returncode, named) == (0, [])


def test_kubernetes_takes_the_cron_jobs(tmp_path: Path) -> None:
    """The schema of Kubernetes accepts every CronJob; times are UTC, and no two of a job run at once."""
    CliRunner().invoke(cli, ["jobs", "export", "--kubernetes", str(tmp_path)], catch_exceptions=False)
    made = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.yaml"))]
    for document in made:
        kubernetes_validate.validate(document, "1.31", strict=True)
        assert (document["spec"]["timeZone"], document["spec"]["concurrencyPolicy"]) == ("Etc/UTC", "Forbid")
    assert {d["metadata"]["name"]: d["spec"]["schedule"] for d in made} == {
        f"probatum-{name.replace('_', '-')}": job.schedule.cron for name, job in JOBS.items()
    }


@pytest.mark.parametrize("path", ["relative", "/with space", "/two\nlines", "/$HOME", "/quo'te", "/%h"])
def test_no_path_becomes_another_command(path: str) -> None:
    """What systemd would split or expand is refused, as program and as workspace."""
    for program, space in ((path, "/var/lib/probatum"), ("/usr/bin/probatum", path)):
        with pytest.raises(ParameterError, match="absolute path"):
            systemd_units(program, space)


@pytest.mark.parametrize("image", ["", "a b", "a\nb"])
def test_an_image_is_one_word(image: str) -> None:
    """An image name that is none is refused."""
    with pytest.raises(ParameterError, match="image"):
        cron_jobs(image)
