"""A miniature training with `fsq` through the command line: train, search, index, evaluate."""

from __future__ import annotations

import csv
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import genret_fsq.plugin
from genret.cli import build
from genret.cli.state import State
from genret.plugin.loading import load_plugins
from genret.settings import Settings

COLOURS = ("red", "green", "blue", "yellow", "black")
GROUNDS = ("grey", "orange", "purple", "white")


def write(root: Path) -> Path:
    """20 two-coloured pictures, and a recipe with tiny towers."""
    root.mkdir()
    with (root / "captions.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "caption", "split"])
        for number, (colour, ground) in enumerate(product(COLOURS, GROUNDS)):
            image = Image.new("RGB", (32, 32), ground)
            image.paste(colour, (8, 8, 24, 24))
            image.save(root / f"{number:02}.png")
            split = ("train", "test", "train", "dev", "train")[number % 5]
            table.writerow([f"{number:02}.png", f"{colour} on {ground}", split])
    torch.manual_seed(0)
    from transformers import CLIPConfig, CLIPModel

    from genret.components.backbones.tokenizers import train_tokenizer

    tokenizer = train_tokenizer([" ".join((*COLOURS, *GROUNDS))], 200)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = size | {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": 1, "bos_token_id": 0}
    pixels = size | {"image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=words, vision_config=pixels, projection_dim=16)).save_pretrained(root / "clip")
    tokenizer.save_pretrained(root / "clip")
    card = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "do_center_crop": True}
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (root / "clip" / "preprocessor_config.json").write_text(json.dumps(card | sizes))
    recipe = root / "fsq.yaml"
    recipe.write_text(f"""\
dataset: {{type: folder, root: "{root}", captions: captions.csv}}
encoder: {{type: clip, model: "{root / "clip"}"}}
identifier: {{type: fsq, levels: [4, 3], num_levels: 2, hidden_width: 16, collisions: nearest-free,
  train: {{epochs: 2, batch_size: 8}}}}
backbone: {{type: t5, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}}
loss: {{recon: {{weight: 1}}, align: {{weight: 1}}, diversity: {{weight: 0.1}}, token: {{weight: 1}},
  distill: {{weight: 1}}}}
train: {{epochs: 2, batch_size: 8}}
search: {{num_beams: 10}}
""")
    return recipe


@pytest.fixture
def genret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    settings = Settings(home=tmp_path / "home", device="cpu", num_threads=1)

    def run(*argv: object) -> Any:
        plugins = load_plugins((), settings)
        if "fsq" not in plugins.registries.identifier:  # the tests also run beside a plugin that is not installed
            genret_fsq.plugin.register_identifiers(
                lambda name, target: plugins.registries.identifier.register(name, target)
            )
        answer = CliRunner().invoke(build(State(settings, plugins)), [str(word) for word in argv])
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)

    yield run
    torch.set_num_threads(threads)


def test_trains_and_searches(genret: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path / "data")
    evaluation = genret("train", recipe, "--json")["evaluation"]
    assert evaluation["identifier"]["unique_rate"] == 1 and evaluation["num_images"] == 4
    assert evaluation["ceiling"]["10"] == 100, "ten of four"
    assert evaluation["recall"]["10"] == 100, "every image can be written"
    hits = genret("search", "red on grey", "-k", 4, "--json")["hits"]
    assert len({hit["image_id"] for hit in hits}) == 4 and all(len(hit["identifier"]) == 2 for hit in hits)
    twin = tmp_path / "mine" / "twin.png"
    twin.parent.mkdir()
    twin.write_bytes((tmp_path / "data" / "01.png").read_bytes())
    assert genret("index", twin.parent, "--json")["added"] == 1
    found = genret("search", "red on grey", "-k", 10, "--json")["hits"]
    assert len({tuple(hit["identifier"]) for hit in found}) == 5, "the same picture once more has its own identifier"
