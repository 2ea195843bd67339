"""One tiny data set, tiny random towers and one trained run for all end-to-end tests; the program is the real one."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from genret.cli import build
from genret.cli.failures import friendly
from genret.cli.state import State
from genret.plugin.loading import load_plugins
from genret.settings import Settings
from tests.threads import torch_threads

COLOURS = ("red", "green", "blue", "yellow", "black")
SHAPES = ("square", "circle", "line", "cross")
GROUNDS = ("grey", "orange")
TEST_IMAGES = 8


def draw(file: Path, colour: str, shape: str, ground: str = "white") -> Path:
    image = Image.new("RGB", (32, 32), ground)
    pen, box = ImageDraw.Draw(image), (6, 6, 26, 26)
    if shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "circle":
        pen.ellipse(box, fill=colour)
    else:
        pen.line(box, fill=colour, width=5)
        if shape == "cross":
            pen.line((6, 26, 26, 6), fill=colour, width=5)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def make_dataset(root: Path) -> Path:
    """40 pictures: 24 to train on, 8 for development, 8 that are searched; their colour is metadata."""
    with_split = ("train", "test", "train", "dev", "train")
    root.mkdir(parents=True)
    with (root / "captions.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "caption", "split", "colour"])
        for number, (colour, shape, ground) in enumerate(product(COLOURS, SHAPES, GROUNDS)):
            name, split = f"{number:02}.png", with_split[number % 5]
            draw(root / name, colour, shape, ground)
            for caption in (f"a {colour} {shape} on {ground}", f"some {ground} ground with a {shape}, {colour}"):
                table.writerow([name, caption, split, colour])
    return root


def make_sentence_encoder(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "on", "some", "ground", "with", *COLOURS, *SHAPES, *GROUNDS]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<bos>", 1), ("<eos>", 2)]
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=special)
    marks = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**size, vocab_size=40, max_position_embeddings=32)).save_pretrained(folder)
    return folder


def write_recipe(file: Path, data: Path, text: Path) -> Path:
    """Every loss at work, several views, and early stopping: all that a resumed training has to bring back."""
    file.write_text(f"""\
dataset: {{type: folder, root: "{data}", captions: captions.csv}}
encoder:
  type: paired
  image: {{type: timm, model: test_resnet, pretrained: false, image_size: 32, bf16: false}}
  text: {{type: sentence, model: "{text}", bf16: false}}
  dim: 16
  hidden: 16
  views: 2
  train: {{epochs: 4, batch_size: 16}}
identifier: {{type: rq, codebook_size: 4, num_levels: 3, hidden_width: 16, kmeans_iters: 3,
  train: {{epochs: 4, batch_size: 8}}}}
backbone: {{type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}}
loss: {{recon: {{weight: 1}}, commit: {{weight: 1}}, align: {{weight: 1}}, token: {{weight: 1}}, rank: {{weight: 1}}}}
train: {{epochs: 3, batch_size: 16, rank_beams: 4, rank_every: 2, target_noise: 0.2, target_views: true, bf16: false}}
search: {{num_beams: 10}}
""")
    return file


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        assert self.code == 0, self.err
        assert len(self.out.splitlines()) == 1, "one document and nothing else"
        return json.loads(self.out)


class Tiny:
    """A folder with data, towers and recipe, and the program with a home of its own."""

    def __init__(self, root: Path):
        self.root = root
        self.data = make_dataset(root / "data")
        self.text = make_sentence_encoder(root / "sentence")
        self.recipe = write_recipe(root / "tiny.yaml", self.data, self.text)
        self.home = root / "home"
        self.run = self.home / "runs" / "tiny-1"
        self.draw = draw

    def genret(self, *words: object, home: Path | None = None, stdin: str | None = None) -> Answer:
        settings = Settings(home=home or self.home, device="cpu", num_threads=1)
        state = State(settings, load_plugins((), settings))
        with friendly(False):
            result = CliRunner().invoke(build(state), [str(word) for word in words], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def search(self, *words: object, **options: Any) -> list[str]:
        """The ids of all that a search finds."""
        found = self.genret("search", "a red square on grey", "-k", 50, "--json", *words, **options).document
        return [hit["image_id"] for hit in found["hits"]]

    def copy(self, target: Path) -> Path:
        """The trained run, to be changed."""
        shutil.copytree(self.run, target)
        return target


def fails(answer: Answer, code: int, *said: str) -> None:
    """It ended with `code`, and all that it says is one sentence with `said` in it."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err and "unexpected" not in answer.err
    assert answer.err.startswith("Error: ") and len(answer.err.strip().splitlines()) == 1, answer.err
    for words in said:
        assert words in answer.err, answer.err


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run. Tests leave it as it is, or put it back."""
    tiny = Tiny(tmp_path_factory.mktemp("e2e"))
    answer = tiny.genret("train", tiny.recipe, "--json")
    assert answer.code == 0, answer.err
    assert Path(answer.document["run"]) == tiny.run
    return tiny


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return tiny.copy(tmp_path / "run")


@pytest.fixture
def failed() -> Callable[..., None]:
    return fails
