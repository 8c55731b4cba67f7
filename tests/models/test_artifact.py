"""An artifact is data under a digest: whatever else the bytes are, the error names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.errors import IntegrityError
from probatum.models.artifact import FixedModel, parse_artifact
from probatum.models.scoring import compile_scorer
from probatum.testing.models import toy_artifact

WHOLE = toy_artifact(FixedModel((1.0, 2.0)), ("a", "b"))


def test_bytes_and_digest_round_trip() -> None:
    """Reading the bytes under their digest gives the artifact back, and the same digest."""
    again = parse_artifact(WHOLE.to_bytes(), expected_digest=WHOLE.digest, place="x")
    assert again == WHOLE
    assert again.digest == WHOLE.digest


@settings(max_examples=200)
@given(place=st.integers(0, len(WHOLE.to_bytes()) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    """No bit of an artifact can change under its digest."""
    data = bytearray(WHOLE.to_bytes())
    data[place] ^= 1 << bit
    with pytest.raises(IntegrityError, match="blob 7"):
        parse_artifact(bytes(data), expected_digest=WHOLE.digest, place="blob 7")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(WHOLE.to_bytes()) - 1), byte=st.integers(0, 255))
def test_hostile_bytes_are_an_artifact_or_an_error(place: int, byte: int) -> None:
    """Without a digest to hold them to, changed bytes still give a usable scorer or an IntegrityError, never a crash."""
    data = bytearray(WHOLE.to_bytes())
    data[place] = byte
    try:
        scorer = compile_scorer(parse_artifact(bytes(data), expected_digest=None, place="x"))
    except IntegrityError:
        return
    assert 0.0 <= scorer([0.0] * 2) <= 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "probatum.artifact/2"},
        {"features": {"set": "x", "names": [], "fingerprint": "0"}},
        {"features": {"set": "x", "names": ["a", "a"], "fingerprint": "0"}},
        {"model": {"type": "pickle", "text": "gASVAAAA"}},
        {"model": {"type": "fixed", "weights": ["1"]}},
        {"metrics": {"auc": None}},
        {"split": 3},
    ],
)
def test_other_shapes_are_refused(change: dict[str, Any]) -> None:
    """Another schema, kind of model, type or set of names is refused by name."""
    data = json.dumps({**json.loads(WHOLE.to_bytes()), **change}).encode()
    with pytest.raises(IntegrityError, match="here"):
        parse_artifact(data, expected_digest=None, place="here")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[" * 100_000, b'{"split":' * 100_000, b"\xff\xfe", b'{"name": "\xff"}']
)
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    """Truncated, deep and undecodable bytes are an IntegrityError."""
    with pytest.raises(IntegrityError):
        parse_artifact(data, expected_digest=None, place="x")
