"""Check a chain: its links, the bytes it names, the figures it claims, and the files that were exported from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, TypeGuard

import msgspec

from probatum import __version__
from probatum.core.canonical import canonical_json, digest, parse_json
from probatum.core.errors import IntegrityError, ProbatumError
from probatum.core.verdict import Provenance, Verdict
from probatum.models.trainer import library_versions
from probatum.pipeline.evidence import GENESIS, record_hash
from probatum.pipeline.export import RENDERED, export, is_export_name
from probatum.pipeline.green import HEAD_FILE, find_head
from probatum.pipeline.kinds import KINDS, EvidenceKind, named_blobs
from probatum.pipeline.periodic import DAILY, MATCH, SUBJECT, WEEKLY
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.registry import load_artifact


class Finding(msgspec.Struct, frozen=True):
    """Name one bad place and what is wrong there."""

    place: str
    problem: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Report what was checked and what was found; ``notes`` say what could not be compared, and why."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    records: int
    head: str
    blobs_checked: int
    figures_checked: int
    files_checked: int

    @property
    def ok(self) -> bool:
        """Return whether nothing was found."""
        return not self.findings


def verify(
    ledger: Ledger, sources: Sources, progress: Progress | None = None, *, exported: Mapping[str, bytes] | None = None
) -> Verification:
    """Recompute chain, digests and figures, and compare ``exported`` (name to bytes) with what the chain exports.

    Findings come in the order chain, record by record, files; each place is named once. Never raises for what it
    finds, whatever a hostile record holds.
    """
    found: dict[Finding, None] = {}
    records: list[Record] = []
    found.update(dict.fromkeys(_read_chain(ledger, records)))
    checker = _Checker(sources)
    for done, record in enumerate(records):
        found.update(dict.fromkeys(checker.check(record)))
        if progress:
            progress.step("verify", done + 1, len(records))
    files, notes = dict(exported or {}), list[str]()
    found.update(dict.fromkeys(_check_files(records, sources, files, notes)))
    return Verification(
        findings=tuple(Finding(_plain(item.place), _plain(item.problem)) for item in found),
        notes=tuple(map(_plain, notes)),
        records=len(records),
        head=records[-1].hash if records else GENESIS,
        blobs_checked=len(checker.blobs),
        figures_checked=checker.figures_checked,
        files_checked=len(files),
    )


def _read_chain(ledger: Ledger, into: list[Record]) -> Iterator[Finding]:
    prev = GENESIS
    try:
        for number, record in enumerate(ledger.records(), start=1):
            place = f"record {record.seq} ({record.kind})"
            if record.seq != number:
                yield Finding(place, f"the chain breaks: record {number} is expected here")
            if record.prev != prev:
                yield Finding(place, "the chain breaks: prev is not the hash of the record before")
            if record.hash != _hash_or_none(record):
                yield Finding(place, "the record was changed: its fields do not give its hash")
            prev = record.hash
            into.append(record)
    except IntegrityError as error:
        yield Finding(error.place, str(error.fields["problem"]))


def _hash_or_none(record: Record) -> str | None:
    try:
        return record_hash(record)
    except ProbatumError:
        return None


class _Checker:
    """Check records one by one; equal bytes and equal derivations are computed once."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._figures: dict[str, Any] = {}
        self._named: set[str] = set()
        self._classes: dict[Any, Provenance] = {}
        self.blobs: dict[tuple[str, str], Finding | None] = {}
        self.figures_checked = 0

    def check(self, record: Record) -> Iterator[Finding]:
        place = f"record {record.seq} ({record.kind})"
        kind = KINDS.get(record.kind)
        if kind is None or set(record.body) != {"inputs", "figures"}:
            yield Finding(place, "unknown to this version: its figures cannot be recomputed")
            return
        bad_blobs = [finding for name in named_blobs(record.body) if (finding := self._blob(*name))]
        yield from bad_blobs
        for path, problem in implausible(kind, record.body["figures"]):
            yield Finding(f"{place}, {path}", problem)
        if not bad_blobs:
            yield from self._recompute(place, kind, record)

    def _blob(self, kind: str, name: str) -> Finding | None:
        if (kind, name) not in self.blobs:
            try:
                self._sources.blobs.get(kind, name)
                self.blobs[kind, name] = None
            except ProbatumError as error:
                self.blobs[kind, name] = _finding(f"{kind} {name}", error)
        return self.blobs[kind, name]

    def _recompute(self, place: str, kind: EvidenceKind, record: Record) -> Iterator[Finding]:
        try:
            key = digest([record.kind, record.body["inputs"]])
            if key not in self._figures:
                computed = kind.derive()(record.body["inputs"], self._sources)
                self._figures[key] = parse_json(canonical_json(computed))
            difference = first_difference(record.body["figures"], self._figures[key])
            attributed = [] if difference else list(self._attributed(place, record))
        except ProbatumError as error:
            finding = _finding(place, error)
            if finding.place not in self._named:
                self._named.add(finding.place)
                also = "" if finding.place == place else f"; met at {place}"
                yield Finding(finding.place, finding.problem + also)
            return
        except Exception as error:  # inputs that were tampered with may break a derivation in any way
            yield Finding(place, f"the figures cannot be recomputed: {type(error).__name__}: {_short(str(error))}")
            return
        self.figures_checked += 1
        yield from attributed
        if difference:
            path, recorded, computed = difference
            problem = f"the record says {_short(recorded)}, recomputed it is {_short(computed)}"
            yield Finding(f"{place}, {path}", problem + _other_versions(record.body["inputs"]))

    def _attributed(self, place: str, record: Record) -> Iterator[Finding]:
        """Hold subject and provenance, which no figure contains, to what the record rests on."""
        self._classes[record.hash] = record.provenance
        inputs, figures = record.body["inputs"], record.body["figures"]
        if record.kind == "data_import":
            subject, rests_on = inputs["symbol"], [Provenance(figures["provenance"])]
        elif record.kind == "skew":
            data = zip(inputs["symbols"], inputs["datasets"], strict=True)
            rests_on = [*map(self._class_of, data), Provenance(figures["provenance"])]
            subject = "+".join(inputs["symbols"])
        elif record.kind in _OF_ARTIFACT:
            artifact = load_artifact(self._sources, (figures if record.kind == "train" else inputs)["artifact"])
            data = zip(inputs.get("symbols", ()), inputs.get("datasets", ()), strict=True)
            proofs = [self._classes[proof] for proof in inputs.get("proofs", ()) if proof in self._classes]
            logged = [Provenance(figures["provenance"])] if "decisions" in inputs else []
            subject, rests_on = artifact.name, [artifact.data.provenance, *map(self._class_of, data), *proofs, *logged]
        elif record.kind in _OF_ROLLOUT:
            subject = load_artifact(self._sources, inputs["artifact"]).name
            proofs = [self._classes[proof] for proof in inputs.get("proofs", {}).values() if proof in self._classes]
            rests_on = [*proofs, Provenance(figures.get("provenance") or record.provenance)]
        elif record.kind == "rollout_event":
            subject, rests_on = inputs["rollout"], [Provenance(figures["state"]["provenance"] or record.provenance)]
        elif record.kind in _OF_DECISIONS:
            subject, rests_on = SUBJECT, [Provenance(figures["provenance"])]
        else:
            return
        if record.subject != subject:
            yield Finding(f"{place}, subject", f"the record says {_short(record.subject)}, it is of {_short(subject)}")
        weakest = Provenance.weakest(rests_on)
        if Provenance.weakest([record.provenance, weakest]) is not record.provenance:
            yield Finding(f"{place}, provenance", f"the record says {record.provenance}, it rests on {weakest} data")

    def _class_of(self, dataset: tuple[str, str]) -> Provenance:
        if dataset not in self._classes:
            self._classes[dataset] = self._sources.datasets.load(*dataset).provenance
        return self._classes[dataset]


_OF_ARTIFACT = (
    *("train", "offline_report", "psi_snapshot", "smoke_1k", "outcomes", "alias", "promote_check"),
    *("retrain_request", "retrain_proposal", "retrain_data", "retrain_attempt"),
)
_OF_DECISIONS = (DAILY, WEEKLY, MATCH)
_OF_ROLLOUT = ("canary_preflight", "canary_dryrun_observe", "canary_run", "validation")


def _other_versions(inputs: dict[str, Any]) -> str:
    """Name the libraries that are not the ones a record was made with: they too may explain a difference."""
    made_with, here = inputs.get("versions"), library_versions()
    if not isinstance(made_with, dict):
        return ""
    other = [f"{name} {_short(made_with[name])}, here {v}" for name, v in here.items() if made_with.get(name, v) != v]
    return f" (made with {'; '.join(other)})" if other else ""


def first_difference(recorded: Any, computed: Any, path: str = "figures") -> tuple[str, Any, Any] | None:
    """Return the first place where two JSON values differ, in canonical order, with both values there.

    >>> first_difference({"auc": 0.64, "n": [1, 2]}, {"auc": 0.64, "n": [1, 3]})
    ('figures.n[1]', 2, 3)
    >>> first_difference({"auc": 0.64}, {})
    ('figures.auc', 0.64, 'absent')
    """
    if isinstance(recorded, dict) and isinstance(computed, dict):
        pairs = [
            (f"{path}.{key}" if re.fullmatch(r"\w{1,60}", key) else f"{path}[{_short(key)}]", key)
            for key in sorted(recorded.keys() | computed.keys())
        ]
        differences = (first_difference(recorded.get(k, "absent"), computed.get(k, "absent"), p) for p, k in pairs)
        return next((found for found in differences if found), None)
    if isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        items = enumerate(zip(recorded, computed, strict=True))
        return next((found for i, (a, b) in items if (found := first_difference(a, b, f"{path}[{i}]"))), None)
    same = type(recorded) is type(computed) and recorded == computed
    return None if same else (path, recorded, computed)


def implausible(kind: EvidenceKind, figures: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, problem) for figures that cannot be true whatever was measured.

    Counts that do not add up, rates and probabilities outside [0, 1], bounds in the wrong order, and a verdict that is
    better than the worst enforced check.
    """
    for total, parts in kind.sums:
        counts = [_at(figures, name) for name in (total, *parts)]
        if all(isinstance(count, int) for count in counts) and counts[0] != sum(counts[1:]):
            shown = " + ".join(f"{name} {count}" for name, count in zip(parts, counts[1:], strict=True))
            yield f"figures.{total}", f"{counts[0]}, but {shown} = {sum(counts[1:])}"
    yield from _out_of_range(figures, "figures")
    if kind.judges and isinstance(figures, dict):
        enforced = [c["verdict"] for c in figures.get("checks") or () if isinstance(c, dict) and c.get("enforced")]
        if not enforced or not set(enforced) <= set(Verdict):
            yield "figures.checks", "holds no enforced check with a verdict"
        elif figures.get("verdict") != (worst := Verdict.worst(map(Verdict, enforced))):
            yield "figures.verdict", f"{_short(figures.get('verdict'))}, but the worst enforced check is {worst}"


_UNIT = re.compile(r"(auc|p_value|.*_rate|rate|share|precision.*|recall.*)")


def _out_of_range(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _out_of_range(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        lower, upper = value.get("lower"), value.get("upper")
        if _is_number(lower) and _is_number(upper) and lower > upper:
            yield path, f"lower bound {lower} above upper bound {upper}"
        for key, item in value.items():
            if _is_number(item) and _UNIT.fullmatch(key) and not 0 <= item <= 1:
                yield f"{path}.{_short(key)}", f"{item} lies outside [0, 1]"
            yield from _out_of_range(item, f"{path}.{_short(key)}")


def _check_files(
    records: list[Record], sources: Sources, files: dict[str, bytes], notes: list[str]
) -> Iterator[Finding]:
    if not files:
        return
    stated = find_head(files.get(HEAD_FILE, b""))
    if stated is None:
        yield Finding(f"evidence/ml/{HEAD_FILE}", "missing, or without the line that names the head of the chain")
        return
    seq, head, version = stated
    if (records[seq - 1].hash if 0 < seq <= len(records) else GENESIS) != head or seq > len(records):
        problem = f"exported when record {seq} was {head[:12]}…; the chain has no such record: it was cut or rewritten"
        yield Finding(f"evidence/ml/{HEAD_FILE}", problem)
        return
    if seq < len(records):
        notes.append(f"evidence/ml was exported at record {seq}; {len(records) - seq} newer records are not in it")
    try:
        expected = export(records[:seq], sources.blobs)
    except ProbatumError as error:
        yield _finding("evidence/ml", error)
        return
    made = {name for name in expected.keys() | files.keys() if name.rsplit("/", 1)[-1] in RENDERED}
    rendered_elsewhere = made if version != __version__ else set[str]()
    if rendered_elsewhere:
        notes.append(f"rendered by version {version}, not compared: {', '.join(sorted(rendered_elsewhere))}")
    strangers = sorted(name for name in files.keys() - expected.keys() if not is_export_name(name))
    notes.extend(f"evidence/ml/{_short(name)} is not from the chain, not checked, no evidence" for name in strangers)
    yield from _compare_files(expected, files, rendered_elsewhere.union(strangers))


def _compare_files(expected: dict[str, bytes], files: dict[str, bytes], skip: set[str]) -> Iterator[Finding]:
    for name in sorted(expected.keys() | files.keys()):
        place = f"evidence/ml/{_short(name)}"
        if name in skip:
            continue
        if name not in files:
            yield Finding(place, "missing: the chain exports it")
        elif name not in expected:
            yield Finding(place, "bears the name of evidence, but the chain does not export it")
        elif files[name] != expected[name]:
            line = _first_line(files[name], expected[name])
            yield Finding(place, f"line {line} is not what the chain exports")


def _first_line(found: bytes, expected: bytes) -> int:
    pairs = enumerate(zip_longest(found.split(b"\n"), expected.split(b"\n")), start=1)
    return next(line for line, (a, b) in pairs if a != b)


def _finding(place: str, error: ProbatumError) -> Finding:
    if isinstance(error, IntegrityError):
        return Finding(error.place, str(error.fields["problem"]))
    return Finding(place, error.message)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = _plain(value if isinstance(value, str) else repr(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _plain(text: str) -> str:
    return text if text.isprintable() else ascii(text)
