"""What a run was made with, against the system's own answers."""

from __future__ import annotations

import numpy as np
import pytest

from genret.shell import environment


def test_peak_memory_grows_with_what_is_held() -> None:
    before = environment.peak_memory_mb()
    assert before is not None
    held = np.ones(before * 2**17 + 2**24)  # as many bytes again, and 128 MB
    assert held.nbytes > before * 2**20
    after = environment.peak_memory_mb()
    assert after is not None and after >= before + 100


def test_a_system_without_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "resource", None)
    assert environment.peak_memory_mb() is None
