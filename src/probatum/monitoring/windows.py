"""Hold what was seen in a span of time as integer counts, which merge: hours into days, symbols and replicas into one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.models.artifact import ReferenceBins
from probatum.monitoring.psi import bin_counts


class WindowCounts(msgspec.Struct, frozen=True):
    """Hold ``rows`` and, for each column, the counts in the reference's B bins and NaN's (B + 1 entries)."""

    rows: int
    counts: dict[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        for name, counts in self.counts.items():
            if sum(counts) != self.rows or min(counts) < 0:
                raise ParameterError(f"counts of {name}", f"at least 0 and {self.rows} in all", counts)

    def merge(self, other: WindowCounts) -> WindowCounts:
        """Return both windows as one.

        >>> WindowCounts(2, {"x": (1, 1, 0)}).merge(WindowCounts(1, {"x": (0, 0, 1)}))
        WindowCounts(rows=3, counts={'x': (1, 1, 1)})
        """
        if {n: len(c) for n, c in self.counts.items()} != {n: len(c) for n, c in other.counts.items()}:
            raise ParameterError("other", f"a window over the same bins of {sorted(self.counts)}", sorted(other.counts))
        merged = {
            name: tuple(a + b for a, b in zip(counts, other.counts[name], strict=True))
            for name, counts in self.counts.items()
        }
        return WindowCounts(self.rows + other.rows, merged)


def count_window(reference: Mapping[str, ReferenceBins], columns: Mapping[str, NDArray[np.float64]]) -> WindowCounts:
    """Count the float64[n] ``columns`` of a window into the frozen bins of the columns of the same name.

    Raises ParameterError when a frozen column is missing, or the columns differ in length.
    """
    missing = sorted(reference.keys() - columns.keys())
    if missing:
        raise ParameterError("columns", f"all that the artifact froze (lacks {', '.join(missing)})", sorted(columns))
    rows = {len(columns[name]) for name in reference}
    if len(rows) != 1:
        raise ParameterError("columns", "of one length", sorted(rows))
    counts = {name: tuple(bin_counts(columns[name], bins.edges).tolist()) for name, bins in reference.items()}
    return WindowCounts(rows.pop(), counts)
