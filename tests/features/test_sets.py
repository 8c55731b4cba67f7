"""The declarations are the contract: names, fingerprints, needs, and the page that documents them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from probatum.core.errors import DataError, UnknownNameError
from probatum.features import kernels
from probatum.features.sets import FEATURE_SETS, NEEDS, get_feature_set, level_warnings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "features.md"
ALL = frozenset(NEEDS)


def test_the_seeds_vectors_have_their_columns() -> None:
    """v1.8-b0 is the seed's vector of six, v1.8.1 its retrain list, in the seed's order."""
    assert FEATURE_SETS["v1.8-b0"].names == ("bias", "mid", "spread_bp", "vol1m", "rsi14", "log_vol1m")
    assert FEATURE_SETS["v1.8.1"].names == (
        "bias",
        "mid_logret_1m",
        "mid_logret_5m",
        "spread_bp",
        "vol1m_log",
        "rsi14_z",
        "zscore_mid_24h",
    )


def test_the_overall_psi_counts_the_raw_inputs() -> None:
    """Of v1.8-b0 mid, spread_bp, vol1m and rsi14 count; bias and the logarithm of volume do not."""
    raw = [f.name for f in FEATURE_SETS["v1.8-b0"].features if not f.derived]
    assert raw == ["mid", "spread_bp", "vol1m", "rsi14"]


@pytest.mark.parametrize("name", sorted(FEATURE_SETS))
def test_every_set_has_a_kernel_of_its_width(name: str) -> None:
    """A declaration without arithmetic, or with more columns than it, does not exist."""
    feature_set = FEATURE_SETS[name]
    assert kernels.WIDTHS[kernels.CODES[name]] == len(feature_set.names) == len(set(feature_set.names))
    assert feature_set.needs <= ALL
    assert set(feature_set.requires) <= ALL


def test_fingerprints_tell_sets_variants_and_versions_apart() -> None:
    """Two different lists of columns never share a fingerprint; the same one always does."""
    variants = {
        (item.name, part.names): part.fingerprint
        for item in FEATURE_SETS.values()
        for part in (item, item.variant(frozenset(item.requires)), item.variant(frozenset({"spread", *item.requires})))
    }
    assert len(set(variants.values())) == len(variants) > 8
    assert get_feature_set("robust", ALL).fingerprint == FEATURE_SETS["robust"].fingerprint


def test_what_cannot_be_is_refused() -> None:
    """An unknown set lists the known; a book without sizes says what is missing; an unknown kind of data is no kind."""
    with pytest.raises(UnknownNameError, match="did you mean 'robust'"):
        get_feature_set("robus")
    with pytest.raises(DataError, match="needs sizes"):
        get_feature_set("book", frozenset({"spread", "volume"}))
    with pytest.raises(UnknownNameError, match="depth"):
        get_feature_set("robust", frozenset({"depth"}))


def test_levels_are_warned_of() -> None:
    """The linter names mid and vol1m of v1.8-b0, one line each, and nothing in the stationary sets."""
    assert [line.split()[0] for line in level_warnings(FEATURE_SETS["v1.8-b0"])] == ["mid", "vol1m"]
    assert [level_warnings(FEATURE_SETS[name]) for name in ("v1.8.1", "robust", "book")] == [[], [], []]


def test_the_reference_page_says_what_the_sets_are() -> None:
    """docs/reference/features.md holds each set's fingerprint, history and every column with its definition."""
    text = PAGE.read_text(encoding="utf-8")
    sections = {part.split("`")[1]: part for part in text.split("\n## ")[1:] if part.startswith("`")}
    assert sorted(sections) == sorted(FEATURE_SETS)
    for name, item in FEATURE_SETS.items():
        rows = [line for line in sections[name].splitlines() if line.startswith("| `")]
        wanted = [
            f"| `{f.name}` | {f.definition.replace('|', chr(92) + '|')} | {', '.join(f.needs) or '–'} | "
            f"{'level' if f.level else 'derived' if f.derived else '–'} |"
            for f in item.features
        ]
        assert rows == wanted
        assert f"Fingerprint `{item.fingerprint}`" in sections[name]
        assert f"ready after {item.required_minutes:,} closed minutes" in sections[name]
        assert f"after {item.memory_minutes:,} they no longer depend" in sections[name]


def test_declarations_are_light() -> None:
    """What the engine imports for names and fingerprints brings neither numba nor polars nor numpy."""
    code = "import probatum.features.sets, sys; print([m for m in ('numba', 'polars', 'numpy', 'sklearn') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
