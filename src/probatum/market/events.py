"""Put every kind of market event into one stream of plain arrays: what the feature kernels fold over.

========  ====  =====================================================
kind      code  values (4 floats; NaN where the source has none)
========  ====  =====================================================
QUOTE     0     bid, ask, bid_size, ask_size
TRADE     1     price, size, side (+1, −1, 0), 0
BAR       2     mid (the close), spread, volume, 0
TIMER     3     0, 0, 0, 0 (a decision is due; no market data)
========  ====  =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUOTE, TRADE, BAR, TIMER = 0, 1, 2, 3


@dataclass(frozen=True)
class Events:
    """Hold n events in time order: ``ts`` int64[n] ns UTC, ``kind`` int8[n], ``values`` float64[n, 4] (C order)."""

    ts: NDArray[np.int64]
    kind: NDArray[np.int8]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.ts.shape[0])
