"""Name models: immutable versions are artifacts, and aliases are replayed from the ledger, so a move is one append."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from probatum.core.errors import UnknownNameError
from probatum.models.artifact import Artifact, parse_artifact
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources

CHAMPION, CHALLENGER, PREVIOUS = ALIASES = ("champion", "challenger", "previous")


class Version(msgspec.Struct, frozen=True):
    """Hold one trained artifact: its name, digest and record, the aliases on it, and its newest gate verdict."""

    name: str
    digest: str
    record: Record
    aliases: tuple[str, ...]
    verdict: str | None


def aliases(records: Iterable[Record]) -> dict[str, str]:
    """Return {alias: digest} after all moves in the ledger."""
    current: dict[str, str] = {}
    for record in records:
        if record.kind == "alias":
            current.update(record.body["figures"]["aliases"])
    return current


def versions(records: Iterable[Record]) -> list[Version]:
    """Return every artifact in the order of its first training."""
    known = list(records)
    where = aliases(known)
    verdicts = {r.body["inputs"]["artifact"]: r.body["figures"]["verdict"] for r in known if r.kind == "offline_report"}
    trained: dict[str, Record] = {}
    for record in known:
        if record.kind == "train":
            trained.setdefault(record.body["figures"]["artifact"], record)
    return [
        Version(
            name=record.subject,
            digest=digest,
            record=record,
            aliases=tuple(alias for alias in ALIASES if where.get(alias) == digest),
            verdict=verdicts.get(digest),
        )
        for digest, record in trained.items()
    ]


def resolve(records: Iterable[Record], reference: str) -> str:
    """Return the digest that an alias, a name (its newest version) or a digest of at least eight digits stands for.

    UnknownNameError lists the aliases in use and the names.
    """
    known = list(records)
    where, found = aliases(known), versions(known)
    if reference in where:
        return where[reference]
    by_name = [version.digest for version in found if version.name == reference]
    if by_name:
        return by_name[-1]
    by_digest = [version.digest for version in found if len(reference) >= 8 and version.digest.startswith(reference)]
    if len(by_digest) == 1:
        return by_digest[0]
    raise UnknownNameError("model", reference, {*where, *(version.name for version in found)})


def move_alias(ledger: Ledger, sources: Sources, alias: str, digest: str, *, because: str = "") -> Record:
    """Point an alias at an artifact in one append; when ``champion`` moves, ``previous`` takes what it pointed at.

    ``because`` is the hash of the record that asked for it, where one did.
    Raises UnknownNameError for another alias, IntegrityError for an artifact that is missing or damaged.
    """
    if alias not in ALIASES:
        raise UnknownNameError("alias", alias, ALIASES)
    artifact = load_artifact(sources, digest)
    before = aliases(ledger.records(kind="alias")).get(alias)
    inputs = {"alias": alias, "artifact": digest, "before": before, **({"because": because} if because else {})}
    return prove(
        ledger,
        sources,
        kind="alias",
        subject=artifact.name,
        provenance=artifact.data.provenance,
        inputs=inputs,
        derive=figures,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return where the aliases point after the move; the artifact must be there and whole."""
    artifact = load_artifact(sources, inputs["artifact"])
    moved = {inputs["alias"]: inputs["artifact"]}
    if inputs["alias"] == CHAMPION and inputs["before"] not in (None, inputs["artifact"]):
        load_artifact(sources, inputs["before"])
        moved[PREVIOUS] = inputs["before"]
    return {"aliases": moved, "version": artifact.name, "target": artifact.target}


def load_artifact(sources: Sources, digest: str) -> Artifact:
    """Return a stored artifact, verified against its digest."""
    return parse_artifact(
        sources.blobs.get("artifact", digest), expected_digest=digest, place=f"artifact {digest[:12]}…"
    )


def artifact_of(sources: Sources, records: Iterable[Record], reference: str) -> tuple[str, Artifact]:
    """Return (digest, artifact) of an alias, name or digest."""
    digest = resolve(records, reference)
    return digest, load_artifact(sources, digest)
