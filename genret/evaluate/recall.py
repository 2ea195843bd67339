"""Recall from ranks: the figure of this field, in percent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5, 10)

Recalls = dict[str, float | None]
"""By cutoff, as JSON wants it: {"1": 23.9, "5": 53.0, "10": 66.4}"""


def recalls(ranks: NDArray[np.int64], num_beams: int | None = None) -> Recalls:
    """ranks (Q,) from 1 of the right images → recall@1/5/10; null beyond `num_beams`, where nothing could be found."""
    return {
        str(k): None if num_beams is not None and num_beams < k else round(100.0 * float((ranks <= k).mean()), 2)
        for k in CUTOFFS
    }
