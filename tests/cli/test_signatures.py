"""Signed heads: a cut or rewritten chain is found even where the exported files were cut with it."""

from __future__ import annotations

import builtins
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probatum.cli.evidence import evidence
from probatum.cli.workspace import Workspace
from probatum.core.errors import IntegrityError, MissingExtraError, ParameterError, StorageError
from probatum.core.verdict import Provenance


def run(*arguments: object) -> str:
    done = CliRunner().invoke(evidence, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of three records, signed after the second and the third, and two pairs of keys."""
    for name in ("ada", "eve"):
        key = tmp_path / f"{name}.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", tmp_path / f"{name}.pub"], check=True)
    place = Workspace(tmp_path / "w")
    for number in range(3):
        place.ledger.append("verification", "chain", Provenance.SYNTHETIC, {"inputs": {"n": number}, "figures": {}})
        if number:
            assert f"record {number + 1}" in run("sign", "--key", tmp_path / "ada.pem", "-w", place.root)
    return place.root


def findings(root: Path, name: str = "ada", *more: object) -> list[dict[str, str]]:
    """Return what is found of signatures; the made-up records have no figures that could be recomputed."""
    said = json.loads(run("verify", "--public-key", root.parent / f"{name}.pub", *more, "-w", root, "-o", "json"))
    return [item for item in said["findings"] if "(" not in item["place"]]


def cut(root: Path, keep: int) -> None:
    """Take the last records off, as somebody with the file would: the triggers away, and there again."""
    database = sqlite3.connect(root / "ledger.db")
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    database.execute("DELETE FROM records WHERE seq > ?", (keep,))
    for _, sql in triggers:
        database.execute(sql)
    database.commit()
    database.close()


def test_a_signed_chain_verifies_and_what_came_later_is_told(root: Path) -> None:
    """No finding; one record more is a note, not a finding."""
    assert findings(root) == []
    Workspace(root).ledger.append("verification", "chain", Provenance.SYNTHETIC, {"inputs": {}, "figures": {}})
    assert findings(root) == []
    assert "records after 3 are not signed: 1" in run(
        "verify", "--public-key", root.parent / "ada.pub", "-w", root, "-o", "json"
    )


def test_a_cut_chain_is_found(root: Path) -> None:
    """The shorter chain is whole, and its files are gone: the signature over record 3 says so."""
    cut(root, 2)
    (found,) = findings(root)
    assert found["place"] == "record 3"
    assert "it was cut" in found["problem"]


def test_a_copy_kept_elsewhere_finds_what_was_cut_with_its_signatures(root: Path, tmp_path: Path) -> None:
    """Who cuts the chain cuts the signatures too; the copy does not forget, and no signature at all is a finding."""
    kept = Path(shutil.copy(root / "signatures.jsonl", tmp_path / "kept.jsonl"))
    cut(root, 2)
    (root / "signatures.jsonl").write_bytes(kept.read_bytes().splitlines(keepends=True)[0])
    assert findings(root) == []
    assert "it was cut" in findings(root, "ada", "--signatures", kept)[0]["problem"]
    (root / "signatures.jsonl").unlink()
    assert "removed" in findings(root)[0]["problem"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line | {"head": "0" * 64}, "was changed"),
        (lambda line: line | {"seq": 1}, "was changed"),
        (lambda line: line | {"ts": "2020-01-01T00:00:00Z"}, "was changed"),
        (lambda line: line | {"signature": "zz"}, "was changed"),
        (lambda line: dict.fromkeys(line, 3), "no signature"),
    ],
)
def test_a_changed_signature_is_found(root: Path, change: Any, problem: str) -> None:
    """Each field is signed; a line that is none is named."""
    path = root / "signatures.jsonl"
    first, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(change(json.loads(last)))}\n")
    (found,) = findings(root)
    assert problem in found["problem"]


def test_another_key_proves_nothing(root: Path) -> None:
    """Eve's public key finds none of hers; her signature beside Ada's is a note. A rewritten chain is found."""
    assert "no signature by this key" in findings(root, "eve")[0]["problem"]
    run("sign", "--key", root.parent / "eve.pem", "-w", root)
    assert findings(root) == []
    cut(root, 1)
    place = Workspace(root)
    for number in (7, 8):
        place.ledger.append("verification", "chain", Provenance.SYNTHETIC, {"inputs": {"n": number}, "figures": {}})
    assert {item["place"] for item in findings(root) if "rewritten" in item["problem"]} == {"record 2", "record 3"}


def test_keys_that_are_none_are_refused(root: Path, tmp_path: Path) -> None:
    """A public key is no private one, RSA is not Ed25519, a password is not asked for, text is no key."""
    rsa, locked, text = (tmp_path / name for name in ("rsa.pem", "locked.pem", "text.pem"))
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", rsa], check=True, capture_output=True)
    command = ["openssl", "pkey", "-in", tmp_path / "ada.pem", "-aes256", "-passout", "pass:abcd", "-out", locked]
    subprocess.run(command, check=True)
    text.write_text("no key")
    before = (root / "signatures.jsonl").read_bytes()
    for key in (tmp_path / "ada.pub", rsa, locked, text):
        with pytest.raises(ParameterError, match="key"):
            run("sign", "--key", key, "-w", root)
    with pytest.raises(ParameterError, match="public_key"):
        run("verify", "--public-key", tmp_path / "ada.pem", "-w", root)
    with pytest.raises(ParameterError, match="public-key"):
        run("verify", "--signatures", root / "signatures.jsonl", "-w", root)
    assert (root / "signatures.jsonl").read_bytes() == before


def test_a_disk_that_refuses_is_said(root: Path) -> None:
    """Where the line cannot be written the command says so."""
    (root / "signatures.jsonl").unlink()
    (root / "signatures.jsonl").mkdir()
    with pytest.raises(StorageError):
        run("sign", "--key", root.parent / "ada.pem", "-w", root)


def test_without_the_extra_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cryptography is not installed the message names the extra, and plain verification still works."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "probatum.adapters.signing", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"probatum\[sign\]"):
        run("sign", "--key", root.parent / "ada.pem", "-w", root)
    with pytest.raises(IntegrityError):  # the made-up figures
        run("verify", "-w", root)
