"""Names and the classes behind them: nothing overwritten, every error says who and what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from genret import Config, Dataset, GenretError, Loss, LossConfig, Record, UnknownName, UsageError
from genret.plugin.registry import FUNCTIONS, KINDS, Registries, Registry
from genret.settings import Settings


class Toy(Dataset):
    def records(self, split: str):
        yield Record("a", "a.png")

    def read(self, record: Record) -> bytes:
        return b""


class Unfinished(Dataset):
    def records(self, split: str):
        yield Record("a", "a.png")


class WrongKind(Toy):
    kind = "picture"


class LooseConfig(Loss):
    class Config(Config):
        """No weight: not a LossConfig."""

    stage = "generator"

    def __call__(self, batch):
        raise AssertionError("never called")


@pytest.fixture
def registry() -> Registry:
    return Registry("dataset", Dataset, hint="see elsewhere")


def test_lazy_target_is_imported_when_first_asked_for(registry, tmp_path, monkeypatch):
    (tmp_path / "lazy_toy_module.py").write_text(
        "import genret\n"
        "class Toy(genret.Dataset):\n"
        "    def records(self, split): return iter(())\n"
        "    def read(self, record): return b''\n"
        "print('noise at import')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("toy", "lazy_toy_module:Toy", "somebody")
    assert "lazy_toy_module" not in sys.modules
    assert registry.get("toy").__name__ == "Toy"
    assert registry.get("toy") is sys.modules["lazy_toy_module"].Toy


def test_import_noise_does_not_reach_standard_output(registry, tmp_path, monkeypatch, capsys):
    (tmp_path / "noisy_toy_module.py").write_text("print('noise at import')\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("toy", "noisy_toy_module:value")
    with pytest.raises(GenretError, match="no subclass"):
        registry.get("toy")
    printed = capsys.readouterr()
    assert printed.out == "" and "noise at import" in printed.err


def test_classes_are_accepted_as_they_are(registry):
    registry.register("toy", Toy)
    assert registry.get("toy") is Toy and registry.names() == ["toy"] and "toy" in registry


def test_duplicate_names_both_origins_and_keeps_the_first(registry):
    registry.register("toy", Toy, "first-plugin")
    with pytest.raises(UsageError, match=r"'toy' of second-plugin is already registered by first-plugin"):
        registry.register("toy", Unfinished, "second-plugin")
    assert registry.get("toy") is Toy and registry.origin("toy") == "first-plugin"


def test_unknown_name_suggests_the_nearest(registry):
    registry.register("emoji", Toy)
    registry.register("folder", Toy)
    with pytest.raises(UnknownName, match=r"unknown dataset 'emojy', did you mean 'emoji'\?.*folder.*see elsewhere"):
        registry.get("emojy")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_package_anywhere:Toy", r"the dataset 'x' \(me\).*needs the package 'no_such_package_anywhere'"),
        ("json:Toy", "the module json has no 'Toy'"),
        ("json:dumps", "no subclass of genret.Dataset"),
        (WrongKind, "its kind is 'picture'"),
        (Unfinished, "does not implement read"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_origin(registry, target, message):
    registry.register("x", target, "me")
    with pytest.raises(GenretError, match=message) as caught:
        registry.get("x")
    assert "me" in str(caught.value)


def test_module_that_fails_is_an_error_with_the_reason(registry, tmp_path, monkeypatch):
    (tmp_path / "exploding_toy_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("x", "exploding_toy_module:Toy", "me")
    with pytest.raises(GenretError, match="ZeroDivisionError"):
        registry.get("x")


@pytest.mark.parametrize("target", ["no-colon", "module:", ":Class"])
def test_malformed_targets_are_refused_at_once(registry, target):
    with pytest.raises(UsageError, match="module:Class"):
        registry.register("x", target, "me")


def test_config_has_to_be_of_the_kind():
    registry = Registry("loss", Loss)
    registry.register("loose", LooseConfig)
    with pytest.raises(GenretError, match=LossConfig.__name__):
        registry.get("loose")


def test_weights_resolve_to_local_folders(tmp_path: Path):
    registries = Registries(Settings(home=tmp_path))

    def unpack(cache: Path) -> Path:
        (cache / "mini").mkdir(parents=True, exist_ok=True)
        return cache / "mini"

    registries.weights.register("starter:mini", unpack)
    assert Path(registries.resolve_weights("starter:mini")) == tmp_path / "weights" / "mini"
    for name in ("google/t5-small", "/data/model", "timm:resnet18", "mini"):
        assert registries.resolve_weights(name) == name
    with pytest.raises(UnknownName, match="did you mean 'starter:mini'"):
        registries.resolve_weights("starter:minni")


def test_every_kind_has_a_registry(tmp_path: Path):
    registries = Registries(Settings(home=tmp_path))
    assert {registry.kind for registry in registries.all()} == {*KINDS, *FUNCTIONS}
    with pytest.raises(UnknownName, match="did you mean 'encoder'"):
        registries.of("encoders")
