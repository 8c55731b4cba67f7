"""Keep a picture of the dashboard as evidence of each canary phase; where none could be taken the record says why.

Figures of ``dashboard_picture``: ``taken``, ``reason``, ``bytes``, ``width`` and ``height`` in pixels, read from the PNG itself.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from probatum.core.errors import IntegrityError
from probatum.pipeline.evidence import proven
from probatum.pipeline.ports import Record, Sources

KIND = "dashboard_picture"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">8sI4sII")


class Shot(msgspec.Struct, frozen=True):
    """Hold the bytes of a PNG, or the reason why there are none."""

    png: bytes | None
    reason: str


def png_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG from its head, None where it is none.

    >>> png_size(b"\\x89PNG\\r\\n\\x1a\\n\\x00\\x00\\x00\\rIHDR\\x00\\x00\\x05\\x00\\x00\\x00\\x03\\x20")
    (1280, 800)
    """
    if len(data) < _HEAD.size:
        return None
    signature, length, chunk, width, height = _HEAD.unpack_from(data)
    whole = (signature, length, chunk) == (_SIGNATURE, 13, b"IHDR") and width and height
    return (width, height) if whole else None


def record_picture(sources: Sources, rollout: str, event: Record, url: str, shot: Shot) -> Record | None:
    """Append the picture of one phase's end, once for each event; None where there is one already.

    Raises OvertakenError where another process appended one of this rollout meanwhile.
    """
    found = list(sources.ledger.records(kind=KIND, subject=rollout))
    if any(record.body["inputs"]["event"] == event.hash for record in found):
        return None
    told = {"rollout": rollout, "event": event.hash, "url": url}
    if shot.png is None:
        inputs = {**told, "reason": shot.reason}
    elif png_size(shot.png) is None:
        inputs = {**told, "reason": "what the browser wrote is no PNG"}
    else:
        inputs = {**told, "picture": sources.blobs.put("picture", shot.png)}
    entry = proven(sources, kind=KIND, subject=rollout, provenance=event.provenance, inputs=inputs, derive=figures)
    return sources.ledger.append_all([entry], seen=found[-1].seq if found else 0)[0]


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Read bytes and size from the picture itself."""
    if "picture" not in inputs:
        return {"taken": False, "reason": inputs["reason"], "bytes": 0, "width": None, "height": None}
    data = sources.blobs.get("picture", inputs["picture"])
    if (size := png_size(data)) is None:
        raise IntegrityError(f"picture {inputs['picture'][:12]}…", "not a PNG")
    return {"taken": True, "reason": "", "bytes": len(data), "width": size[0], "height": size[1]}
