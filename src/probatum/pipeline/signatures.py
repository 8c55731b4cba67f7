"""Hold a chain to the heads that somebody signed: what was signed must still stand there.

A chain alone cannot tell that its end was cut off; a signature over number and hash of a record can. It must only not be
lost with the chain: whoever keeps ``signatures.jsonl``, or its last line, elsewhere can prove what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from probatum.core.canonical import canonical_json
from probatum.pipeline.ports import Record
from probatum.pipeline.verify import Finding

FILE = "signatures.jsonl"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold one signature: at ``ts`` record ``seq`` was the head ``head``. ``key`` is the digest of the public key's bytes."""

    seq: int
    head: str
    ts: str
    key: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """Return the bytes that are signed: all that is said, under a name that no other use of the key shares."""
        said = {"seq": self.seq, "head": self.head, "ts": self.ts, "key": self.key}
        return b"probatum chain head\n" + canonical_json(said)


def read_signatures(data: bytes) -> Iterator[Signature | Finding]:
    """Yield each line's signature, or what is wrong with the line."""
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield msgspec.json.decode(line, type=Signature)
        except msgspec.MsgspecError as error:
            yield Finding(f"{FILE}, line {number}", f"no signature: {error}")


def check_signatures(
    lines: Sequence[Signature | Finding], records: Sequence[Record], key: str, is_valid: Callable[[Signature], bool]
) -> tuple[list[Finding], list[str]]:
    """Return findings and notes of a chain's signatures by one key; that there is none is a finding."""
    found = [line for line in lines if isinstance(line, Finding)]
    mine = [line for line in lines if isinstance(line, Signature) and line.key == key]
    others = len(lines) - len(found) - len(mine)
    notes = [f"{others} signatures are by other keys, not checked"] if others else []
    problems = [(item, _problem(item, records, is_valid)) for item in mine]
    found += [Finding(f"record {item.seq}", problem) for item, problem in problems if problem]
    signed = max((item.seq for item, problem in problems if not problem), default=0)
    if not mine:
        found.append(
            Finding(FILE, "no signature by this key: it never signed this chain, or its signatures were removed")
        )
    elif signed < len(records):
        notes.append(f"records after {signed} are not signed: {len(records) - signed}")
    return found, notes


def _problem(item: Signature, records: Sequence[Record], is_valid: Callable[[Signature], bool]) -> str:
    if not is_valid(item):
        return "a signature over it was changed, or is not by the key that it names"
    if not 0 < item.seq <= len(records):
        return f"signed at {item.ts}; the chain ends at {len(records)}: it was cut"
    same = records[item.seq - 1].hash == item.head
    return "" if same else f"is not what was signed at {item.ts}: the chain was rewritten"
