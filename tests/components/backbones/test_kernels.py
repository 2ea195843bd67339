"""Products against float64, and rows against plain indexing."""

import pytest
import torch

from genret.components.backbones.kernels import linear, rows_of


@pytest.mark.parametrize("rows", [(1,), (2, 3), (2, 20), (0, 4)])
def test_linear_equals_float64_with_and_without_gradients(rows):
    torch.manual_seed(0)
    x, weight = torch.randn(*rows, 48), torch.randn(33, 48, requires_grad=True)
    expected = (x.double() @ weight.double().T).float()
    torch.testing.assert_close(linear(x, weight), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), expected, rtol=1e-5, atol=1e-5)
        assert linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
    assert linear(x, weight).requires_grad


@pytest.mark.parametrize("rows", [[3, 4, 5], [2], [1, 3, 4], [4, 2, 3, 1, 5], []])
def test_rows_of_equals_indexing(rows):
    weight, rows = torch.arange(12.0).view(6, 2), torch.tensor(rows, dtype=torch.int64)
    assert rows_of(weight, rows).equal(weight[rows])
    follow_on = rows.tolist() in ([3, 4, 5], [2])
    assert (rows_of(weight, rows).untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()) == follow_on
