"""Open what a user hands over (text, zip or gzip) and turn its text into columns, naming file, row and field of a fault."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from probatum.core.canonical import sha256_hex
from probatum.core.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from probatum.core.errors import DataError, ParameterError

MAX_BYTES = 2**31  # of one file, unpacked: a zip bomb ends here
MISSING = ["null", "None", "NA", "N/A"]
UNITS = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}
EARLIEST_NS, LATEST_NS = 315_532_800 * NS_PER_S, 4_102_444_800 * NS_PER_S  # 1980 to 2100: no unit fits two ways
_TIME = r"^(\d{4})-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(Z|UTC|[+-]\d\d:?\d\d)?$"


@dataclass(frozen=True)
class Text:
    """Hold a file's unpacked bytes. ``inner`` names the member of a zip; ``sealed``: the archive vouches for its end."""

    name: str
    inner: str
    data: bytes
    sha256: str
    sealed: bool

    @property
    def base(self) -> str:
        """Return the file's own name: records do not depend on the folder it lay in."""
        return Path(self.name).name


def open_text(path: Path) -> Text:
    """Read a file, unpacked where it is a zip with one member or a gzip.

    Raises DataError naming the file when it is missing, empty, cut short, damaged, or unpacks to more than 2 GiB.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=path) from None
    inner, data, sealed = path.name, raw, False
    if raw[:4] == b"PK\x03\x04" or path.suffix == ".zip":
        inner, data = _unzip(path, raw)
        sealed = True
    elif raw[:2] == b"\x1f\x8b" or path.suffix == ".gz":
        data, sealed = _gunzip(path, raw), True
    if not data.strip():
        raise DataError("the file is empty", file=path)
    return Text(str(path), inner, data, sha256_hex(raw), sealed)


def _unzip(path: Path, raw: bytes) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [item for item in archive.infolist() if not item.filename.endswith("/")]
            if len(members) != 1:
                raise DataError(f"the zip holds {len(members)} files, one is expected", file=path)
            if members[0].file_size > MAX_BYTES:
                raise DataError(f"unpacks to more than {MAX_BYTES} bytes", file=path)
            return members[0].filename, archive.read(members[0])
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        OSError,
        ValueError,
        LookupError,
        struct.error,
    ) as error:
        raise DataError(f"not a whole zip file: {printable(str(error))}", file=path) from None


def _gunzip(path: Path, raw: bytes) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = raw
    try:
        while rest:  # a gzip may have several members
            unpacker = zlib.decompressobj(wbits=31)
            parts.append(unpacker.decompress(rest, MAX_BYTES - size + 1))
            size += len(parts[-1])
            if size > MAX_BYTES:
                raise DataError(f"unpacks to more than {MAX_BYTES} bytes", file=path)
            if not unpacker.eof:
                raise DataError("the gzip file is cut short", file=path)
            rest = unpacker.unused_data
    except zlib.error as error:
        raise DataError(f"not a whole gzip file: {error}", file=path) from None
    return b"".join(parts)


def read_table(text: Text, columns: Sequence[str] | None) -> pl.DataFrame:
    """Return comma-separated text as columns of strings (null where empty) and ``row``, the line number.

    ``columns`` names them where the file has no header. A last line that no newline ends is flagged in ``flag`` (it may
    be cut) unless an archive vouches for it. Raises DataError when a line has too many fields, or the last too few.
    """
    try:
        frame = pl.read_csv(
            text.data,
            has_header=columns is None,
            infer_schema=False,
            null_values=MISSING,
            row_index_name="row",
            row_index_offset=2 if columns is None else 1,
        )
    except (pl.exceptions.PolarsError, UnicodeError, ValueError) as error:
        raise _table_error(text, str(error).splitlines()[0]) from None
    names = [name.strip().lower() for name in frame.columns[1:]]
    if columns is not None and len(names) != len(columns):
        raise DataError(f"{len(columns)} columns are expected, found {len(names)}", file=text.name, row=1)
    if columns is None and (len(set(names)) < len(names) or any("_duplicated_" in name for name in names)):
        raise DataError("two columns have the same name", file=text.name, row=1)
    frame.columns = ["row", *(columns or names)]
    if not frame.height:
        raise DataError("the file has a header and no rows", file=text.name)
    cut = not text.sealed and not text.data.endswith(b"\n")
    if cut and _fields(text.data.rsplit(b"\n", 1)[-1]) < _fields(text.data.split(b"\n", 1)[0]):
        raise DataError("the line ends early; the file was cut short", file=text.name, row=frame["row"][-1])
    last = pl.col("row") == frame["row"].max()
    reason = pl.lit("the last line has no end: it may be cut")
    return frame.with_columns(row=pl.col("row").cast(pl.Int64), flag=pl.when(last & pl.lit(cut)).then(reason))


def _fields(line: bytes) -> int:
    return line.count(b",") + 1


def _table_error(text: Text, message: str) -> DataError:
    """Name the row with too many fields, where that is what the parser stumbled over."""
    lines = text.data.splitlines()
    counts = np.array([_fields(line) for line in lines])
    longer = np.flatnonzero(counts > counts[0])
    if longer.size and b'"' not in text.data:
        row = int(longer[0])
        return DataError(f"{counts[row]} fields, {counts[0]} are expected", file=text.name, row=row + 1)
    return DataError(f"not comma-separated text in UTF-8: {printable(message)}", file=text.name)


def printable(text: str) -> str:
    """Return text from outside as one line that cannot style a terminal, at most 200 characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])


def require(text: Text, frame: pl.DataFrame, columns: Sequence[str]) -> None:
    """Raise DataError, listing what is there, when a column is missing."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        there = printable(", ".join(name for name in frame.columns if name not in ("row", "flag")))
        raise DataError(f"missing column {', '.join(missing)}; the file has: {there}", file=text.name, row=1)


def number(text: Text, frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a column as float64, null where it is empty; text in it raises DataError with row and value."""
    values = frame[column]
    if values.dtype.is_numeric():
        return values.cast(pl.Float64)
    stripped = _texts(text, frame, column)
    numbers = stripped.cast(pl.Float64, strict=False)
    refuse_rows(text, frame, column, numbers.is_null() & stripped.is_not_null(), "not a number")
    return numbers


def time_ns(
    text: Text,
    frame: pl.DataFrame,
    column: str,
    *,
    unit: str | None = None,
    zone: str | None = None,
    units: Sequence[str] = tuple(UNITS),
) -> tuple[pl.Series, str]:
    """Return a column of times as int64 ns UTC (null where empty), and the decision taken, in words.

    Numbers: in ``unit``, or the one unit of ``units`` that puts every row between 1980 and 2100. ISO text: with the
    same zone in every row, or none and ``zone`` (UTC when not given). Anything else raises DataError with its row.
    """
    values = frame[column]
    if isinstance(values.dtype, pl.Datetime):
        return _datetime_ns(text, frame, column, values, zone, values.dtype.time_zone)
    if values.dtype.is_integer():
        return _epoch_ns(text, frame, column, values.cast(pl.Int64, strict=False), unit, units)
    stripped = _texts(text, frame, column)
    digits = stripped.cast(pl.Int64, strict=False)
    if unit is not None or digits.drop_nulls().len() * 2 > stripped.drop_nulls().len():
        refuse_rows(text, frame, column, digits.is_null() & stripped.is_not_null(), "not a whole number of time units")
        return _epoch_ns(text, frame, column, digits, unit, units)
    return _iso_ns(text, frame, column, stripped, zone)


def _texts(text: Text, frame: pl.DataFrame, column: str) -> pl.Series:
    if frame[column].dtype != pl.String:
        raise DataError(f"the column is of type {frame[column].dtype}", file=text.name, field=column)
    stripped = frame[column].str.strip_chars()
    return stripped.set(stripped == "", None)


def refuse_rows(text: Text, frame: pl.DataFrame, column: str, bad: pl.Series, problem: str) -> None:
    """Raise DataError naming the first row where ``bad`` is true, the field and its value; null is not bad."""
    index = bad.fill_null(False).arg_max()
    if index is not None and bad[index]:
        value = str(frame[column][index])[:60]
        raise DataError(problem, file=text.name, row=int(frame["row"][index]), field=column, value=value)


def _epoch_ns(
    text: Text, frame: pl.DataFrame, column: str, values: pl.Series, unit: str | None, units: Sequence[str]
) -> tuple[pl.Series, str]:
    if unit is not None and unit not in UNITS:
        raise ParameterError("time unit", f"one of {', '.join(UNITS)}", unit)
    first = values.drop_nulls()
    found = unit or next((name for name in UNITS if first.len() and _plausible(first[0], UNITS[name])), None)
    if found is None:
        refuse_rows(text, frame, column, values.is_not_null(), "a time outside 1980 to 2100 in s, ms, us and ns")
        return values, f"{column}: empty"
    if found not in units:
        problem = f"times in {found}; this format has {' or '.join(units)}"
        refuse_rows(text, frame, column, values.is_not_null(), problem)
    scale = UNITS[found]
    inside = values.is_between(EARLIEST_NS // scale, LATEST_NS // scale)
    refuse_rows(text, frame, column, ~inside, f"a time outside 1980 to 2100 in {found}, the unit of the rows before")
    how = "as told" if unit else "detected by magnitude"
    return values * scale, f"{column}: whole numbers of {found} since 1970 UTC, {how}"


def _plausible(value: int, scale: int) -> bool:
    return EARLIEST_NS <= value * scale <= LATEST_NS


def _iso_ns(text: Text, frame: pl.DataFrame, column: str, values: pl.Series, zone: str | None) -> tuple[pl.Series, str]:
    groups = values.str.extract_groups(_TIME).struct.unnest()
    year, offset = groups.to_series(0).cast(pl.Int32, strict=False), groups.to_series(1).fill_null("")
    refuse_rows(text, frame, column, year.is_null() & values.is_not_null(), "not an ISO 8601 time")
    refuse_rows(text, frame, column, ~year.is_between(1980, 2099), "a year outside 1980 to 2099")
    offset = offset.replace({"Z": "+0000", "UTC": "+0000"}).str.replace(":", "")
    zones = offset.filter(values.is_not_null())
    own = str(zones[0]) if zones.len() else ""
    refuse_rows(
        text, frame, column, (offset != own) & values.is_not_null(), "another time zone than in the rows before"
    )
    local = values.str.replace("T", " ").str.replace(r"\s?(Z|UTC|[+-]\d\d:?\d\d)$", "")
    seconds = local.set(local.str.len_bytes() == 16, None).fill_null(local + ":00")
    times = seconds.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    refuse_rows(text, frame, column, times.is_null() & values.is_not_null(), "a date or time that does not exist")
    if not own:
        return _datetime_ns(text, frame, column, times, zone, None)
    sign = -1 if own[0] == "-" else 1
    shift_ns = sign * (int(own[1:3]) * 60 + int(own[3:5])) * 60 * NS_PER_S
    return times.cast(pl.Int64) - shift_ns, f"{column}: ISO text with the zone {own[:3]}:{own[3:]}"


def _datetime_ns(
    text: Text, frame: pl.DataFrame, column: str, times: pl.Series, zone: str | None, own: str | None
) -> tuple[pl.Series, str]:
    inside = times.dt.epoch("s").is_between(EARLIEST_NS // NS_PER_S, LATEST_NS // NS_PER_S)
    refuse_rows(text, frame, column, ~inside, "a time outside 1980 to 2100")
    nanoseconds = times.cast(pl.Datetime("ns", own))
    if own is not None:
        decision = f"{column}: times with the zone {own}"
    else:
        try:
            nanoseconds = nanoseconds.dt.replace_time_zone(zone or "UTC", ambiguous="null", non_existent="null")
        except pl.exceptions.PolarsError:
            raise ParameterError("time zone", "an IANA time zone such as America/New_York", zone) from None
        missing = nanoseconds.is_null() & times.is_not_null()
        refuse_rows(text, frame, column, missing, f"a time that {zone or 'UTC'} has twice or not at all")
        decision = f"{column}: times without a zone, read as {zone or 'UTC (not told otherwise)'}"
    return nanoseconds.dt.epoch("ns"), decision
