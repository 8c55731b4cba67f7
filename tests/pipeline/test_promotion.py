"""Nothing is promoted that is not proven, and live: the whole path is walked, and each missing step blocks by name."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answers import Told
from canary import Bench, bench, lenient

from probatum.adapters.worktree import GitTree
from probatum.core.clock import NS_PER_S, parse_utc
from probatum.core.errors import BlockedError, ConfirmationError, IntegrityError, ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline import promotion, release
from probatum.pipeline.alerts import record_alerts
from probatum.pipeline.canary import dry_run, make_plan, preflight, prove_run
from probatum.pipeline.drill import Drilled, record_drill
from probatum.pipeline.registry import CHAMPION, PREVIOUS, aliases, move_alias
from probatum.pipeline.replay import TapeFeed, read_tape
from probatum.pipeline.rollout import LedgerEffects, Rollout, carry_out
from probatum.pipeline.story import judge
from probatum.pipeline.training import TrainingPlan
from probatum.pipeline.verify import verify
from probatum.rollout import confirm
from probatum.rollout.choose import Mode
from probatum.rollout.events import Confirmed, Observed, RolledBack, ValidationBegan
from probatum.rollout.machine import Stage, required_permission
from probatum.rollout.plan import Ladder, Policy
from probatum.rollout.policy import shipped_policy


class Walker:
    """Walk a rollout on a feed of a class that is injected, as a controller does."""

    def __init__(self, place: Bench, repo: Path | None = None) -> None:
        self.place = place
        self.tree = None if repo is None else GitTree(repo)
        self.told: list[str] = []
        self.policy: Policy = lenient(_polled(shipped_policy("default")))
        self.shares: list[int] = []
        self.effects = LedgerEffects(
            publish=lambda document: self.shares.append(round(document.share * 100)),
            prove_run=lambda rollout, effect: prove_run(rollout, effect) and None,
            tag_source=self._tag,
            tell=self.told.append,
        )

    def _tag(self, rollout: Rollout, kind: str) -> None:
        release.tag_source(rollout, kind, self.tree, now_ns=self.place.clock.now_ns(), asked_by="ada")

    def start(self, name: str, approver: str, **options: Any) -> Rollout:
        place = self.place
        plan = make_plan(place.sources, place.model, self.policy, name=name, rate_per_s=1 / 60, **options)
        rollout = place.opened(plan)
        preflight(rollout, now_ns=place.start_ns, newest_ns=place.start_ns, provenance=place.dataset.provenance)
        dry_run(rollout, place.recording, now_ns=place.start_ns)
        phrase = confirm.build_phrase(required_permission(rollout.plan, rollout.state, place.start_ns))
        rollout.apply(Confirmed(place.start_ns, phrase, approver), self.effects)
        tape = read_tape(place.sources, place.model, place.recording)
        self.feed = TapeFeed(replace(tape, provenance=place.dataset.provenance), plan, "injected")
        self.now = place.start_ns
        return rollout

    def go_on(self, rollout: Rollout, *until: Stage) -> None:
        share = 0
        while rollout.state.stage not in until and self.now < self.place.end_ns:
            if rollout.state.share_percent != share:
                share = rollout.state.share_percent
                self.feed.set_share(share, self.now)
            self.now += rollout.plan.ladder.poll_s * NS_PER_S
            self.place.clock.set(max(self.now, self.place.clock.now_ns()))
            rollout.apply(Observed(self.now, self.feed.read(self.now)), self.effects)


def _polled(policy: Policy) -> Policy:
    seldom = {"poll_s": 300, "stale_s": 600, "source_deadline_s": 3_000}
    canary = msgspec.structs.replace(policy.canary, **seldom)
    return msgspec.structs.replace(policy, canary=canary, exposure=Ladder((25, 100), **seldom))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for command in (["init", "-q"], ["config", "user.email", "t@example.org"], ["config", "user.name", "t"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "a").write_text("a")
    subprocess.run(["git", "-C", str(tmp_path), "add", "a"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "commit", "-qm", "a"], check=True)
    return tmp_path


def _older_champion(place: Bench) -> str:
    """Make a model with another target the champion that is to be replaced."""

    class Quiet:
        def step(self, description: str, done: int, total: int) -> None: ...

    plan = TrainingPlan(
        symbols=(place.dataset.symbol,), name="old", set="v1.8.1", target="direction@60s", model="logistic"
    )
    old = judge(plan, place.dataset, place.ledger, place.sources, Quiet()).artifact
    assert old is not None
    move_alias(place.ledger, place.sources, CHAMPION, old)
    return old


def test_a_live_source_walks_the_whole_path(repo: Path) -> None:
    """Canary, rc tag, validation, review, alerts, drill, verification, promotion, release, exposure and rollback."""
    place = bench(Provenance.LIVE)
    old = _older_champion(place)
    walker = Walker(place, repo)
    rollout = walker.start("live", "ada")
    walker.go_on(rollout, Stage.COMPLETED)
    assert rollout.state.stage is Stage.COMPLETED, rollout.state.reason
    assert walker.shares == [5, 10, 25, 50, 100]
    assert _tags(repo) == ["v1-rc1"]
    rollout.apply(ValidationBegan(walker.now, "ada"))
    walker.go_on(rollout, Stage.VALIDATED)
    assert rollout.state.stage is Stage.VALIDATED, rollout.state.reason

    def ask() -> Any:
        return promotion.check_promotion(
            place.ledger, place.sources, place.model, policy=walker.policy, now_ns=place.clock.now_ns(), asked_by="ada"
        )

    names = [item.name for item in promotion.blockers_of(ask())]
    assert names == ["alerts", "drill", "review", "evidence_verified"]
    ledger, sources = place.ledger, place.sources
    record_alerts(ledger, sources, rollout.plan, Told(), now_ns=place.clock.now_ns())
    promotion.review(ledger, sources, place.model, by="Ada ", note="my own")
    record_drill([Drilled("abort", 100, 40, 0, 80.0)], 2, ledger, sources)
    promotion.record_verification(ledger, sources, verify(ledger, sources).findings)
    assert [item.value for item in promotion.blockers_of(ask())] == ["reviewed by Ada, who asks"]
    promotion.review(ledger, sources, place.model, by="grace", note="all of it")
    check = ask()
    assert check.body["figures"]["verdict"] == "PASS"

    now = place.clock.now_ns()
    phrase = promotion.promotion_phrase(rollout, check, now)
    for wrong in (phrase.replace("model=", "model=f"), phrase.replace("evidence=", "evidence=0")):
        with pytest.raises(ConfirmationError):
            promotion.promote(rollout, wrong, by="ada", now_ns=now, handler=walker.effects)
    assert aliases(ledger.records())[CHAMPION] == old
    promotion.promote(rollout, phrase, by="ada", now_ns=now, handler=walker.effects)
    assert (aliases(ledger.records())[CHAMPION], aliases(ledger.records())[PREVIOUS]) == (place.model, old)
    assert _tags(repo) == ["v1", "v1-rc1"]
    assert "## v1 " in (repo / "CHANGELOG.md").read_text()

    exposure = walker.start("exposure", "ada", units=1_000)
    assert exposure.plan.mode is Mode.GATED
    walker.go_on(exposure, Stage.COMPLETED)
    assert exposure.state.stage is Stage.COMPLETED, exposure.state.reason
    exposure.apply(ValidationBegan(walker.now, "ada"))
    walker.go_on(exposure, Stage.VALIDATED)
    assert exposure.state.stage is Stage.VALIDATED, exposure.state.reason
    assert [r.body["figures"]["verdict"] for r in ledger.records(kind="validation")] == ["PASS", "PASS"]
    exposure.apply(RolledBack(walker.now, "ada", "enough"), walker.effects)
    assert (exposure.state.stage, walker.shares[-1]) == (Stage.ROLLED_BACK, 0)
    rollout.apply(RolledBack(walker.now, "ada", "wrong"), walker.effects)
    carry_out(rollout, walker.effects)  # a crash after the rollback does not flip it again
    assert aliases(ledger.records())[CHAMPION] == old
    assert verify(ledger, sources).findings == ()


@pytest.mark.parametrize("provenance", [Provenance.SYNTHETIC, Provenance.REPLAY])
def test_the_same_path_is_blocked_for_what_is_not_live(provenance: Provenance, repo: Path) -> None:
    """A completed canary of made or replayed data gets no rc tag, and no waiver and no review opens the gate."""
    place = bench(provenance)
    walker = Walker(place, repo)
    rollout = walker.start("told", "demo")
    walker.go_on(rollout, Stage.COMPLETED)
    assert rollout.state.stage is Stage.COMPLETED
    now = place.clock.now_ns()
    for blocker in ("validation", "alerts", "drill"):
        promotion.waive(
            place.ledger, place.sources, place.model, blocker, by="ada", reason="test", now_ns=now,
            expires_ns=now + 3_600 * NS_PER_S,
        )  # fmt: skip
    promotion.review(place.ledger, place.sources, place.model, by="grace", note="")
    promotion.record_verification(place.ledger, place.sources, ())
    with pytest.raises(ParameterError, match="may be waived"):
        promotion.waive(
            place.ledger, place.sources, place.model, "provenance_live", by="ada", reason="x", now_ns=now,
            expires_ns=now + NS_PER_S,
        )  # fmt: skip
    check = promotion.check_promotion(
        place.ledger, place.sources, place.model, policy=walker.policy, now_ns=now, asked_by="ada"
    )
    assert [item.name for item in promotion.open_blockers(promotion.blockers_of(check))] == ["provenance_live"]
    phrase = promotion.promotion_phrase(rollout, check, now)
    with pytest.raises(BlockedError, match=provenance.value):
        promotion.promote(rollout, phrase, by="ada", now_ns=now, handler=walker.effects)
    assert CHAMPION not in aliases(place.ledger.records())
    assert _tags(repo) == []
    (untagged,) = place.ledger.records(kind="release")
    assert "provenance_live" in untagged.body["figures"]["reason"]


def test_a_live_rollout_does_not_confirm_itself() -> None:
    """Approver `demo` is refused where the data are live."""
    place = bench(Provenance.LIVE)
    rollout = Walker(place).start("live", "demo")
    assert rollout.state.stage is Stage.AWAITING_CONFIRMATION


def test_a_waiver_lapses() -> None:
    """What was waived blocks again when its time is over."""
    place = bench(Provenance.LIVE)
    now = place.clock.now_ns()
    promotion.waive(
        place.ledger, place.sources, place.model, "drill", by="ada", reason="r", now_ns=now, expires_ns=now + 10
    )
    policy = shipped_policy("default")
    stands = {}
    for at in (now, now + 10):
        check = promotion.check_promotion(
            place.ledger, place.sources, place.model, policy=policy, now_ns=at, asked_by="a"
        )
        stands[at - now] = "drill" in [b.name for b in promotion.open_blockers(promotion.blockers_of(check))]
    assert stands == {0: False, 10: True}


def test_a_proof_that_the_ledger_does_not_hold_is_refused() -> None:
    """A hash that leads nowhere is an integrity error, not an absent proof."""
    place = bench()
    inputs = {
        "artifact": place.model, "proofs": ["b" * 64], "statements": [], "waivers": [], "asked_by": "a", "now": "2024-01-01T00:00:00Z",
        "policy": msgspec.to_builtins(shipped_policy("default")),
    }  # fmt: skip
    with pytest.raises(IntegrityError, match="does not hold"):
        promotion.figures(inputs, place.sources)


def test_a_drill_that_was_slow_or_lost_a_reply_is_no_pass() -> None:
    """Each fault is judged on its own time and its own unanswered decisions."""
    place = bench()
    for drilled, verdict in (
        (Drilled("abort", 100, 40, 0, 900.0), "PASS"),
        (Drilled("abort", 100, 40, 0, 1_001.0), "FAIL"),
        (Drilled("abort", 100, 40, 1, 10.0), "FAIL"),
        (Drilled("abort", 100, 0, 0, 0.0), "ERROR"),
    ):
        record = record_drill([drilled], 1, place.ledger, place.sources)
        assert record.body["figures"]["verdict"] == verdict


def test_a_tag_that_is_there_is_not_moved(repo: Path) -> None:
    """git refuses, and nothing was written."""
    tree = GitTree(repo)
    first = tree.mark("v1", "m", "## v1\n")
    with pytest.raises(Exception, match="there already"):
        tree.mark("v1", "m", "## again\n")
    assert first
    assert "again" not in (repo / "CHANGELOG.md").read_text()
    with pytest.raises(ParameterError):
        GitTree(repo / "nowhere")


def test_times_of_the_gate_are_the_ledgers() -> None:
    """A proof's age counts from when it was recorded."""
    place = bench()
    record = next(place.ledger.records(kind="psi_snapshot"))
    (proof,) = promotion.proofs_of(record, place.model)
    assert proof.ts == parse_utc(record.ts)


def _tags(repo: Path) -> list[str]:
    done = subprocess.run(["git", "-C", str(repo), "tag"], capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())
