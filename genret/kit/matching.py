"""The assignment problem: who gets which place, so that all together pay least."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def match(costs: Tensor) -> Tensor:
    """costs (n, m), inf in the columns that are closed → (n,) a column for each row, no two alike, of least total cost;
    -1 for rows that are left over where there are fewer open columns than rows."""
    open_columns = costs.isfinite().all(0).nonzero()[:, 0]
    matrix = costs[:, open_columns].double().cpu().numpy()
    result = torch.full((len(costs),), -1, dtype=torch.int64)
    if matrix.shape[0] <= matrix.shape[1]:
        return result if not matrix.size else open_columns[torch.from_numpy(_hungarian(matrix))]
    result[torch.from_numpy(_hungarian(matrix.T))] = open_columns
    return result


def _hungarian(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """costs (n, m), n <= m → (n,) columns. Shortest augmenting paths (Jonker and Volgenant 1987), O(n²·m)."""
    n, m = costs.shape
    row_price, column_price = np.zeros(n), np.zeros(m)
    row_of = np.full(m, -1, dtype=np.int64)  # of each column
    for new in range(n):
        reach = np.full(m, np.inf)  # least reduced cost of a path from the new row to each column
        before = np.full(m, -1, dtype=np.int64)  # the column that this path comes from
        done = np.zeros(m, dtype=bool)
        row, column = new, -1
        while row >= 0:  # until a free column is reached
            through = costs[row] - row_price[row] - column_price
            better = ~done & (through < reach)
            reach[better], before[better] = through[better], column
            column = int(np.where(done, np.inf, reach).argmin())
            step = reach[column]
            row_price[new] += step
            row_price[row_of[done]] += step
            column_price[done] -= step
            reach[~done] -= step
            done[column] = True
            row = int(row_of[column])
        while column >= 0:  # along the path, every row moves on by one column
            previous = int(before[column])
            row_of[column] = new if previous < 0 else row_of[previous]
            column = previous
    columns = np.empty(n, dtype=np.int64)
    columns[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    return columns
