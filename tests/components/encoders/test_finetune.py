"""Fine-tuned towers: the loss against transformers' own, training against chance, what moves and what must not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genret.api import CaptionedImages, FitContext, Silent
from genret.components.encoders.batches import Batches, reading_ahead
from genret.components.encoders.finetune import Captioned, Finetune, _examples
from genret.components.encoders.hf_clip import CLIPEncoder
from genret.components.encoders.joint import TwoTowerEncoder
from genret.components.encoders.open_clip import OpenCLIPEncoder
from genret.components.encoders.paired import PairedEncoder
from genret.errors import BadImage, GenretError
from genret.kit import loop
from genret.kit.checkpoint import Checkpoint

COLOURS = {"red": (230, 20, 20), "blue": (20, 30, 220)}
WORDS = {"mat": 2, "house": 4, "sea": 8}
PLAIN = {"augment": {"strength": 0}, "bf16": False}


def painted(colour: str, stripes: int, light: int) -> Image.Image:
    """Stripes of one colour on a ground that tells pictures of one description apart."""
    image = Image.new("RGB", (32, 32), (light, light, light))
    for at in range(0, 32, 32 // stripes):
        image.paste(COLOURS[colour], (at, 0, at + 16 // stripes, 32))
    return image


def scenes(lights: range) -> CaptionedImages:
    read, captions, owners = list[Callable[[], Image.Image]](), list[str](), list[int]()
    for light, colour, word in itertools.product(lights, COLOURS, WORDS):
        image = painted(colour, WORDS[word], light)
        captions += [f"a {colour} {word}", f"the {word} and {colour}"]
        owners += [len(read)] * 2
        read.append(image.copy)
    return CaptionedImages(read, captions, owners)


TRAIN, DEV = scenes(range(90, 250, 20)), scenes(range(100, 101))


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., FitContext]:
    def make(name: str = "run", seed: int = 0, log: Callable[[dict[str, Any]], None] = lambda row: None) -> FitContext:
        return FitContext(seed, torch.device("cpu"), tmp_path / name, Silent().progress, log)

    return make


def clip(folder: Path, **finetune: Any) -> CLIPEncoder:
    return CLIPEncoder(CLIPEncoder.Config(model=str(folder), bf16=False, finetune=PLAIN | finetune))


def paired(words: Path, model: str = "test_resnet", **finetune: Any) -> PairedEncoder:
    image = {"type": "timm", "model": model, "pretrained": False, "image_size": 32, "bf16": False}
    text = {"type": "sentence", "model": str(words), "bf16": False}
    return PairedEncoder(PairedEncoder.Config(image=image, text=text, finetune=PLAIN | finetune))


def parameters(encoder: TwoTowerEncoder) -> dict[str, Tensor]:
    both = {"image": encoder.image.module, "text": encoder.text.module}
    return {
        f"{side}.{name}": value.clone() for side, module in both.items() for name, value in module.state_dict().items()
    }


# ---------------------------------------------------------------------------------------------------- the objective
def test_the_first_loss_is_transformers_own(clip_folder: Path, context: Callable[..., FitContext]) -> None:
    from transformers import AutoModel, AutoTokenizer

    train = scenes(range(90, 91))  # six pictures, all described differently
    train = train._replace(captions=train.captions[::2], owners=train.owners[::2])
    encoder = clip(clip_folder, epochs=1, batch_size=6)
    pixels = encoder.image.preprocess.normalize(encoder.image.preprocess.pixels([read() for read in train.read]))
    words = AutoTokenizer.from_pretrained(clip_folder)(list(train.captions), return_tensors="pt", padding=True)
    with torch.no_grad():
        model = AutoModel.from_pretrained(clip_folder).eval()
        theirs = model(
            **{key: words[key] for key in ("input_ids", "attention_mask")}, pixel_values=pixels, return_loss=True
        )
    rows: list[dict[str, Any]] = []
    encoder.fit_towers(train, DEV, context(log=rows.append))
    assert rows[0]["loss"] == pytest.approx(float(theirs.loss), rel=1e-4)
    assert rows[0]["scale"] == pytest.approx(model.logit_scale.exp().item(), rel=1e-4)


def test_equal_wordings_are_no_negatives(clip_folder: Path, context: Callable[..., FitContext]) -> None:
    rows: list[dict[str, Any]] = []
    alike = CaptionedImages([TRAIN.read[0]] * 4, ["a red mat"] * 4, range(4))
    clip(clip_folder, epochs=1, batch_size=4).fit_towers(alike, DEV, context(log=rows.append))
    assert rows[0]["loss"] == pytest.approx(torch.log(torch.tensor(4.0)).item(), rel=1e-4)  # all four: log p = -log 4


def test_a_caption_is_drawn_anew_each_epoch() -> None:
    pictures = Captioned([], [["a", "b", "c"], ["d"], ["e", "f"]] * 40)
    draws = [pictures.draw(3, epoch) for epoch in range(30)]
    assert draws[0] == pictures.draw(3, 0) != draws[1] and pictures.draw(4, 0) != draws[0]
    for own, *drawn in zip(pictures.captions, *draws, strict=True):
        assert set(drawn) == set(own)
    counts = [sum(draw[row] == "a" for draw in draws for row in range(0, 120, 3))]
    assert 300 < counts[0] < 500  # 400 of 1200 expected


# ---------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("kind", ["clip", "open-clip", "paired"])
def test_training_beats_frozen_towers(
    kind: str,
    clip_folder: Path,
    open_clip_folder: Path,
    bert_folder: Path,
    context: Callable[..., FitContext],
    tmp_path: Path,
) -> None:
    options = PLAIN | {"epochs": 10, "batch_size": 12, "lr": 3e-3, "patience": 0, "temperature": 0.07}

    def make() -> TwoTowerEncoder:
        if kind == "paired":
            return paired(bert_folder, **options)
        if kind == "clip":
            return clip(clip_folder, **options)
        return OpenCLIPEncoder(OpenCLIPEncoder.Config(model=str(open_clip_folder), bf16=False, finetune=options))

    encoder, rows = make(), list[dict[str, Any]]()
    assert encoder.finetunes
    keys = {side: encoder.tower_key(side) for side in ("image", "text")}
    encoder.fit_towers(TRAIN, DEV, context(log=rows.append))
    looks = [row["dev"] for row in rows if "dev" in row]
    assert max(looks) > 75, looks  # one of six: chance is (17 + 83 + 100) / 3 = 67, and ties count against
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert not any(p.requires_grad for tower in (encoder.image, encoder.text) for p in tower.module.parameters())
    encoder.save_towers(tmp_path / "towers")
    encoder.load_towers(tmp_path / "towers", "abc")
    fresh, plain = make(), make()
    fresh.load_towers(tmp_path / "towers", "abc")
    pictures = [read() for read in DEV.read]
    assert torch.equal(fresh.image_features(pictures), encoder.image_features(pictures))
    assert torch.equal(fresh.text_features(DEV.captions), encoder.text_features(DEV.captions))
    assert not torch.allclose(fresh.image_features(pictures), plain.image_features(pictures))
    for side in ("image", "text"):
        assert fresh.tower_key(side) == encoder.tower_key(side) != keys[side] == plain.tower_key(side)
    fresh.load_towers(tmp_path / "towers", "another")
    assert fresh.tower_key("text") != encoder.tower_key("text")


def test_only_what_was_asked_for_moves(clip_folder: Path, context: Callable[..., FitContext], tmp_path: Path) -> None:
    encoder = clip(clip_folder, towers="image", last_layers=1, epochs=1, batch_size=8, lr=1e-2)
    keys, before = {side: encoder.tower_key(side) for side in ("image", "text")}, parameters(encoder)
    encoder.fit_towers(TRAIN, DEV, context())
    moved = {name for name, value in parameters(encoder).items() if not torch.equal(value, before[name])}
    expected = ("vision_model.encoder.layers.1.", "vision_model.post_layernorm.", "visual_projection.")
    assert moved and all(name.split(".", 1)[1].startswith(expected) for name in moved)
    encoder.save_towers(tmp_path / "towers")
    assert {name for name in moved if name.startswith("image.")} <= set(
        load_file(tmp_path / "towers" / "towers.safetensors")
    )
    encoder.load_towers(tmp_path / "towers", "k")
    assert encoder.tower_key("text") == keys["text"] and encoder.tower_key("image") != keys["image"]


def test_batch_statistics_stay_as_pretrained(bert_folder: Path, context: Callable[..., FitContext]) -> None:
    encoder = paired(bert_folder, epochs=1, batch_size=8, lr=1e-2)
    before = parameters(encoder)
    encoder.fit_towers(TRAIN, DEV, context())
    after = parameters(encoder)
    statistics = [name for name in after if "running_" in name]
    assert statistics and all(torch.equal(after[name], before[name]) for name in statistics)
    assert not torch.equal(after["image.layer4.0.conv1.weight"], before["image.layer4.0.conv1.weight"])


def test_no_epochs_leave_the_towers_as_they_were(clip_folder: Path, context: Callable[..., FitContext]) -> None:
    encoder = clip(clip_folder, epochs=0)
    before = parameters(encoder)
    encoder.fit_towers(TRAIN, DEV, context())
    assert all(torch.equal(value, before[name]) for name, value in parameters(encoder).items())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [2, 5, 9, 11])
def test_a_stopped_training_ends_with_the_same_bits(
    stop: int, bert_folder: Path, context: Callable[..., FitContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of the temporary heads, then eight of the towers; another view of each picture in each epoch."""
    monkeypatch.setattr(Checkpoint, "save_if_due", Checkpoint.save)  # after every step
    options = {"epochs": 2, "batch_size": 12, "lr": 1e-3, "augment": {"strength": 1.0}}

    def fit(name: str, stop_at: int) -> dict[str, Tensor]:
        encoder, steps = paired(bert_folder, **options), itertools.count(1)

        @contextmanager
        def stopping(label: str, total: int) -> Any:
            class Counting:
                def advance(self, n: int) -> None:
                    if n == 1 and next(steps) == stop_at:
                        raise Stopped

            yield Counting()

        encoder.fit_towers(TRAIN, DEV, context(name)._replace(progress=stopping))
        encoder.save_towers(tmp_path / f"{name}-towers")
        return load_file(tmp_path / f"{name}-towers" / "towers.safetensors")

    whole = fit("whole", -1)
    with pytest.raises(Stopped):
        fit("broken", stop)
    again = fit("broken", -1)
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


# ---------------------------------------------------------------------------------------------------- pictures
def torn() -> Image.Image:
    raise BadImage("the picture is torn")


def test_bad_pictures_never_end_a_training(clip_folder: Path, context: Callable[..., FitContext]) -> None:
    read = [torn if row % 3 == 0 else load for row, load in enumerate(TRAIN.read)]
    rows: list[dict[str, Any]] = []
    encoder = clip(clip_folder, epochs=2, batch_size=2, lr=1e-3)
    encoder.fit_towers(TRAIN._replace(read=read), DEV._replace(read=[torn, *DEV.read[1:]]), context(log=rows.append))
    assert len(rows) == 2 and rows[-1]["dev"] > 0
    only_bad = TRAIN._replace(read=[torn] * len(read))
    before = parameters(encoder)
    encoder.fit_towers(only_bad, DEV, context("bad"))
    assert all(torch.equal(value, before[name]) for name, value in parameters(encoder).items())


def test_pictures_without_captions_are_left_out(clip_folder: Path, context: Callable[..., FitContext]) -> None:
    train = CaptionedImages([torn, *TRAIN.read], TRAIN.captions, [owner + 1 for owner in TRAIN.owners])
    first, second = [list[dict[str, Any]](), list[dict[str, Any]]()]
    clip(clip_folder, epochs=1).fit_towers(train, CaptionedImages([], [], []), context("a", log=first.append))
    clip(clip_folder, epochs=1).fit_towers(TRAIN, CaptionedImages([], [], []), context("b", log=second.append))
    assert first == second and "dev" not in first[0]
    with pytest.raises(GenretError, match="captioned training images"):
        clip(clip_folder).fit_towers(CaptionedImages(TRAIN.read, [], []), DEV, context("c"))


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 5)])
def test_the_batch_that_was_read_ahead_is_the_one_that_is_asked_for(count: int, batch_size: int) -> None:
    options, asked, made = Finetune(batch_size=batch_size, epochs=3), list[tuple[list[int], int]](), list[int]()

    def load(row: int) -> Image.Image:
        made.append(row)
        return Image.new("RGB", (2, 2), (row, 0, 0))

    def pixels(images: Any, epoch: int) -> Tensor:
        return torch.tensor([[image.getpixel((0, 0))[0], epoch] for image in images])

    with reading_ahead() as pools:
        read = [lambda row=row: load(row) for row in range(count)]
        batches = Batches(read, pixels, lambda number: _examples(count, 7, options, number), pools)

        def step(indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
            batch = batches.batch(number)
            assert batch.indices.tolist() == indices.tolist() == batch.pixels[:, 0].tolist()
            assert set(batch.pixels[:, 1].tolist()) == {epoch}
            asked.append((indices.tolist(), epoch))
            return {"loss": module.weight.sum()}

        module = torch.nn.Linear(2, 2)
        nowhere = FitContext(7, torch.device("cpu"), Path("/nowhere"), Silent().progress, lambda row: None)
        loop.run(module, step, count, options, nowhere)
    assert len(made) == 3 * count and len(asked) == 3 * -(-count // batch_size)  # nothing is read twice, nor too much


# ---------------------------------------------------------------------------------------------------- options, files
def test_options() -> None:
    assert Finetune(towers="image").towers == ["image"]
    assert Finetune(towers=["text", "image"]).towers == ["text", "image"]
    for wrong in ([], "eyes", ["image", "image"]):
        with pytest.raises(ValidationError):
            Finetune(towers=wrong)
    assert not CLIPEncoder().finetunes and not PairedEncoder().finetunes
    assert json.loads(Finetune(towers="text").model_dump_json())["towers"] == ["text"]


@pytest.mark.parametrize("damage", ["missing", "facts", "bytes", "shape", "name"])
def test_damaged_weights_are_refused(
    damage: str, clip_folder: Path, tmp_path: Path, context: Callable[..., FitContext]
) -> None:
    encoder, folder = clip(clip_folder, epochs=0, towers="image", last_layers=0), tmp_path / "towers"
    encoder.fit_towers(TRAIN, DEV, context())
    encoder.save_towers(folder)
    weights, name = folder / "towers.safetensors", "image.visual_projection.weight"
    tensors = load_file(weights)
    if damage == "missing":
        weights.unlink()
    elif damage == "facts":
        (folder / "towers.json").write_text("{")
    elif damage == "bytes":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "shape":
        save_file(tensors | {name: torch.zeros(3)}, weights)
    else:
        tensors[f"{name}s"] = tensors.pop(name)
        save_file(tensors, weights)
    fresh = clip(clip_folder)
    with pytest.raises(GenretError, match="fine-tuned"):
        fresh.load_towers(folder, "key")
        fresh.image_features([TRAIN.read[0]()])
