"""Kill real controllers in the midst of jobs: every slot is recorded once, whole, and the chain verifies."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from live import Service
from watch import logged, model, put

from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, format_utc, parse_utc
from probatum.pipeline.jobs import JOBS, KIND, Book
from probatum.pipeline.registry import CHALLENGER, move_alias
from probatum.pipeline.verify import verify

DAYS, KILLS = 2, 2


def controllers(root: Path) -> list[Service]:
    """Start two controllers that have no rollout to watch."""
    options = ("--workspace", str(root), "--port", "0", "--executor", "http://127.0.0.1:9")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: Service("controller", *options), range(2)))


def test_killed_in_the_midst_of_jobs(tmp_path: Path) -> None:
    """Two controllers with two days to catch up, killed -9 again and again: one record for each slot, none half done."""
    space, rng = Workspace(tmp_path), random.Random(7)
    move_alias(space.ledger, space, CHALLENGER, space.blobs.put("artifact", model().to_bytes()))
    now = space.clock.now_ns()
    begun = now - now % NS_PER_HOUR - DAYS * NS_PER_DAY
    put(tmp_path / "decisions", logged(begun, DAYS * 24, per_hour=60))
    book = Book(space.ledger)
    book.register(begun)
    pair, kills, seen = controllers(tmp_path), 0, 0
    deadline = time.monotonic() + 90
    while book.due(space.clock.now_ns()):
        assert time.monotonic() < deadline, [item.said for item in pair]
        time.sleep(0.01)
        book.refresh()
        newest = max(kept.seq for kept in book.jobs.values())
        if kills < KILLS and newest > seen:  # the leader is at work: somewhere in the next slot
            time.sleep(rng.random() * 0.1)
            seen, kills = newest, kills + 1
            for item in pair:
                item.kill()
            pair = controllers(tmp_path)
    for item in pair:
        item.stop()
    assert kills == KILLS
    told = [record.body["inputs"] for record in space.ledger.records(kind=KIND)]
    runs = [(item["job"], item["slot"]) for item in told if item["outcome"] == "done"]
    assert len(runs) == len(set(runs))
    wanted = [(name, format_utc(slot)) for name, job in JOBS.items() for slot in job.schedule.slots(begun, now)]
    assert set(wanted) <= set(runs)  # an hour may have ended meanwhile
    assert all(parse_utc(slot) > now for _, slot in set(runs) - set(wanted))
    evidence = Counter(record.kind for record in space.ledger.records())
    assert {name: evidence[name] for name in JOBS} == {name: sum(job == name for job, _ in runs) for name in JOBS}
    assert verify(space.ledger, space).findings == ()
