"""Publish what executors may do, as records of the chain: nobody can serve a share that the ledger does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from probatum.core.errors import IntegrityError, ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline.ports import Entry, Ledger, Record, Sources
from probatum.rollout.lease import RolloutDocument

KIND = "rollout_document"


def document_entry(document: RolloutDocument, subject: str, provenance: Provenance) -> Entry:
    """Return a document as it enters the ledger; its sequence will be its record's number."""
    inputs = msgspec.to_builtins(document)
    del inputs["sequence"]
    return Entry(KIND, subject, provenance, {"inputs": inputs, "figures": {}})


def publish(
    ledger: Ledger,
    document: RolloutDocument,
    *,
    subject: str,
    provenance: Provenance,
    because: Sequence[Entry] = (),
    epoch: int | None = None,
    seen: int | None = None,
) -> tuple[Record, ...]:
    """Append a document after the records that it follows ``because`` of, in one transaction; executors then follow it.

    No crash can part the event from its share, so the ledger never says 0 while executors are still told 5. ``epoch``
    and ``seen`` are those of :meth:`Ledger.append_all`. The last record's ``seq`` is what executors show as applied.
    """
    return ledger.append_all([*because, document_entry(document, subject, provenance)], epoch=epoch, seen=seen)


def read_document(record: Record) -> RolloutDocument:
    """Return the document of a record; IntegrityError where it holds none."""
    try:
        document = msgspec.convert(record.body["inputs"], RolloutDocument)
    except (msgspec.ValidationError, ParameterError) as error:
        raise IntegrityError(f"record {record.seq} ({record.kind})", f"not a rollout document: {error}") from None
    return msgspec.structs.replace(document, sequence=record.seq)


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Return no figures: a document is an order, not a measurement. It must be one, though."""
    msgspec.convert(inputs, RolloutDocument)
    return {}
