"""Model families by name, as small random models of the true architecture, each against its own library."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from genret.components.encoders.hf_clip import CLIPEncoder
from genret.components.encoders.hf_vision import HuggingFaceImage, HuggingFaceImageTower, read_preprocess
from genret.components.encoders.open_clip import OpenCLIPEncoder
from genret.components.encoders.sentence import SentenceText, SentenceTextTower
from genret.components.encoders.timm_tower import TimmImage, TimmImageTower
from genret.errors import GenretError
from tests.components.encoders.conftest import CARD, EYES, SMALL, save_processor, save_tokenizer

CaptionedImages = list[Image.Image]
SQUARE = {"size": {"height": 32, "width": 32}, **CARD}


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.dtype == torch.float32 and ours.device.type == "cpu" and not ours.requires_grad
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- timm
TIMM = {
    "resnet10t": 64, "resnetv2_18": 64, "vit_tiny_patch16_224": 96, "vit_small_patch16_224.dino": 96,
    "vit_small_patch14_dinov2": 98, "vit_small_patch16_dinov3": 96, "convnext_atto": 64, "efficientnet_b0": 64,
    "mobilenetv3_small_050": 64, "swin_tiny_patch4_window7_224": 128, "deit_tiny_distilled_patch16_224": 96,
    "eva02_tiny_patch14_224": 98, "regnetx_002": 64, "mobilevit_xxs": 64, "pvt_v2_b0": 64, "test_maxvit": 160,
    "lambda_resnet26rpt_256": 256,
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timm_by_name(name: str, pictures: CaptionedImages) -> None:
    """At a size of ours, which models of fixed size are built for."""
    import timm

    size = TIMM[name]
    tower = TimmImageTower(TimmImage(model=name, pretrained=False, image_size=size, bf16=False))
    ours = tower.features(pictures)
    arguments = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **arguments).eval()
    data = timm.data.resolve_model_data_config(model)
    pixels = tower.preprocess.normalize(tower.preprocess.pixels(pictures))
    assert tower.preprocess.mean == tuple(data["mean"]) and pixels.shape == (5, 3, size, size)
    with torch.no_grad():
        same(ours, model(pixels))


# ---------------------------------------------------------------------------------------------------- vision models
CONVOLUTIONS = {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 1, 1]}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
VISION: dict[str, tuple[str, dict[str, Any], str]] = {
    # name: class, options, what one vector is made of when nobody says how: an expression over transformers' own output
    "vit": ("ViT", EYES, "o.last_hidden_state[:, 0]"),
    "deit": ("DeiT", EYES, "o.last_hidden_state[:, 0]"),
    "dinov2": ("Dinov2", EYES, "o.last_hidden_state[:, 0]"),
    "dinov2-registers": ("Dinov2WithRegisters", EYES | {"num_register_tokens": 4}, "o.last_hidden_state[:, 0]"),
    "dinov3": ("DINOv3ViT", EYES | {"num_register_tokens": 4}, "o.pooler_output"),
    "dinov3-convnext": ("DINOv3ConvNext", CONVOLUTIONS, "o.pooler_output"),
    "beit": ("Beit", EYES | {"use_mean_pooling": False}, "o.last_hidden_state[:, 0]"),
    "beit-fine-tuned": ("Beit", EYES, "o.last_hidden_state[:, 1:].mean(1)"),
    "mae": ("ViTMAE", EYES | {"mask_ratio": 0.75}, "o.last_hidden_state[:, 0]"),
    "msn": ("ViTMSN", EYES, "o.last_hidden_state[:, 0]"),
    "ijepa": ("IJepa", EYES, "o.last_hidden_state.mean(1)"),
    "swin": ("Swin", SWIN, "o.pooler_output"),
    "convnext": ("ConvNext", CONVOLUTIONS, "o.last_hidden_state.mean((2, 3))"),
    "resnet": ("ResNet", CONVOLUTIONS | {"embedding_size": 4}, "o.pooler_output.flatten(1)"),
}


def saved(name: str, options: dict[str, Any], folder: Path) -> Any:
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", VISION)
def test_vision_models_of_transformers(family: str, pictures: CaptionedImages, tmp_path: Path) -> None:
    name, options, reference = VISION[family]
    model = saved(name, options, tmp_path)
    save_processor(tmp_path, **SQUARE)
    tower = HuggingFaceImageTower(HuggingFaceImage(model=str(tmp_path), bf16=False))
    pixels = tower.preprocess.normalize(tower.preprocess.pixels(pictures))
    if family == "mae":  # which by itself would look at a random quarter of each picture
        model.config.mask_ratio = 0.0
    with torch.no_grad():
        same(tower.features(pictures), eval(reference, {"o": model(pixels)}))
    assert torch.equal(tower.features(pictures), tower.features(pictures))


@pytest.mark.parametrize(
    ("family", "prefix"), [("vit", 1), ("deit", 2), ("dinov2-registers", 5), ("dinov3", 5), ("ijepa", 0)]
)
def test_the_mean_is_over_patches_alone(family: str, prefix: int, pictures: CaptionedImages, tmp_path: Path) -> None:
    name, options, _ = VISION[family]
    model = saved(name, options, tmp_path)
    save_processor(tmp_path, **SQUARE)
    tower = HuggingFaceImageTower(HuggingFaceImage(model=str(tmp_path), bf16=False, pooling="mean"))
    with torch.no_grad():
        states = model(tower.preprocess.normalize(tower.preprocess.pixels(pictures))).last_hidden_state
    assert states.shape[1] == prefix + 16
    same(tower.features(pictures), states[:, prefix:].mean(1))


PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIP": {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    "Siglip": {"size": {"height": 32, "width": 32}},
    "ViT": {"size": {"height": 32, "width": 32}},
    "Bit": {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    "Beit": {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    "DeiT": {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}},
    "DINOv3ViT": {"size": {"height": 32, "width": 32}},
    "ConvNext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "ChineseCLIP": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_are_prepared_as_by_transformers(name: str, pictures: CaptionedImages, tmp_path: Path) -> None:
    import transformers

    processor = getattr(transformers, f"{name}ImageProcessor")(**PROCESSORS[name], **CARD)
    processor.save_pretrained(tmp_path)
    ours = read_preprocess(tmp_path)
    theirs = processor(pictures, return_tensors="pt")["pixel_values"]
    pixels = ours.normalize(ours.pixels(pictures))
    assert pixels.shape == theirs.shape
    assert (pixels - theirs).abs().max() < 0.1, "torchvision and Pillow round differently, by a few grey levels"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_flip_channel_order": True, "size": {"height": 32, "width": 32}}, "do_flip_channel_order"),
        ({"max_num_patches": 256, "patch_size": 16}, r"NaFlex.*google/siglip2-base-patch16-224"),
    ],
)
def test_pictures_that_nobody_could_prepare(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_processor(tmp_path, **settings)
    with pytest.raises(GenretError, match=message):
        read_preprocess(tmp_path)


# ---------------------------------------------------------------------------------------------------- joint models
TEXT = SMALL | {
    "vocab_size": 40,
    "max_position_embeddings": 14,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
JOINT: dict[str, dict[str, Any]] = {
    "CLIP": {"text_config": TEXT, "vision_config": EYES, "projection_dim": 8},
    "MetaClip2": {"text_config": TEXT, "vision_config": EYES, "projection_dim": 8},
    "Siglip": {"text_config": TEXT | {"projection_size": 16}, "vision_config": EYES},
    "ChineseCLIP": {"text_config": TEXT, "vision_config": EYES, "projection_dim": 8},
    "AltCLIP": {"text_config": TEXT | {"project_dim": 16}, "vision_config": EYES, "projection_dim": 8},
    "GroupViT": {
        "text_config": TEXT,
        "vision_config": EYES | {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 2]},
        "projection_dim": 8,
        "projection_intermediate_dim": 16,
    },
    "Blip": {"text_config": TEXT, "vision_config": EYES, "projection_dim": 8},
}


@pytest.mark.parametrize("name", JOINT)
def test_joint_models_of_transformers(name: str, pictures: CaptionedImages, texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = saved(name, JOINT[name], tmp_path)
    save_tokenizer(tmp_path, ends=name != "Siglip")
    save_processor(tmp_path, **SQUARE)
    encoder = CLIPEncoder(CLIPEncoder.Config(model=str(tmp_path), bf16=False))
    pixels = encoder.image.preprocess.normalize(encoder.image.preprocess.pixels(pictures))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    padding: dict[str, Any] = {"padding": "max_length", "max_length": 14} if name == "Siglip" else {}
    with torch.no_grad():
        images = model.get_image_features(pixel_values=pixels).pooler_output
        words = [
            tokenizer(text, return_tensors="pt", **padding) for text in texts
        ]  # one by one: no padding to go wrong
        keys = ("input_ids",) if name == "Siglip" else ("input_ids", "attention_mask")
        features = [model.get_text_features(**{key: batch[key] for key in keys}).pooler_output for batch in words]
    same(encoder.image_features(pictures), images)
    same(encoder.text_features(texts), torch.cat(features))
    assert encoder.text_features(["dog " * 1000]).isfinite().all()  # cut where the model's positions end
    assert encoder.image.module is encoder.text.module


def test_models_without_a_joint_space_are_refused(vit_folder: Path, texts: list[str]) -> None:
    save_tokenizer(vit_folder)
    encoder = CLIPEncoder(CLIPEncoder.Config(model=str(vit_folder)))
    with pytest.raises(GenretError, match="has no text half; type: clip wants CLIP or SigLIP"):
        encoder.text_features(texts)


# ---------------------------------------------------------------------------------------------------- open_clip
WORDS_OF_OPEN_CLIP = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "vit": {
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": WORDS_OF_OPEN_CLIP,
    },
    "resnet": {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": WORDS_OF_OPEN_CLIP,
    },
    "timm": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": WORDS_OF_OPEN_CLIP,
    },
    "siglip": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": WORDS_OF_OPEN_CLIP
        | {
            "vocab_size": 40, "hf_tokenizer_name": "somebody/words", "no_causal_mask": True, "pool_type": "last",
            "proj_bias": True, "tokenizer_kwargs": {"clean": "canonicalize"},
        },
        "init_logit_bias": -10.0,
        "custom_text": True,
    },
}  # fmt: skip


def open_clip_model(name: str, folder: Path) -> Path:
    import open_clip
    from safetensors.torch import save_file

    settings = {
        "model_cfg": {"embed_dim": 64, **OPEN_CLIP[name]},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_families_of_open_clip(name: str, pictures: CaptionedImages, texts: list[str], tmp_path: Path) -> None:
    import open_clip

    folder = open_clip_model(name, tmp_path)
    if name == "siglip":
        save_tokenizer(folder, ends=False)
    encoder = OpenCLIPEncoder(OpenCLIPEncoder.Config(model=str(folder), bf16=False))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model = model.eval()
    pixels = encoder.image.preprocess.normalize(encoder.image.preprocess.pixels(pictures))
    theirs = torch.stack([preprocess(picture) for picture in pictures])
    assert (pixels - theirs).abs().max() < 0.05
    with torch.no_grad():
        same(encoder.image_features(pictures), model.encode_image(theirs))
        words = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
        same(encoder.text_features(texts), model.encode_text(words))


def test_a_tokenizer_that_is_nowhere_is_one_sentence(texts: list[str], tmp_path: Path) -> None:
    encoder = OpenCLIPEncoder(OpenCLIPEncoder.Config(model=str(open_clip_model("siglip", tmp_path))))
    message = r"cannot load the tokenizer of the open_clip model .*; go online once, or give a local folder with"
    with pytest.raises(GenretError, match=message) as caught:
        encoder.text_features(texts)
    assert "\n" not in str(caught.value)


def test_open_clip_by_name_with_weights_of_ones_own(
    pictures: CaptionedImages, texts: list[str], tmp_path: Path
) -> None:
    import open_clip
    from safetensors.torch import save_file

    name = "ViT-S-32-alt"
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    save_file({key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "mine.safetensors")
    options = {"model": name, "pretrained": str(tmp_path / "mine.safetensors"), "bf16": False}
    encoder = OpenCLIPEncoder(OpenCLIPEncoder.Config(**options))
    preprocess = open_clip.image_transform(model.visual.image_size, is_train=False)
    with torch.no_grad():
        pixels = torch.stack([preprocess(picture) for picture in pictures[:2]])
        same(encoder.image_features(pictures[:2]), model.encode_image(pixels))
        same(encoder.text_features(texts), model.encode_text(open_clip.get_tokenizer(name)(texts)))


# ---------------------------------------------------------------------------------------------------- sentences
LAYERS = SMALL | {"vocab_size": 40, "max_position_embeddings": 34, "pad_token_id": 0, "type_vocab_size": 2}
LLAMA = SMALL | {"vocab_size": 40, "num_key_value_heads": 2, "pad_token_id": 0}
SENTENCE: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    # name: class, options, pooling, what else its folder says
    "MiniLM": ("Bert", LAYERS, "mean", {"normalize": True}),
    "E5": ("Bert", LAYERS, "mean", {"normalize": True, "prompt": "two red "}),
    "BGE": ("Bert", LAYERS, "cls", {"normalize": True}),
    "uncased": ("Bert", LAYERS, "mean", {"lower": True}),
    "MPNet": ("MPNet", LAYERS | {"pad_token_id": 1}, "mean", {"normalize": True}),
    "RoBERTa": ("Roberta", LAYERS | {"pad_token_id": 1}, "mean", {}),
    "XLM-R": ("XLMRoberta", LAYERS | {"pad_token_id": 1}, "cls", {"normalize": True}),
    "DistilBERT": ("DistilBert", {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 40},
                   "mean", {}),
    "ModernBERT": ("ModernBert", LAYERS | {"global_attn_every_n_layers": 2}, "cls", {}),
    "sentence-T5": ("T5Encoder", {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 2,
                                  "vocab_size": 40}, "mean", {"dense": True, "normalize": True}),
    "Qwen3-Embedding": ("Qwen3", LLAMA | {"head_dim": 8}, "lasttoken", {"normalize": True}),
}  # fmt: skip


@pytest.mark.parametrize("family", SENTENCE)
def test_sentence_encoders(family: str, texts: list[str], tmp_path: Path) -> None:
    import transformers

    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    name, options, pooling, says = SENTENCE[family]
    plain, folder = tmp_path / "plain", tmp_path / "folder"
    torch.manual_seed(0)
    config = getattr(transformers, f"{name.removesuffix('Encoder')}Config")(**options)
    getattr(transformers, f"{name}Model")(config).save_pretrained(plain)
    save_tokenizer(plain)
    steps = [modules.Transformer(str(plain)), modules.Pooling(16, pooling_mode=pooling)]
    steps += [modules.Dense(16, 12, bias=False, activation_function=torch.nn.Identity())] if says.get("dense") else []
    steps += [modules.Normalize()] if says.get("normalize") else []
    prompts = {"prompts": {"query": says["prompt"]}, "default_prompt_name": "query"} if "prompt" in says else {}
    library.SentenceTransformer(modules=steps, device="cpu", **prompts).save(str(folder))
    if says.get("lower"):
        said = json.loads((folder / "sentence_bert_config.json").read_text())
        (folder / "sentence_bert_config.json").write_text(json.dumps(said | {"do_lower_case": True}))
    words = [*texts, "  A dog  SITS ", "dog " * 60]
    reference = library.SentenceTransformer(str(folder), device="cpu")
    tower = SentenceTextTower(SentenceText(model=str(folder), bf16=False))
    same(tower.features(words[:-1]), torch.from_numpy(reference.encode(words[:-1])))
    assert tower.features(words).isfinite().all()  # cut where the model's positions end


def test_pooling_prompt_and_length_by_option(bert_folder: Path, texts: list[str]) -> None:
    """A plain language model, told everything: `query: ` and the mean, as E5's card says."""
    tower = SentenceTextTower(
        SentenceText(model=str(bert_folder), bf16=False, prompt="the red ", pooling="cls", normalize=True)
    )
    plain = SentenceTextTower(SentenceText(model=str(bert_folder), bf16=False, pooling="cls"))
    expected = torch.nn.functional.normalize(plain.features([f"the red {text}" for text in texts]), dim=1)
    same(tower.features(texts), expected)
    assert tower.key() != plain.key()


# ---------------------------------------------------------------------------------------------------- half precision
@pytest.mark.parametrize("kind", ["clip", "open-clip", "vit", "timm", "sentence"])
def test_half_precision_gives_float32_close_to_the_whole(
    kind: str, pictures: CaptionedImages, texts: list[str], request: pytest.FixtureRequest
) -> None:
    def vectors(bf16: bool) -> torch.Tensor:
        if kind in ("clip", "open-clip"):
            folder = request.getfixturevalue("clip_folder" if kind == "clip" else "open_clip_folder")
            encoder = CLIPEncoder if kind == "clip" else OpenCLIPEncoder
            made = encoder(encoder.Config(model=str(folder), bf16=bf16))
            return torch.cat([made.image_features(pictures), made.text_features(texts)])
        if kind == "sentence":
            folder = request.getfixturevalue("bert_folder")
            return SentenceTextTower(SentenceText(model=str(folder), bf16=bf16)).features(texts)
        if kind == "vit":
            folder = request.getfixturevalue("vit_folder")
            return HuggingFaceImageTower(HuggingFaceImage(model=str(folder), bf16=bf16)).features(pictures)
        options = {"model": "test_convnext", "pretrained": False, "image_size": 64, "stages": 2}
        return TimmImageTower(TimmImage(**options, bf16=bf16)).features(pictures)

    half, whole = vectors(True), vectors(False)
    assert half.dtype == whole.dtype == torch.float32 and half.device.type == "cpu"
    assert not torch.equal(half, whole)
    assert torch.cosine_similarity(half, whole).min() > 0.995
