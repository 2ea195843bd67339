"""Recipes: merging, overrides, every fault at once, and a resolved recipe that reads back as itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import genret
from genret.api import LoopOptions, LossConfig
from genret.errors import RecipeError
from genret.plugin.registry import Registries
from genret.recipe.load import load_recipe
from genret.recipe.plain_yaml import dump
from genret.recipe.schema import Recipe
from genret.settings import Settings
from genret.shell.notes import notes


class ToyDataset(genret.Dataset):
    class Config(genret.Config):
        path: Path = Path("pictures")
        """Where they lie."""
        sizes: tuple[int, ...] = (1, 2)

    def records(self, split):
        yield from ()

    def read(self, record):
        return b""


class ToyEncoder(genret.Encoder):
    class Config(genret.Config):
        image: str = "mini"
        heads: LoopOptions = LoopOptions(epochs=3)

    def tower_key(self, modality):
        return "toy"

    def image_features(self, images, view=0):
        raise AssertionError

    def text_features(self, texts):
        raise AssertionError


class ToyIdentifier(genret.Identifier):
    class Config(genret.Config):
        codebook_size: int = Field(256, ge=2)
        num_levels: int = Field(4, ge=1)
        ema: bool | Literal["auto"] = "auto"

    fit = identify = save = load = None


class OtherIdentifier(ToyIdentifier):
    class Config(genret.Config):
        base: int = 10


class NeedyBackbone(genret.Backbone):
    class Config(genret.Config):
        model: str
        """Required."""

    build = tokens = level_tokens = logits = prefill = step = score = save = load = None


class TokenLoss(genret.Loss):
    stage = "generator"

    def __call__(self, batch):
        raise AssertionError


class RankLoss(TokenLoss):
    class Config(LossConfig):
        temperature: float = Field(1.0, gt=0)

    needs_candidates = True


class AlignLoss(TokenLoss):
    stage = "tokenizer"


class ToyGenerative(genret.Retriever):
    needs = ("identifier", "backbone", "loss")
    has_beams = True
    index = remove = search = None


class ToyTwoTower(genret.Retriever):
    index = remove = search = None


class ToyReranker(genret.Reranker):
    def score(self, candidates):
        raise AssertionError


@pytest.fixture(scope="module")
def registries(tmp_path_factory) -> Registries:
    registries = Registries(Settings(home=tmp_path_factory.mktemp("home")))
    registries.dataset.register("toy", ToyDataset)
    registries.encoder.register("paired", ToyEncoder)
    registries.identifier.register("rq", ToyIdentifier)
    registries.identifier.register("numeric", OtherIdentifier)
    registries.backbone.register("t5", NeedyBackbone)
    registries.loss.register("token", TokenLoss)
    registries.loss.register("rank", RankLoss)
    registries.loss.register("align", AlignLoss)
    registries.reranker.register("dense", ToyReranker)
    registries.retriever.register("generative", ToyGenerative)
    registries.retriever.register("two-tower", ToyTwoTower)
    return registries


BASE = """\
dataset: toy
encoder: {type: paired, image: big}
identifier: {type: rq, codebook_size: 64}
backbone: {type: t5, model: tiny}
loss: {align: {weight: 1}, token: {weight: 1}, rank: {weight: 0.5}}
train: {seed: 3, lr: 1e-3}
"""


@pytest.fixture
def load(tmp_path, registries):
    def load(*texts_and_overrides: str, overrides: tuple[str, ...] = ()) -> Recipe:
        files = []
        for number, text in enumerate(texts_and_overrides or (BASE,)):
            files.append(tmp_path / f"r{number}.yaml")
            files[-1].write_text(text)
        return load_recipe(files, overrides, registries)

    return load


def faults(load, *texts: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(*texts, overrides=overrides)
    return caught.value.errors


def test_options_are_the_components_own(load):
    recipe = load()
    assert recipe.identifier.type == "rq" and recipe.identifier.options == ToyIdentifier.Config(codebook_size=64)
    assert recipe.encoder.options.heads.epochs == 3
    assert recipe.loss["rank"] == RankLoss.Config(weight=0.5)
    assert recipe.train.seed == 3 and recipe.train.lr == 1e-3
    assert recipe.retriever.type == "generative" and recipe.protocol == "inductive" and recipe.rerank is None
    assert recipe.search.num_beams == 20 and recipe.search.score == "level"


def test_scalar_and_typed_mapping_replace_untyped_mapping_merges(load):
    assert load(overrides=("identifier.num_levels=6",)).identifier.options.codebook_size == 64
    assert load(overrides=("identifier={num_levels: 6}",)).identifier.options.codebook_size == 64
    assert load(overrides=("identifier={type: rq, num_levels: 6}",)).identifier.options.codebook_size == 256
    assert load(overrides=("identifier=rq",)).identifier.options == ToyIdentifier.Config()
    assert load(overrides=("identifier=numeric",)).identifier.options == OtherIdentifier.Config()
    assert load(overrides=("encoder.heads.epochs=9",)).encoder.options.image == "big"
    assert load(overrides=("rerank=dense",)).rerank.type == "dense"
    assert load(overrides=("rerank=dense", "rerank=null")).rerank is None
    assert "rank" not in load(overrides=("loss.rank=null",)).loss


def test_later_files_and_overrides_win_from_left_to_right(load):
    second = "train: {lr: 0.5}\nidentifier: {num_levels: 2}\n"
    recipe = load(BASE, second, overrides=("train.lr=0.25", "identifier.num_levels=3", "identifier.num_levels=5"))
    assert recipe.train.lr == 0.25 and recipe.train.seed == 3
    assert recipe.identifier.options == ToyIdentifier.Config(codebook_size=64, num_levels=5)


def test_scalar_slots_can_be_merged_into(load):
    assert load("dataset: toy\n" + BASE[13:], "dataset: {path: elsewhere}\n").dataset.options.path == Path("elsewhere")


def test_two_tower_needs_no_generator_and_says_what_it_ignores(load, registries):
    assert load("retriever: two-tower\ndataset: toy\nencoder: paired\n").identifier is None
    assert notes(load("retriever: two-tower\ndataset: toy\nencoder: paired\n"), registries) == []
    (note,) = notes(load(overrides=("retriever=two-tower",)), registries)
    assert "identifier, backbone, loss" in note


def test_resolved_recipe_reads_back_identically(load):
    recipe = load(overrides=("rerank=dense", "dataset.sizes=[3]", "identifier.ema=true", "train.bf16=false"))
    again = load(recipe.dump_yaml())
    assert again == recipe and again.canonical() == recipe.canonical()
    assert json.loads(json.dumps(recipe.canonical(), allow_nan=False)) == recipe.canonical()
    assert recipe.canonical()["dataset"] == {"type": "toy", "path": "pictures", "sizes": [3]}


def test_all_faults_at_once_with_file_line_path_and_nearest_key(load, tmp_path):
    text = BASE.replace("codebook_size: 64", "codebok_size: 64, num_levels: four").replace("toy", "tay")
    found = faults(
        load,
        text + "serach: {num_beams: 5}\nsearch: {num_beams: 0, score: levels}\n",
        overrides=("loss.tokn.weight=1",),
    )
    file = tmp_path / "r0.yaml"
    expected = [
        (f"{file}:1: dataset.type: unknown dataset 'tay'", "did you mean 'toy'?"),
        (f"{file}:3: identifier.codebok_size: unknown key", "did you mean 'codebook_size'?"),
        (f"{file}:3: identifier.num_levels: ", 'valid integer, not "four"'),
        ("--set loss.tokn.weight=1: loss.tokn: unknown loss", "did you mean 'token'?"),
        (f"{file}:7: serach: unknown key", "did you mean 'search'?"),
        (f"{file}:8: search.num_beams: ", "greater than or equal to 1, not 0"),
        (f"{file}:8: search.score: ", "'level', 'vocab' or 'trie'"),
    ]
    assert len(found) == len(expected)
    for start, part in expected:
        assert any(fault.startswith(start) and part in fault for fault in found), (start, found)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.seed=true", "train.seed: should be a valid integer, not true"),
        ("train.seed='1'", "valid integer"),
        ("train.seed=1.5", "valid integer"),
        ("train.lr=.inf", "valid number"),
        ("train.lr=0", "greater than 0"),
        ("train.bf16=maybe", "'auto'"),
        ("train=5", "train: "),
        ("train.sede=1", "did you mean 'seed'?"),
        ("encoder.heads.epoch=1", "encoder.heads.epoch: unknown key, did you mean 'epochs'?"),
        ("encoder.heads=5", "encoder.heads: "),
        ("dataset.sizes=[1, x]", "dataset.sizes.1: "),
        ("identifier=5", "identifier: should be a name or a mapping with `type`, not 5"),
        ("identifier={type: 5}", "type should be a name, not 5"),
        ("rerank={k: 5}", "rerank: has no `type`; one of: dense"),
        ("backbone=t5", "backbone.model: required"),
        ("loss=token", "loss: should be a mapping"),
        ("loss.token=1", "loss.token: should be a mapping"),
        ("loss.token.weight=-1", "greater than or equal to 0"),
        ("dataset=null", "dataset: required"),
        ("retriever=generativ", "retriever.type: unknown retriever 'generativ', did you mean 'generative'?"),
        ("protocol=transductive", "protocol: "),
        ("nonsense", "key=value"),
        ("=1", "key=value"),
        ("a..b=1", "key=value"),
        ("train={a: [", "--set train={a: ["),
        ("train=!!python/name:os.system", "tags"),
        ("loss.token.weight=0", "--set loss.token.weight=0"),
    ],
)
def test_each_wrong_override_is_one_sentence(load, override, part):
    extra = ("loss.rank.weight=0",) if override == "loss.token.weight=0" else ()
    if override == "loss.token.weight=0":
        (fault,) = faults(load, overrides=(override, *extra))
        assert "nothing to learn from" in fault and "rank, token" in fault
        return
    (fault,) = faults(load, overrides=(override,))
    assert part in fault and "\n" not in fault


def test_a_generator_without_epochs_needs_no_loss(load):
    assert load(overrides=("loss={align: {weight: 1}}", "train.epochs=0")).train.epochs == 0


def test_files_that_cannot_be_read(load, tmp_path, registries):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    os.mkfifo(tmp_path / "pipe.yaml")
    files = [tmp_path / name for name in ("absent.yaml", "binary.yaml", "list.yaml", "broken.yaml", ".", "pipe.yaml")]
    with pytest.raises(RecipeError) as caught:
        load_recipe(files, [], registries)
    assert len(caught.value.errors) == 6
    assert all(str(tmp_path) in fault for fault in caught.value.errors)


def test_words_of_earlier_versions(load):
    """A resolved recipe of then is read as it is; what it meant otherwise has another place now, and that is said."""
    search = "search: {num_beams: 20, score: level, index: exact, written_levels: null, end_symbol: false}\n"
    assert load(BASE + search) == load()
    text = BASE + "search: {index: hnsw, written_levels: 2, end_symbol: true}\n"
    found = faults(load, text)
    assert len(found) == 3 and all(":7: search." in fault for fault in found)
    for words in ("retriever={type: two-tower, index: hnsw}", "train.written_levels now", "train.end_symbol now"):
        assert sum(words in fault for fault in found) == 1, words


def test_a_scalar_slot_is_found_on_its_line(load, tmp_path):
    (fault,) = faults(load, BASE + "\nrerank: dens\n")
    assert fault.startswith(f"{tmp_path / 'r0.yaml'}:8: rerank.type: unknown reranker 'dens'")


def test_an_empty_file_changes_nothing(load):
    assert load(BASE, "# nothing\n") == load(BASE)


def test_components_that_cannot_be_loaded_are_faults_too(load, registries):
    if "broken" not in registries.dataset:
        registries.dataset.register("broken", "no_such_package_anywhere:X", "some-plugin")
    (fault,) = faults(load, overrides=("dataset=broken",))
    assert "some-plugin" in fault and "no_such_package_anywhere" in fault


def test_the_environment_never_changes_a_recipe(load, monkeypatch):
    before = load()
    for name in ("GENRET_TRAIN", "GENRET_SEED", "TRAIN_SEED", "SEED"):
        monkeypatch.setenv(name, "7")
    assert load() == before


train_options = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31),
        "epochs": st.integers(1, 1000),
        "lr": st.floats(1e-9, 10, exclude_min=True),
        "warmup_fraction": st.floats(0, 1, exclude_max=True),
        "schedule": st.sampled_from(["cosine", "linear", "constant"]),
        "bf16": st.sampled_from([True, False, "auto"]),
        "target_views": st.booleans(),
    },
)
identifier_options = st.fixed_dictionaries(
    {}, optional={"codebook_size": st.integers(2, 9999), "num_levels": st.integers(1, 99), "ema": st.booleans()}
)


@given(train=train_options, identifier=identifier_options, data=st.data())
def test_a_file_equals_the_same_options_as_overrides(registries, tmp_path_factory, train, identifier, data):
    folder = tmp_path_factory.mktemp("recipes")
    base, overlay, resolved = folder / "base.yaml", folder / "overlay.yaml", folder / "resolved.yaml"
    base.write_text(BASE)
    overlay.write_text(dump({"train": train, "identifier": identifier}))
    overrides = [f"train.{key}={json.dumps(value)}" for key, value in train.items()]
    overrides += [f"identifier.{key}={json.dumps(value)}" for key, value in identifier.items()]
    overrides = data.draw(st.permutations(overrides))  # different keys: the order is of no account

    by_file = load_recipe([base, overlay], [], registries)
    assert load_recipe([base], overrides, registries) == by_file
    for key, value in train.items():
        assert getattr(by_file.train, key) == value
    for key, value in identifier.items():
        assert getattr(by_file.identifier.options, key) == value
    assert by_file.identifier.options.codebook_size == identifier.get("codebook_size", 64)

    resolved.write_text(by_file.dump_yaml())
    assert load_recipe([resolved], [], registries) == by_file
    assert load_recipe([base, overlay, overlay], [], registries) == by_file, "merging twice changes nothing"
