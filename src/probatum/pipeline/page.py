"""Make one self-contained HTML page of tables and charts: no request leaves it, and nothing from outside is markup in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import count

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from probatum.core.errors import ParameterError

Values = tuple[float | None, ...]


class Line(msgspec.Struct, frozen=True, tag="line"):
    """Draw a line through the points that are not None."""

    name: str
    y: Values
    dashed: bool = False


class Band(msgspec.Struct, frozen=True, tag="band"):
    """Shade what lies between two lines, such as a confidence band."""

    name: str
    lower: Values
    upper: Values


class Bars(msgspec.Struct, frozen=True, tag="bars"):
    """Draw one bar a point; bars of several series stand side by side."""

    name: str
    y: Values


class Marks(msgspec.Struct, frozen=True, tag="marks"):
    """Draw one mark a point: a bound to hold bars against."""

    name: str
    y: Values


Series = Line | Band | Bars | Marks


class Chart(msgspec.Struct, frozen=True, tag="chart"):
    """Show series over ``x`` (numbers, or names of categories), with a sentence that says what there is to see.

    Who cannot see the picture gets ``summary`` and the numbers as a table.
    """

    title: str
    summary: str
    x_name: str
    y_name: str
    x: tuple[float, ...] | tuple[str, ...]
    series: tuple[Series, ...]
    log: bool = False
    x_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for series in self.series:
            for values in (series.lower, series.upper) if isinstance(series, Band) else (series.y,):
                if len(values) != len(self.x):
                    raise ParameterError(f"series {series.name}", f"{len(self.x)} values", len(values))

    @property
    def table(self) -> Table:
        """Return the numbers that the picture shows."""
        columns: dict[str, Sequence[object]] = {self.x_name: self.x}
        for series in self.series:
            if isinstance(series, Band):
                columns |= {f"{series.name}, lower": series.lower, f"{series.name}, upper": series.upper}
            else:
                columns[series.name] = series.y
        return Table("", tuple(columns), tuple(zip(*columns.values(), strict=True)))


class Table(msgspec.Struct, frozen=True, tag="table"):
    """Show rows; on a narrow screen a wide table's rows become cards. Verdicts among the cells are coloured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    @property
    def cards(self) -> bool:
        return len(self.columns) > 4


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Show one paragraph."""

    text: str


Item = Chart | Table | Text


class Section(msgspec.Struct, frozen=True):
    """Gather items under a heading; ``folded`` shows them when asked for."""

    title: str
    items: tuple[Item, ...]
    level: int = 2
    folded: bool = False


def page(title: str, sections: Sequence[Section], *, subtitle: str = "", banner: str = "") -> str:
    """Return a whole HTML document; the same arguments give the same bytes.

    ``banner`` is a warning at the top, such as the provenance of all that follows.
    """
    numbers = count()
    return _template().render(
        title=title,
        subtitle=subtitle,
        banner=banner,
        sections=sections,
        next_id=lambda: next(numbers),
        chart_json=chart_json,
        number=number,
        css=Markup(_asset("vendor/uplot/uPlot.min.css") + _asset("page.css")),
        scripts=[Markup(text) for text in _scripts()],
        policy=_policy(),
        licence=_asset("vendor/uplot/LICENSE"),
    )


def number(value: object) -> str:
    """Write a cell: a float with four significant digits, a count with separators, None as a dash.

    >>> number(0.65812345), number(44641), number(None), number(1.2e-9), number(-0.0)
    ('0.6581', '44,641', '–', '1.2e-09', '0')
    """
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart_json(chart: Chart) -> Markup:
    """Return a chart's data for the script, safe inside a page."""
    data = msgspec.to_builtins(chart)
    text = json.dumps(
        {name: data[name] for name in ("x", "x_name", "y_name", "series", "log", "x_range")}, allow_nan=False
    )
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("probatum.pipeline", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


@cache
def _asset(name: str) -> str:
    return (files("probatum.pipeline") / "assets" / name).read_text(encoding="utf-8")


def _scripts() -> tuple[str, ...]:
    return (_asset("vendor/uplot/uPlot.iife.min.js"), _asset("page.js"))


def _policy() -> str:
    """Return a content security policy under which the browser runs our two scripts, and asks the network for nothing."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in _scripts())
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
