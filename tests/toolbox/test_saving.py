"""What is stored comes back; what is damaged is one sentence."""

from __future__ import annotations

import pytest
import torch

from genret.errors import GenretError
from genret.toolbox import saving as stored


def test_round_trip_of_tensors_that_share_storage(tmp_path):
    rows = torch.arange(12.0).view(3, 4)
    stored.save(tmp_path / "new", "part", {"rows": rows, "columns": rows.T, "none": rows[:0]}, {"width": 4, "é": ["ü"]})
    tensors, facts = stored.load(tmp_path / "new", "part")
    assert tensors["rows"].equal(rows) and tensors["columns"].equal(rows.T) and tensors["none"].shape == (0, 4)
    assert facts == {"width": 4, "é": ["ü"]}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["part.json", "part.safetensors"]


@pytest.mark.parametrize("name", ["part.json", "part.safetensors"])
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff{"), None])
def test_damage_is_one_sentence(tmp_path, name, spoil):
    stored.save(tmp_path, "part", {"rows": torch.zeros(2)}, {"width": 2})
    if spoil is not None:
        spoil(tmp_path / name)
    with (
        pytest.raises(GenretError, match=r"holds no usable thing .*; make it anew") as failed,
        stored.reading(tmp_path, "thing"),
    ):
        tensors, facts = stored.load(tmp_path, "part")
        assert tensors["rows"].shape == (facts["width"],)
        raise KeyError("of something that should be there")
    assert "\n" not in str(failed.value)
