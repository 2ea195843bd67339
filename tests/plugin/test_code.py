"""A plugin's code is part of what its stages are keyed by; genret's own has formats."""

from __future__ import annotations

import sys
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from genret.components.identifiers.atomic import AtomicIdentifier
from genret.components.losses.generator import TokenLoss
from genret.plugin import code
from genret.plugin.code import code_key, code_keys

LOSS = """
from genret.components.losses.generator import TokenLoss

class Mine(TokenLoss):
    factor = {factor}
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a package of two modules, imports it anew and makes its loss."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(factor: int, helper: str = "") -> Any:
        package = tmp_path / "my_plugin"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / "helper.py").write_text(helper)
        (package / "loss.py").write_text(LOSS.format(factor=factor))
        for name in [name for name in sys.modules if name.startswith("my_plugin")]:
            del sys.modules[name]
        invalidate_caches()
        code._hash.cache_clear()
        module = __import__("my_plugin.loss", fromlist=["Mine"])
        return module.Mine()

    return make


def test_genrets_own_components_have_no_key() -> None:
    assert code_key(TokenLoss()) is None
    assert code_keys([AtomicIdentifier(), None]) == {}


def test_a_key_follows_the_code_and_nothing_else(written: Any) -> None:
    first = code_key(written(1))
    assert first is not None and code_key(written(1)) == first
    assert code_key(written(2)) != first, "the module itself"
    assert code_key(written(1, helper="X = 1")) != first, "another module of the package"
    assert code_key(written(1)) == first


def test_keys_are_named_by_kind_and_class(written: Any) -> None:
    assert list(code_keys([written(1)])) == ["loss Mine"]
