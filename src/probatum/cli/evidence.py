"""List, show, verify and export what was proven."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from probatum.cli.common import output_option, print_json, print_table, print_written, progress, workspace_option
from probatum.cli.workspace import Workspace
from probatum.core.errors import DataError, InconclusiveError, IntegrityError, ParameterError, UnknownNameError
from probatum.pipeline.ports import Record

if TYPE_CHECKING:
    from probatum.pipeline.verify import Verification


@click.group()
def evidence() -> None:
    """List, show, verify and export what was proven.

    \b
    Examples:
      probatum evidence ls --kind offline_report
      probatum evidence verify && probatum evidence report
    """


@evidence.command("ls")
@click.option("--kind", help="Only records of this kind.")
@workspace_option
@output_option
def list_records(kind: str | None, workspace: Path, output: str) -> None:
    """List the records of the chain.

    \b
    Examples:
      probatum evidence ls
      probatum evidence ls --kind psi_snapshot -o json
    """
    if kind is not None:
        _check_kind(kind)
    records = list(Workspace(workspace).ledger.records(kind=kind))
    if output == "json":
        print_json([_heading(record) for record in records])
        return
    rows = [(r.seq, r.ts, r.kind, r.subject, r.provenance.upper(), _verdict(r), r.hash[:12]) for r in records]
    print_table("", ["seq", "time", "kind", "subject", "data", "verdict", "hash"], rows)


@evidence.command()
@click.argument("record")
@workspace_option
@output_option
def show(record: str, workspace: Path, output: str) -> None:  # noqa: ARG001
    """Print one whole record, as JSON either way: by number, or the newest of a kind.

    \b
    Examples:
      probatum evidence show 7
      probatum evidence show offline_report
    """
    found = _find(Workspace(workspace), record)
    print_json(msgspec.to_builtins(found))


_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@evidence.command()
@click.option("--key", type=_file, required=True, help="PEM file with the Ed25519 private key.")
@workspace_option
@output_option
def sign(key: Path, workspace: Path, output: str) -> None:
    """Sign the head of the chain as it stands, and append that to signatures.jsonl; verify it first, and keep a copy elsewhere.

    \b
    Examples:
      openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
      probatum evidence verify && probatum evidence sign --key key.pem
    """
    from probatum.adapters.signing import Signer, append_signature
    from probatum.core.clock import format_utc
    from probatum.pipeline.signatures import FILE

    space = Workspace(workspace)
    records = list(space.ledger.records())
    if not records:
        raise InconclusiveError(f"{workspace}: holds no record; there is nothing to sign")
    item = Signer(key).sign(records[-1].seq, records[-1].hash, format_utc(space.clock.now_ns()))
    append_signature(workspace / FILE, item)
    print_json(msgspec.to_builtins(item)) if output == "json" else click.echo(f"signed: record {item.seq}, {item.head}")


@evidence.command()
@click.option(
    "--public-key", type=_file, help="PEM file with the Ed25519 public key: hold the chain to its signatures."
)
@click.option("--signatures", type=_file, help="A copy that was kept elsewhere.  [default: WORKSPACE/signatures.jsonl]")
@workspace_option
@output_option
def verify(public_key: Path | None, signatures: Path | None, workspace: Path, output: str) -> None:
    """Recompute the chain, every digest and every figure, and compare the exported files.

    Exits 1 at a difference, 3 where there is no record to verify.

    \b
    Examples:
      probatum evidence verify
      probatum evidence verify -w /mnt/audit/workspace -o json
      probatum evidence verify --public-key public.pem --signatures /mnt/kept/signatures.jsonl
    """
    from probatum.pipeline.verify import verify as verify_chain

    place = Workspace(workspace)
    if not next(place.ledger.records(), None):
        raise InconclusiveError(f"{workspace}: holds no record; an empty chain proves nothing")
    exported = {name: place.evidence.read(name) or b"" for name in place.evidence.names()}
    with progress() as bars:
        result = verify_chain(place.ledger, place, bars, exported=exported)
    if public_key is not None:
        result = _hold_to_signatures(place, result, public_key, signatures)
    elif signatures is not None:
        raise ParameterError("public-key", "given with --signatures", None)
    if output == "json":
        print_json({**msgspec.to_builtins(result), "ok": result.ok})
        sys.exit(0 if result.ok else 1)
    counts = [result.records, result.blobs_checked, result.figures_checked, result.files_checked]
    print_table("", ["records", "blobs", "figures recomputed", "exported files"], [counts])
    for note in result.notes:
        click.echo(f"note: {note}")
    for finding in result.findings:
        click.echo(f"bad: {finding.place}: {finding.problem}")
    if result.findings:
        first = result.findings[0]
        raise IntegrityError(first.place, f"{first.problem} ({len(result.findings)} in all)")
    click.echo(f"verified: head {result.head}")


def _hold_to_signatures(place: Workspace, result: Verification, public_key: Path, kept: Path | None) -> Verification:
    from probatum.adapters.signing import Checker
    from probatum.pipeline.signatures import FILE, check_signatures, read_signatures

    checker, file = Checker(public_key), kept or place.root / FILE
    lines = list(read_signatures(file.read_bytes())) if file.exists() else []
    try:
        records = list(place.ledger.records())
    except IntegrityError:
        return result  # the chain cannot be read, and that was found
    findings, notes = check_signatures(lines, records, checker.key, checker.is_valid)
    return msgspec.structs.replace(result, findings=(*result.findings, *findings), notes=(*result.notes, *notes))


@evidence.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@output_option
def lint(file: Path, output: str) -> None:
    """Find figures in a report (Markdown or JSON) that cannot be true together. Exits 1 where there are any.

    \b
    Examples:
      probatum evidence lint report.md
      probatum evidence lint workspace/evidence/ml/canary_run.json -o json
    """
    from probatum.pipeline.evidence_lint import lint_report

    found = lint_report(read_text_file(file), place=str(file))
    if output == "json":
        print_json(msgspec.to_builtins(found))
    else:
        rows = [(item.line, item.problem) for item in found]
        print_table("" if rows else "nothing found", ["line", "problem"], rows)
    if found:
        raise IntegrityError(f"{file}, line {found[0].line}", f"{found[0].problem} ({len(found)} in all)")


REPORT_BYTES_MAX = 16 * 1024 * 1024


def read_text_file(file: Path) -> str:
    """Return a foreign report's text; DataError where it is too large or not UTF-8."""
    if file.stat().st_size > REPORT_BYTES_MAX:
        raise DataError(f"larger than {REPORT_BYTES_MAX // 1024 // 1024} MB", file=file)
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", file=file) from None


@evidence.command("export")
@workspace_option
@output_option
def export_command(workspace: Path, output: str) -> None:
    """Write the files of evidence/ml from the chain.

    \b
    Examples:
      probatum evidence export
    """
    paths = export_evidence(Workspace(workspace))
    if output == "json":
        print_json([str(path) for path in paths])
    else:
        print_table("", ["file"], [[path] for path in paths])


@evidence.command()
@workspace_option
@output_option
def report(workspace: Path, output: str) -> None:
    """Write the HTML report (and the files beside it) and print its path.

    \b
    Examples:
      xdg-open "$(probatum evidence report)"
    """
    path = next(path for path in export_evidence(Workspace(workspace)) if path.name == "report.html")
    print_written(path, output)


def export_evidence(workspace: Workspace) -> list[Path]:
    """Export the whole chain to the workspace's evidence folder; every command that appends ends with this."""
    from probatum.pipeline.export import export

    return workspace.evidence.write(export(list(workspace.ledger.records()), workspace.blobs))


def _find(workspace: Workspace, name: str) -> Record:
    if name.isascii() and name.isdigit():
        records = list(workspace.ledger.records())
        found = next((record for record in records if record.seq == int(name)), None)
        if found is None:
            raise UnknownNameError("record", name, [f"1 to {len(records)}"] if records else [])
        return found
    _check_kind(name)
    of_kind = list(workspace.ledger.records(kind=name))
    if not of_kind:
        raise UnknownNameError("record of kind", name, {record.kind for record in workspace.ledger.records()})
    return of_kind[-1]


def _check_kind(name: str) -> None:
    from probatum.pipeline.kinds import get_kind

    get_kind(name)


def _heading(record: Record) -> dict[str, object]:
    heading = {name: getattr(record, name) for name in ("seq", "ts", "kind", "subject", "provenance", "prev", "hash")}
    return {**heading, "verdict": _verdict(record) or None}


def _verdict(record: Record) -> str:
    return str(record.body["figures"].get("verdict", ""))
