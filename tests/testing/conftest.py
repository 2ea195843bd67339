"""Tiny weights and tiny data sets for the built-ins that need some."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genret.testing.encoder import COLOURS, SHAPES, draw
from tests.threads import torch_threads

WORDS = ["a", "in", *COLOURS, *SHAPES]
SPLITS = ("train", "test", "train", "dev", "train")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


# ------------------------------------------------------------------------------------------------ weights
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<bos>", 1), ("<eos>", 2)]
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    marks = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **marks).save_pretrained(folder)


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("sentence")
    torch.manual_seed(0)
    BertModel(BertConfig(**SMALL, vocab_size=40, max_position_embeddings=32)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = SMALL | {"vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    eyes = SMALL | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=words, vision_config=eyes, projection_dim=8)).save_pretrained(folder)
    save_tokenizer(folder)
    card = {"image_mean": [0.5] * 3, "image_std": [0.3] * 3, "resample": 3, "do_center_crop": True}
    card |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({key: value.clone() for key, value in made.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


# ------------------------------------------------------------------------------------------------ data
class Picture:
    def __init__(self, number: int, content: bytes, captions: list[str]):
        self.name, self.content, self.captions = f"{number:02}.png", content, captions
        self.split = SPLITS[number % len(SPLITS)]


def pictures() -> list[Picture]:
    drawn, made = draw(), []
    for number, image in enumerate(drawn.pictures):
        out = io.BytesIO()
        image.save(out, "PNG")
        made.append(Picture(number, out.getvalue(), drawn.captions[2 * number : 2 * number + 2]))
    return made


@pytest.fixture(scope="session")
def folder_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    rows = []
    for picture in pictures():
        (root / picture.name).write_bytes(picture.content)
        rows += [{"image": picture.name, "caption": text, "split": picture.split} for text in picture.captions]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="session")
def karpathy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("karpathy")
    (root / "images").mkdir()
    images = []
    for picture in pictures():
        (root / "images" / picture.name).write_bytes(picture.content)
        sentences = [{"raw": text} for text in picture.captions]
        images.append({"filename": picture.name, "split": picture.split, "sentences": sentences})
    (root / "dataset_tiny.json").write_text(json.dumps({"dataset": "tiny", "images": images}))
    return root


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for split in set(SPLITS):
        (root / split).mkdir()
        with tarfile.open(root / split / "0.tar", "w") as tar:
            for picture in pictures():
                if picture.split == split:
                    for name, content in (
                        (picture.name, picture.content),
                        (f"{picture.name[:2]}.txt", "\n".join(picture.captions).encode()),
                    ):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return root


@pytest.fixture(scope="session")
def saved_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("datasets")
    splits = {}
    for split in set(SPLITS):
        chosen = [picture for picture in pictures() if picture.split == split]
        rows = {
            "image": [{"bytes": picture.content, "path": None} for picture in chosen],
            "caption": [picture.captions for picture in chosen],
        }
        splits[split] = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    root = tmp_path_factory.mktemp("huggingface") / "set"
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


# ------------------------------------------------------------------------------------------------ without captions
@pytest.fixture(scope="session")
def bare_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    for number, image in enumerate(draw().pictures[:6]):
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def sentences_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sentences") / "lines.txt"
    file.write_text("".join(f"a {colour} {shape}\n" for colour in COLOURS for shape in SHAPES))
    return file


@pytest.fixture(scope="session")
def earlier_run(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """As much of a run as its encoder needs."""
    run = tmp_path_factory.mktemp("earlier")
    (run / "encoder").mkdir()
    options = {"encoder": {"type": "clip", "model": str(clip_folder), "bf16": False}}
    (run / "encoder" / "stage.json").write_text(json.dumps({"options": options}))
    (run / "summary.json").write_text("{}")
    return run
