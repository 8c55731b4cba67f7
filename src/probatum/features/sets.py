"""Declare the feature sets: which columns, what they mean, what data they need. The arithmetic is in ``kernels.py``.

Rules that hold for every set. Minute k covers (k·60 s, (k+1)·60 s]. One-minute values use closed minutes only; ``mid`` and
``spread`` are those in force. On bars, mid = close. Up to five silent minutes carry mid and spread forward with no volume; a
longer silence is a break: no return spans it, and the short windows start again. μ and σ are mean and sample standard
deviation over closed minutes, rv_k is σ of the last k one-minute log returns plus 1e-8 (a flat market is no division by
zero), c_j is the close j minutes before the last. A window spans breaks; only returns and RSI do not.
"""

from __future__ import annotations

import msgspec

from probatum.core.canonical import digest
from probatum.core.errors import DataError, UnknownNameError

NEEDS = ("spread", "volume", "sizes", "trades", "tick")


class Feature(msgspec.Struct, frozen=True):
    """Declare one column.

    ``level`` marks a non-stationary level, which the linter warns of and the promote gate blocks. ``derived`` marks a
    constant or a duplicate of another column: left out of the overall PSI. ``needs`` names what the data must have.
    """

    name: str
    definition: str
    needs: tuple[str, ...] = ()
    level: bool = False
    derived: bool = False


class FeatureSet(msgspec.Struct, frozen=True):
    """Declare an ordered set of columns that one kernel computes.

    ``required_minutes`` of closed minutes make it ready; after ``memory_minutes`` its values no longer depend on when
    the process started. ``version`` rises whenever the arithmetic changes, and with it the fingerprint.
    """

    name: str
    version: int
    features: tuple[Feature, ...]
    required_minutes: int
    memory_minutes: int
    requires: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def needs(self) -> frozenset[str]:
        """Return everything the columns need of the data."""
        return frozenset(need for feature in self.features for need in feature.needs)

    @property
    def fingerprint(self) -> str:
        """Return the digest that training stores and serving must present.

        >>> FEATURE_SETS["robust"].fingerprint == FEATURE_SETS["robust"].variant(frozenset({"spread"})).fingerprint
        False
        """
        return digest({"set": self.name, "version": self.version, "names": list(self.names)})

    def variant(self, available: frozenset[str]) -> FeatureSet:
        """Return the set without the columns that the data cannot support: excluded, never filled with zero.

        Raises DataError where nothing meaningful would be left.

        >>> FEATURE_SETS["v1.8.1"].variant(frozenset()).names
        ('bias', 'mid_logret_1m', 'mid_logret_5m', 'rsi14_z', 'zscore_mid_24h')
        """
        for need in sorted(available - set(NEEDS)):
            raise UnknownNameError("kind of data", need, NEEDS)
        missing = [need for need in self.requires if need not in available]
        if missing:
            raise DataError(f"feature set {self.name!r} needs {', '.join(missing)}, which the data do not have")
        kept = tuple(feature for feature in self.features if available.issuperset(feature.needs))
        return msgspec.structs.replace(self, features=kept)


_BIAS = Feature("bias", "1", derived=True)
_SPREAD_BP = Feature("spread_bp", "10,000·(ask − bid)/mid", ("spread",))
_RSI14_Z = Feature("rsi14_z", "(rsi14 − 50)/30")

_V18_B0 = FeatureSet(
    name="v1.8-b0",
    version=1,
    required_minutes=15,
    memory_minutes=661,
    features=(
        _BIAS,
        Feature("mid", "the mid price in force", level=True),
        _SPREAD_BP,
        Feature("vol1m", "volume of the last closed minute", ("volume",), level=True),
        Feature("rsi14", "Wilder's RSI (α = 1/14) on one-minute closes of mid; 100 without losses, 50 when flat"),
        Feature("log_vol1m", "log(1 + vol1m)", ("volume",), derived=True),
    ),
)

_V18_1 = FeatureSet(
    name="v1.8.1",
    version=2,
    required_minutes=360,
    memory_minutes=1680,
    features=(
        _BIAS,
        Feature("mid_logret_1m", "log(c_0/c_1)"),
        Feature("mid_logret_5m", "log(c_0/c_5)"),
        _SPREAD_BP,
        Feature("vol1m_log", "log(1 + vol1m)", ("volume",)),
        _RSI14_Z,
        Feature("zscore_mid_24h", "(mid − μ24h)/(σ24h + 1e-8), the last 1,440 closed minutes, at least 360"),
    ),
)

_ROBUST = FeatureSet(
    name="robust",
    version=2,
    required_minutes=361,
    memory_minutes=1681,
    features=(
        Feature("ret1_rv60", "log(c_0/c_1)/rv60"),
        Feature("ret5_rv60", "log(c_0/c_5)/(rv60·√5)"),
        _RSI14_Z,
        Feature("zscore_mid_1h", "(mid − μ1h)/(σ1h + 1e-8·mid), the last 60 closed minutes"),
        Feature("vol_rel_24h", "(log(1 + vol1m) − its 24 h mean)/(its 24 h σ + 1e-8)", ("volume",)),
        Feature(
            "spread_rel_24h",
            "log((spread + ε)/(median spread of the last 1,440 closed minutes + ε)), ε = 1e-8·mid",
            ("spread",),
        ),
        Feature("log_rv10_rv60", "log(rv10/rv60)"),
        Feature("log_rv60_rv1440", "log(rv60/rv1440)"),
        Feature("log_rv10_rv1440", "log(rv10/rv1440)"),
        Feature("abs_ret1_rv1440", "|log(c_0/c_1)|/rv1440"),
        Feature("tod_sin", "sin(2π·seconds since 00:00 UTC/86,400)"),
        Feature("tod_cos", "cos(2π·seconds since 00:00 UTC/86,400)"),
    ),
)

_BOOK = FeatureSet(
    name="book",
    version=1,
    required_minutes=1,
    memory_minutes=1,
    requires=("sizes",),
    features=(
        Feature("queue_imbalance", "(bs − as)/(bs + as): bid and ask size", ("sizes",)),
        Feature(
            "microprice_dev",
            "((ask·bs + bid·as)/(bs + as) − mid) in half-spreads, which is queue_imbalance by algebra",
            ("sizes",),
            derived=True,
        ),
        Feature(
            "ofi_10s", "order-flow imbalance of Cont, Kukanov and Stoikov (2014), 10 s, in units of size", ("sizes",)
        ),
        Feature("ofi_60s", "the same over 60 s", ("sizes",)),
        Feature(
            "trade_imbalance_10s", "(buys − sells)/(buys + sells), counted over 10 s; 0 without trades", ("trades",)
        ),
        Feature("trade_imbalance_60s", "the same over 60 s", ("trades",)),
        Feature("spread_ticks", "(ask − bid)/tick", ("spread", "tick")),
        Feature("log_depth", "log(1 + bs + as)", ("sizes",)),
    ),
)

FEATURE_SETS: dict[str, FeatureSet] = {item.name: item for item in (_V18_B0, _V18_1, _ROBUST, _BOOK)}


def get_feature_set(name: str, available: frozenset[str] | None = None) -> FeatureSet:
    """Return a set by name, as the variant that ``available`` data support; UnknownNameError lists the known."""
    if name not in FEATURE_SETS:
        raise UnknownNameError("feature set", name, FEATURE_SETS)
    return FEATURE_SETS[name] if available is None else FEATURE_SETS[name].variant(available)


def level_warnings(feature_set: FeatureSet) -> list[str]:
    """Return one line for each level feature: a model on a price level has learnt the month, not the market.

    >>> level_warnings(FEATURE_SETS["robust"])
    []
    """
    return [
        f"{feature.name} is a level ({feature.definition}): it drifts by nature, so neither a weight nor a PSI on it means much"
        for feature in feature_set.features
        if feature.level
    ]
