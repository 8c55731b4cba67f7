"""Bind a human's word to exactly what was shown: models, plan, evidence, phases and an hour after which it lapses.

One phrase is one permission. It is built from the digests, typed or pasted by the approver, parsed again, and compared
field by field with what stands now: whatever changed in between makes it void, and the reason names the field.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from probatum.core.canonical import sha256_hex
from probatum.core.clock import NS_PER_S, format_utc, parse_utc
from probatum.core.errors import ConfirmationError, ParameterError
from probatum.core.verdict import Provenance
from probatum.rollout.choose import Mode
from probatum.rollout.plan import Plan

DEMO = "demo"
"""The approver that ``probatum run`` is for itself; live rollouts do not accept it."""

DIGEST_CHARS = 16
"""Hex digits of a digest in a phrase: 64 bits, out of reach for somebody who edits a plan until it matches."""

_START = re.compile(r"(?P<action>Canary|Exposure) START (?P<phases>\S+) (?P<mode>observe-only|gated)")
_RANGE = re.compile(r"(\d{1,3})(?:\.\.(\d{1,3}))?%/(\d{1,6})([ms])")
_FIELDS = ("model", "plan", "evidence", "expires")


class Permission(msgspec.Struct, frozen=True):
    """Hold what a phrase permits. ``first`` and ``last`` are shares in per cent; both 0 for a promotion."""

    action: str
    first: int
    last: int
    phase_s: int
    mode: str
    model: str
    plan: str
    evidence: str
    expires_ts: int


def start_permission(plan: Plan, evidence: str, expires_ts: int, *, last: int | None = None) -> Permission:
    """Return what must be confirmed to start a plan, up to share ``last`` (all of it by default).

    ``evidence`` is the hash of the dry-run's record. Raises ParameterError when ``last`` is no step of the plan.
    """
    steps = plan.ladder.shares_percent
    if last is not None and last not in steps:
        raise ParameterError("last", f"one of the plan's shares {steps}", last)
    observe = plan.mode is Mode.OBSERVE
    return Permission(
        action="Canary" if observe else "Exposure",
        first=steps[0],
        last=steps[-1] if last is None else last,
        phase_s=plan.ladder.phase_s,
        mode="observe-only" if observe else "gated",
        model=plan.model[:DIGEST_CHARS],
        plan=plan.digest[:DIGEST_CHARS],
        evidence=evidence[:DIGEST_CHARS],
        expires_ts=expires_ts - expires_ts % NS_PER_S,
    )


def promote_permission(plan: Plan, evidence: str, expires_ts: int) -> Permission:
    """Return what must be confirmed to promote; ``evidence`` is the hash of the promote gate's record."""
    start = start_permission(plan, evidence, expires_ts)
    return msgspec.structs.replace(start, action="Promote", first=0, last=0, phase_s=0, mode="")


def build_phrase(permission: Permission) -> str:
    """Write the phrase that gives a permission.

    >>> build_phrase(Permission("Canary", 5, 100, 1800, "observe-only", "aa", "bb", "cc", 0))
    'ONAY: Canary START 5..100%/30m observe-only model=aa plan=bb evidence=cc expires=1970-01-01T00:00:00Z'
    """
    what = "Promote"
    if permission.action != "Promote":
        phases = f"{permission.first}..{permission.last}%/{_duration(permission.phase_s)}"
        what = f"{permission.action} START {phases} {permission.mode}"
    return (
        f"ONAY: {what} model={permission.model} plan={permission.plan} evidence={permission.evidence} "
        f"expires={format_utc(permission.expires_ts)}"
    )


def parse_phrase(phrase: str) -> Permission:
    """Read a phrase; ``CONFIRM:`` is a synonym of ``ONAY:``, white space does not matter, order does.

    Raises ConfirmationError saying what is missing or malformed.
    """
    words = phrase.split() if len(phrase) <= 1_000 else []
    if not words or words[0] not in ("ONAY:", "CONFIRM:"):
        raise _void("it must begin with ONAY: or CONFIRM:", "prefix")
    head, fields = words[1:-4], dict(word.partition("=")[::2] for word in words[-4:])
    if tuple(fields) != _FIELDS or not all(fields.values()):
        raise _void(f"it must end with {' '.join(f'{name}=…' for name in _FIELDS)}", "fields")
    try:
        expires_ts = parse_utc(fields["expires"])
    except ParameterError as error:
        raise _void(error.message, "expires") from None
    action, first, last, phase_s, mode = _parse_head(" ".join(head))
    return Permission(
        action, first, last, phase_s, mode, fields["model"], fields["plan"], fields["evidence"], expires_ts
    )


def phrase_id(phrase: str) -> str:
    """Return the digest that marks a phrase as used, whichever prefix and white space it was typed with."""
    return sha256_hex(build_phrase(parse_phrase(phrase)).encode())


def check_phrase(
    phrase: str,
    expected: Permission,
    *,
    shares: Collection[int],
    now_ns: int,
    used: Collection[str],
    approver: str,
    provenance: Provenance | None,
) -> Permission:
    """Return the permission that a phrase gives, or raise ConfirmationError with the reason why it is void.

    ``expected`` is what stands now; its expiry is the latest that may be asked for. The phrase may name a shorter range
    of phases than expected, from the same first share and ending on one of ``shares``.
    """
    given = parse_phrase(phrase)
    if not approver.strip():
        raise _void("an approver must be named", "approver")
    if approver.strip() == DEMO and provenance not in (Provenance.SYNTHETIC, Provenance.REPLAY):
        raise _void("approver 'demo' is for synthetic and replayed rollouts only", "approver")
    if phrase_id(phrase) in used:
        raise _void("it was used before; each phrase is for once", "used")
    for name in ("action", "mode", "model", "plan", "evidence", "phase_s", "first"):
        if getattr(given, name) != getattr(expected, name):
            raise _void(f"{name} is {getattr(given, name)}, but {getattr(expected, name)} stands now", name)
    if given.last not in {*shares, 0} or not expected.first <= given.last <= expected.last:
        raise _void(f"phases {given.first}..{given.last}% lie outside {expected.first}..{expected.last}%", "phases")
    if now_ns >= given.expires_ts:
        raise _void(f"it expired at {format_utc(given.expires_ts)}", "expires")
    if given.expires_ts > expected.expires_ts:
        raise _void(f"it expires later than {format_utc(expected.expires_ts)}, the longest allowed", "expires")
    return given


def _parse_head(head: str) -> tuple[str, int, int, int, str]:
    if head == "Promote":
        return "Promote", 0, 0, 0, ""
    match = _START.fullmatch(head)
    if match is None:
        raise _void("it must say 'Canary START …', 'Exposure START …' or 'Promote', then the mode", "action")
    phases = _RANGE.fullmatch(match["phases"])
    if phases is None:
        raise _void(f"phases must look like 5..100%/30m, got {match['phases'][:40]!r}", "phases")
    first, last, duration, unit = phases.groups()
    return match["action"], int(first), int(last or first), int(duration) * (60 if unit == "m" else 1), match["mode"]


def _duration(seconds: int) -> str:
    return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"


def _void(reason: str, field: str) -> ConfirmationError:
    return ConfirmationError(f"confirmation void: {reason}; nothing was moved", field=field, reason=reason)
