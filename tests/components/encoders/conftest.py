"""Small random models of the true architectures, saved as folders, and pictures to look at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "sits",
    "runs",
    "on",
    "red",
    "blue",
    "mat",
    "grass",
    "small",
    "big",
    "two",
    "birds",
    "fly",
    "over",
    "sea",
    "and",
    "house",
]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Smooth pictures of several shapes."""
    generator = np.random.default_rng(0)
    sizes = [(48, 48), (64, 40), (40, 72), (90, 90), (31, 33)]
    coarse = [generator.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(c).resize(size, Image.Resampling.BICUBIC) for c, size in zip(coarse, sizes, strict=True)]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return ["a dog sits", "two birds fly over the sea and the house", "cat", "a small red house on the big blue mat"]


def save_tokenizer(folder: Path, ends: bool = True) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        raw.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


def save_processor(folder: Path, **settings: object) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = SMALL | {"image_size": 32, "patch_size": 8}
CARD = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "resample": 3}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = SMALL | {"vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    CLIPModel(CLIPConfig(text_config=words, vision_config=EYES, projection_dim=8)).save_pretrained(folder)
    save_tokenizer(folder)
    save_processor(
        folder, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=True, **CARD
    )
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import SiglipConfig, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    words = SMALL | {"vocab_size": 40, "max_position_embeddings": 12, "projection_size": 16}
    SiglipModel(SiglipConfig(text_config=words, vision_config=EYES)).save_pretrained(folder)
    save_tokenizer(folder, ends=False)
    save_processor(folder, size={"height": 32, "width": 32}, **CARD)
    return folder


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    ViTModel(ViTConfig(**EYES)).save_pretrained(folder)
    save_processor(folder, size={"height": 32, "width": 32}, **CARD)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(BertConfig(**SMALL, vocab_size=40, max_position_embeddings=32)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    settings = {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.5], "std": [0.5, 0.5, 0.4], "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder
