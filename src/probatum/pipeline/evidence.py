"""Prove a claim: compute its figures from named inputs, and append both to the chain in one record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probatum.core.canonical import canonical_json, parse_json, sha256_hex
from probatum.core.errors import OvertakenError, ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline.ports import Entry, Ledger, Record, Sources

GENESIS = "0" * 64
"""``prev`` of the first record, and the head of an empty chain."""

Derive = Callable[[dict[str, Any], Sources], dict[str, Any]]


def proven(
    sources: Sources, *, kind: str, subject: str, provenance: Provenance, inputs: dict[str, Any], derive: Derive
) -> Entry:
    """Return what :func:`prove` appends, for who appends several claims in one transaction."""
    seen = parse_json(canonical_json(inputs))
    return Entry(kind, subject, provenance, {"inputs": seen, "figures": derive(seen, sources)})


def prove(
    ledger: Ledger,
    sources: Sources,
    *,
    kind: str,
    subject: str,
    provenance: Provenance,
    inputs: dict[str, Any],
    derive: Derive,
) -> Record:
    """Append ``{"inputs": inputs, "figures": derive(inputs, sources)}``.

    ``derive`` sees the inputs as they will be read back (tuples are lists, 1.0 is 1), so a verifier who calls it again
    with the record's inputs gets the same figures. Raises ParameterError where an input or figure is not JSON-safe.
    """
    entry = proven(sources, kind=kind, subject=subject, provenance=provenance, inputs=inputs, derive=derive)
    return ledger.append(entry.kind, entry.subject, entry.provenance, entry.body)


def prove_once(
    ledger: Ledger,
    sources: Sources,
    *,
    kind: str,
    subject: str,
    provenance: Provenance,
    inputs: dict[str, Any],
    derive: Derive,
    standing: Callable[[list[Record]], Record | None],
) -> Record:
    """Append like :func:`prove`, unless one of the records of this kind and subject is ``standing`` for it already.

    Of two writers that saw the same records only the first appends; the other looks again.
    """
    seen = parse_json(canonical_json(inputs))
    while True:
        records = list(ledger.records(kind=kind, subject=subject))
        if (found := standing(records)) is not None:
            return found
        entry = Entry(kind, subject, provenance, {"inputs": seen, "figures": derive(seen, sources)})
        try:
            return ledger.append_all([entry], seen=records[-1].seq if records else 0)[0]
        except OvertakenError:
            continue


def same_inputs(inputs: dict[str, Any]) -> Callable[[list[Record]], Record | None]:
    """Return what finds the first record that was made of these inputs, for :func:`prove_once`."""
    seen = parse_json(canonical_json(inputs))
    return lambda records: next((record for record in records if record.body["inputs"] == seen), None)


def seal(seq: int, ts: str, kind: str, subject: str, provenance: Provenance, body: dict[str, Any], prev: str) -> Record:
    """Return the record that belongs at this place of the chain, with its hash.

    Every ledger makes its records here, so that chains do not depend on where they are stored.
    """
    if not kind or not subject or "\0" in kind + subject:
        raise ParameterError("kind and subject", "text that is not empty and holds no NUL", (kind, subject))
    if set(body) != {"inputs", "figures"}:
        raise ParameterError("body", "{'inputs': …, 'figures': …}", sorted(body))
    body = parse_json(canonical_json(body))
    return Record(
        seq,
        ts,
        kind,
        subject,
        provenance,
        body,
        prev,
        sha256_hex(preimage(seq, ts, kind, subject, provenance, canonical_json(body), prev)),
    )


def preimage(seq: int, ts: str, kind: str, subject: str, provenance: str, body: bytes, prev: str) -> bytes:
    """Return the bytes a record's hash is taken of: the canonical JSON of all its fields but ``hash``.

    ``body`` is canonical JSON already; it sorts first, so a ledger can check the bytes it stores without parsing them.
    """
    rest = {"kind": kind, "prev": prev, "provenance": str(provenance), "seq": seq, "subject": subject, "ts": ts}
    return b'{"body":' + body + b"," + canonical_json(rest)[1:]


def record_hash(record: Record) -> str:
    """Return the hash that a record's fields demand, whatever its ``hash`` says."""
    body = canonical_json(record.body)
    fields = (record.seq, record.ts, record.kind, record.subject, record.provenance, body, record.prev)
    return sha256_hex(preimage(*fields))
