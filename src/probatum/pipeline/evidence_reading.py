"""Read a report of anybody's, Markdown or JSON, into figures that keep their line and the precision they were written with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from probatum.core.errors import DataError

BYTES_MAX = 5_000_000
# What a report may hold without being a riddle: nesting, the length of a line that is read, the size of a figure.
_DEPTH_MAX = 60
_LINE_MAX = 2_000
_LABEL_MAX = 200
_NUMBER_MAX = 1e18

_NUMBER = re.compile(r"(?<![\w.])(?:[<>~≈=]*\s*)?(-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(%?)")
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*%?\s*[-–]\s*(\d+(?:\.\d+)?)\s*(%?)")
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}|\b\d{1,2}:\d{2}\b")
_TOKEN = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.)*)"|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(true|false|null|NaN|-?Infinity)|([\[\]{},:]))'
)
_PATH = re.compile(r"[^.\[\]]+|\[\d+\]")
_BULLET = re.compile(r"\s*(?:[-*+]|\d+\.)\s+(?:\[[ xX]\]\s*)?(.+)")
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?\s+(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*$")
_MARKS = re.compile(r"[*`\\]|[^\x00-\x7f–≥≤]")


class Leaf(msgspec.Struct, frozen=True):
    """Hold one figure or text. ``half`` is half a unit of its last written digit, ``high`` the end of a range."""

    line: int
    text: str
    number: float | None = None
    half: float = 0.0
    percent: bool = False
    high: float | None = None

    @property
    def value(self) -> float:
        """Return the number, a percentage as a fraction; 0 for text, which :func:`numeric` keeps out."""
        number = self.number or 0.0
        return number / 100.0 if self.percent else number

    @property
    def share_half(self) -> float:
        """Return the rounding of :attr:`value`."""
        return self.half / 100.0 if self.percent else self.half


class Object(msgspec.Struct, frozen=True):
    """Hold named values: a JSON object, a table of figures, a row of a table, or a list of bullets."""

    line: int
    items: Mapping[str, Value]

    def number(self, *names: str) -> Leaf | None:
        """Return the first of these that is one number."""
        return next((found for name in names if (found := numeric(self.items.get(name))) is not None), None)

    def text(self, *names: str) -> Leaf | None:
        """Return the first of these that is a figure or text."""
        return next((item for name in names if isinstance(item := self.items.get(name), Leaf)), None)

    def says(self, name: str, text: str) -> bool:
        """Say whether a name holds this very text, in any case of letters."""
        found = self.text(name)
        return found is not None and found.text.lower() == text

    def child(self, name: str) -> Object:
        """Return the object of this name, or an empty one."""
        found = self.items.get(name)
        return found if isinstance(found, Object) else Object(self.line, {})

    def array(self, name: str) -> Array:
        """Return the array of this name, or an empty one."""
        found = self.items.get(name)
        return found if isinstance(found, Array) else Array(self.line, [])


class Array(msgspec.Struct, frozen=True):
    """Hold values in order: a JSON array, or the rows of a table."""

    line: int
    items: Sequence[Value]

    @property
    def objects(self) -> list[Object]:
        """Return the objects among the values."""
        return [item for item in self.items if isinstance(item, Object)]

    def column(self, name: str) -> list[Leaf]:
        """Return one number of each object; empty unless every value has it."""
        found = [leaf for item in self.objects if (leaf := item.number(name)) is not None]
        return found if len(found) == len(self.items) else []


Value: TypeAlias = Leaf | Object | Array


class Finding(msgspec.Struct, frozen=True, order=True):
    """Hold one contradiction: its line, the rule that found it, and what does not go together."""

    line: int
    rule: str
    problem: str


class Section(msgspec.Struct, frozen=True):
    """Hold what stands under one heading, the deeper headings' own sections apart. ``chapter`` counts level-2 headings."""

    line: int
    title: str
    chapter: int
    values: list[Value]
    lines: list[tuple[int, str]]


class Report(msgspec.Struct, frozen=True):
    """Hold a whole report; a JSON file is one section without text."""

    sections: list[Section]

    @property
    def objects(self) -> Iterator[Object]:
        """Yield every object of the report."""
        for section in self.sections:
            for value in section.values:
                yield from walk(value)


def read_report(text: str, *, place: str) -> Report:
    """Read a report; DataError for one that is too large, or that begins as JSON and is none."""
    if len(text) > BYTES_MAX:
        raise DataError(f"report is longer than {BYTES_MAX:,} characters", file=place)
    if text.lstrip()[:1] in ("{", "["):
        return Report([Section(1, place, 0, [read_json(text, 1, place)], [])])
    return Report(list(_sections([line[:_LINE_MAX] for line in text.splitlines()], place)))


def leaf(text: str, line: int) -> Leaf:
    """Read a cell: its first number with its precision, or text.

    >>> leaf("**2.64ms**", 3).number, leaf("97.3-99.5%", 3).high, leaf("11 (1.1%)", 3).number, leaf("~3ms", 3).number
    (2.64, 99.5, 11.0, None)
    """
    plain = _MARKS.sub("", text).strip()
    if _DATE.search(plain):
        return Leaf(line, plain)
    if match := _RANGE.search(plain):
        low, high, percent = match.groups()
        return msgspec.structs.replace(_figure(plain, low, line, percent=bool(percent)), high=float(high))
    match = _NUMBER.search(plain)
    vague = match is not None and (
        plain[match.start() : match.start() + 1] in "<>~≈=" or plain[match.end() :][:1] == "/"
    )
    if match is None or vague or not match[1].strip(","):
        return Leaf(line, plain)
    return _figure(plain, match[1].replace(",", ""), line, percent=bool(match[2]))


def _figure(text: str, digits: str, line: int, *, percent: bool = False) -> Leaf:
    number = float(digits)
    mantissa, _, exponent = digits.lower().partition("e")
    if not abs(number) <= _NUMBER_MAX or len(exponent) > 4:
        return Leaf(line, text)  # beyond what anybody counts
    decimals = len(mantissa.partition(".")[2])
    half = 0.5 * 10.0 ** min(int(exponent or 0) - decimals, 18) if decimals or exponent else 0.0
    return Leaf(line, text, number, half, percent)


def name_of(text: str) -> str:
    """Return a label as a name: ``**Latency P95**`` and ``latency_p95`` are one.

    >>> name_of("**Latency P95**"), name_of("Success Rate (%)"), name_of("P95 (ms)")
    ('latency_p95', 'success_rate', 'p95')
    """
    plain = re.sub(r"\([^)]*\)", "", _MARKS.sub("", text[:_LABEL_MAX])).lower()
    return re.sub(r"[^a-z0-9#.\[\]]+", "_", plain).strip("_.")


def numeric(value: Value | None) -> Leaf | None:
    """Return a value that is one number, no range and no text."""
    return value if isinstance(value, Leaf) and value.number is not None and value.high is None else None


def walk(value: Value) -> Iterator[Object]:
    """Yield every object in a value."""
    if isinstance(value, Object):
        yield value
    children = value.items.values() if isinstance(value, Object) else value.items if isinstance(value, Array) else ()
    for child in children:
        yield from walk(child)


def read_json(text: str, first_line: int, place: str) -> Value:
    """Read JSON and keep each value's line; DataError names the line where it stops being JSON."""
    return _JsonReader(text, first_line, place).read()


class _JsonReader:
    def __init__(self, text: str, line: int, place: str) -> None:
        self._text, self._line, self._place = text, line, place
        self._at = 0

    def read(self) -> Value:
        value = self._value(self._next(), 0)
        if self._text[self._at :].strip():
            raise self._bad("text after the end")
        return value

    def _next(self) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._bad("not JSON")
        self._line += self._text.count("\n", self._at, match.end())
        self._at = match.end()
        kind = match.lastindex or 0
        return "snwp"[kind - 1], match[kind]

    def _value(self, token: tuple[str, str], depth: int) -> Value:
        kind, text = token
        if depth > _DEPTH_MAX:
            raise self._bad("nested too deeply")
        if kind == "p" and text in "{[":
            return self._object(depth) if text == "{" else self._array(depth)
        if kind == "p":
            raise self._bad(f"unexpected {text!r}")
        if kind != "n":
            return Leaf(self._line, text)
        # A program's 0.0 is a whole number written as a float, not one rounded to a decimal.
        return msgspec.structs.replace(_figure(text, text.removesuffix(".0"), self._line), text=text)

    def _object(self, depth: int) -> Object:
        line = self._line
        items: dict[str, Value] = {}
        token = self._next()
        while token != ("p", "}"):
            if token[0] != "s" or self._next() != ("p", ":"):
                raise self._bad("a key and a colon expected")
            items[token[1]] = self._value(self._next(), depth + 1)
            token = self._separator("}")
        return Object(line, items)

    def _array(self, depth: int) -> Array:
        line = self._line
        items: list[Value] = []
        token = self._next()
        while token != ("p", "]"):
            items.append(self._value(token, depth + 1))
            token = self._separator("]")
        return Array(line, items)

    def _separator(self, end: str) -> tuple[str, str]:
        token = self._next()
        if token == ("p", ","):
            return self._next()
        if token != ("p", end):
            raise self._bad(f"',' or {end!r} expected")
        return token

    def _bad(self, problem: str) -> DataError:
        return DataError(f"line {self._line}: {problem}", file=self._place)


def _sections(lines: list[str], place: str) -> Iterator[Section]:
    chapter = 0
    section = Section(1, "", 0, [], [])
    at = 0
    while at < len(lines):
        line = lines[at]
        if heading := re.match(r"(#{1,6})\s+(.*)", line):
            yield _with_bullets(section)
            chapter += len(heading[1]) <= 2
            section = Section(at + 1, heading[2].strip(), chapter, [], [(at + 1, line)])
        elif line.lstrip().startswith("|"):
            end = _end(lines, at, lambda text: text.lstrip().startswith("|"))
            section.values.extend(_table(lines[at:end], at + 1))
            section.lines.extend((n + 1, lines[n]) for n in range(at, end))
            at = end - 1
        elif line.lstrip().startswith("```"):
            end = _end(lines, at + 1, lambda text: not text.lstrip().startswith("```"))
            section.values.extend(_code(lines[at + 1 : end], at + 2, place))
            section.lines.extend((n + 1, lines[n]) for n in range(at + 1, end))
            at = end
        else:
            section.lines.append((at + 1, line))
        at += 1
    yield _with_bullets(section)


def _end(lines: list[str], at: int, inside: Any) -> int:
    while at < len(lines) and inside(lines[at]):
        at += 1
    return at


def _table(rows: list[str], line: int) -> Iterator[Value]:
    """Yield the rows as objects, and a table of figures (two columns, or one called value) as one object besides."""
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] for row in rows]
    names = [name_of(cell) or f"column_{i}" for i, cell in enumerate(cells[0])]
    body = [(line + i, row) for i, row in enumerate(cells) if i > 1 and len(row) >= 2]
    yield Array(line, [
        Object(at, {name: leaf(cell, at) for name, cell in zip(names, row, strict=False)} | {"#label": Leaf(at, row[0])})
        for at, row in body
    ])  # fmt: skip
    column = next(
        (i for i, name in enumerate(names) if name in ("value", "achieved", "score", "result", "psi_score")), 0
    )
    if column:
        yield _unflatten([(name_of(row[0]), leaf(row[column], at)) for at, row in body if len(row) > column], line)


def _unflatten(pairs: list[tuple[str, Leaf]], line: int) -> Object:
    """Build nested objects from names such as ``checks[0].n``."""
    root: dict[str, Any] = {}
    for path, value in pairs:
        parts = _PATH.findall(path) or [path]
        parts = parts if len(parts) <= _DEPTH_MAX else [path]
        node = root
        for part in parts[:-1]:
            below = node.setdefault(part, {})
            node = below if isinstance(below, dict) else node
        node.setdefault(parts[-1], value)
    built = _build(root, line)
    return built if isinstance(built, Object) else Object(line, {"": built})


def _build(node: Any, line: int) -> Value:
    if not isinstance(node, dict):
        return node  # type: ignore[no-any-return]
    items = {key: _build(item, line) for key, item in node.items()}
    at = min((item.line for item in items.values()), default=line)
    if items and all(key.startswith("[") for key in items):
        return Array(at, list(items.values()))
    return Object(at, items)


def _code(lines: list[str], line: int, place: str) -> Iterator[Value]:
    text = "\n".join(lines)
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield read_json(text, line, place)
        except DataError:
            return  # an excerpt, or another language: nothing to compute with
    samples = [
        (f"{match[1]}{{{match[2]}}}" if match[2] else match[1], leaf(match[3], line + i))
        for i, row in enumerate(lines)
        if (match := _SAMPLE.match(row.strip()))
    ]
    if samples:
        yield Object(line, dict(samples))


def _with_bullets(section: Section) -> Section:
    """Add the section's "label: figure" lines as one object."""
    items: dict[str, Value] = {}
    for at, line in section.lines:
        match = _BULLET.match(line)
        body = match[1] if match else line
        label, colon, rest = _MARKS.sub("", body).partition(":")
        if colon and 0 < len(label) <= 40 and not line.lstrip().startswith(("|", "#")):
            items.setdefault(name_of(label), leaf(rest, at))
    if items:
        section.values.append(Object(section.line, items))
    return section
