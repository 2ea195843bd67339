"""Every recipe validates; the paper's settings run end to end, on tiny data of the true shape with tiny random models.

The pipeline, the command line and the file formats are the real ones: only the size of data and models is not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from genret.cli import build
from genret.cli.state import State
from genret.plugin.loading import load_plugins
from genret.settings import Settings

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/**/*.yaml"))
needs_starter = pytest.mark.skipif(
    find_spec("genret_starter") is None, reason="plugins/genret-starter is not installed"
)

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SHAPES = ("square", "circle", "line", "cross")
GROUNDS = ("grey", "orange", "purple")


def files_of(recipe: str) -> list[str]:
    """Recipes in a folder of their own build on the default one."""
    return [recipe] if Path(recipe).parent.name == "recipes" else ["recipes/avg.yaml", recipe]


@pytest.fixture
def genret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, in this process, with a home of its own."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    settings = Settings(home=tmp_path / "home", device="cpu", num_threads=1)

    def run(*argv: object) -> Result:
        state = State(settings, load_plugins((), settings))
        return CliRunner().invoke(build(state), [str(word) for word in argv], catch_exceptions=False)

    yield run
    torch.set_num_threads(threads)


@needs_starter
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_sound_and_opens_with_its_command(recipe: str, genret: Any) -> None:
    files = files_of(recipe)
    result = genret("validate", *files)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == f"The recipe is sound. Next: genret train {' '.join(files)}"
    opening = [line for line in (ROOT / recipe).read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith(f"#   genret train {' '.join(files)}") for line in opening), "its own command line"


@needs_starter
@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_the_papers_setting(name: str, genret: Any) -> None:
    """Section 4.2 of the paper, and Tables 4 to 7 for sizes."""
    from genret.recipe.plain_yaml import parse

    plain = parse(genret("validate", "recipes/avg.yaml", f"recipes/scale/{name}.yaml", "--print").stdout).value
    identifier, train = plain["identifier"], plain["train"]
    assert (identifier["codebook_size"], identifier["num_levels"]) == (1024, 4)
    assert (identifier["train"]["lr"], identifier["train"]["batch_size"]) == (1e-4, 2048)
    assert (train["lr"], train["batch_size"]) == (1e-3, 128)
    assert plain["search"]["num_beams"] == 30 and plain["rerank"] is None
    weights = {term: options["weight"] for term, options in plain["loss"].items()}
    for term in ("recon", "commit", "align", "token", "rank"):
        assert weights.pop(term) == 1
    assert not any(weights.values()), "terms that the paper does not have"
    # what genret adds to the paper stays out
    assert (
        not train["dense_targets"]
        and not train["teacher_targets"]
        and not train["target_views"]
        and not train["target_noise"]
    )


# ------------------------------------------------------------------------------------------------ tiny data and models
class Tiny(NamedTuple):
    root: Path
    image_ids: dict[str, set[str]]
    """By split."""


def draw(file: Path, colour: str, shape: str, ground: str) -> None:
    image = Image.new("RGB", (40, 40), ground)
    pen, box = ImageDraw.Draw(image), (8, 8, 32, 32)
    if shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "circle":
        pen.ellipse(box, fill=colour)
    else:
        pen.line(box, fill=colour, width=6)
        if shape == "cross":
            pen.line((8, 32, 32, 8), fill=colour, width=6)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def make_karpathy(root: Path, name: str, folders: bool) -> Tiny:
    """72 pictures with two captions each. `folders`: as COCO's, below train2014/ and val2014/, with `restval`."""
    images, image_ids = [], defaultdict(set)
    for number, (colour, shape, ground) in enumerate(product(COLOURS, SHAPES, GROUNDS)):
        split = ("train", "test", "train", "restval" if folders else "train", "val", "train")[number * 7 % 6]
        folder = {"train": "train2014"}.get(split, "val2014")
        file = f"{name}_{number:06}.jpg"
        draw(root / (folder if folders else "images") / file, colour, shape, ground)
        sentences = [f"A {colour} {shape} on {ground}.", f"some {ground} ground with a {shape}, {colour}"]
        image = {"filename": file, "split": split, "imgid": number}
        image |= {"filepath": folder} if folders else {}
        images.append(image | {"sentences": [{"raw": text, "tokens": text.split()} for text in sentences]})
        image_ids["train" if split == "restval" else split].add(file)
    (root / f"dataset_{name}.json").write_text(json.dumps({"dataset": name, "images": images}))
    return Tiny(root, dict(image_ids))


def make_t5(folder: Path) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration

    from genret.components.backbones.tokenizers import train_tokenizer

    tokenizer = train_tokenizer([" ".join((*COLOURS, *SHAPES, *GROUNDS, "some ground with a on"))], 200)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    config.decoder_start_token_id = 0
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_open_clip(folder: Path) -> Path:
    import open_clip
    from safetensors.torch import save_file

    settings = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def make_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    from genret.components.backbones.tokenizers import train_tokenizer

    tokenizer = train_tokenizer([" ".join((*COLOURS, *SHAPES, *GROUNDS))], 200)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = size | {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": 1, "bos_token_id": 0}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=words, vision_config=size | {"image_size": 32, "patch_size": 16}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "do_center_crop": True}
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(card | sizes))
    return folder


def settings_of(tiny: Tiny, encoder: str, t5: Path) -> list[str]:
    """The recipe's own settings but for sizes."""
    small = {
        "dataset.root": tiny.root,
        "backbone.model": t5,
        "identifier.codebook_size": 8,
        "identifier.train.epochs": 2,
        "train.epochs": 2,
        "train.rank_beams": 4,
    }
    words = [f"{key}={value}" for key, value in small.items()]
    return [part for word in (*words, encoder) for part in ("--set", word)]


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1, "one JSON document and nothing else"
    return json.loads(lines[0])


def check_evaluation(found: dict[str, Any], tiny: Tiny, beams: list[int]) -> None:
    """The shape that ARCHITECTURE promises, and what has to hold between the figures."""
    num_images = len(tiny.image_ids["test"])
    assert found["protocol"] == "inductive" and found["concepts"] is None and found["split"] == "test"
    assert (found["num_images"], found["num_queries"], found["num_beams"]) == (num_images, 2 * num_images, beams[-1])
    assert list(found["by_num_beams"]) == [str(width) for width in beams]
    assert found["by_num_beams"][str(beams[-1])] == found["recall"]
    tables = [found[key] for key in ("recall", "identifier_recall", "two_tower", "ceiling", "reranked")]
    for recall in (*tables, *found["by_num_beams"].values()):
        assert list(recall) == ["1", "5", "10"]
        values = [value for value in recall.values() if value is not None]
        assert values == sorted(values) and all(0 <= value <= 100 for value in values)
    assert set(found["identifier"]) == {"unique_rate", "max_bucket", "perplexity"}
    assert len(found["identifier"]["perplexity"]) == 4 and 0 < found["identifier"]["unique_rate"] <= 1

    ledger = {row["stage"]: row for row in found["ledger"]}
    assert list(ledger) == [
        "dense", "quantization", "level 1", "level 2", "level 3", "level 4", "beam", "collision", "recovered",
        "reached", "rerank", "final",
    ]  # fmt: skip
    changes = [row for row in found["ledger"] if "lost" in row]
    assert ledger["dense"]["queries"] - sum(row["queries"] for row in changes) == ledger["final"]["queries"]
    before_rerank = [row["queries"] for row in changes if row["stage"] != "rerank"]
    assert ledger["dense"]["queries"] - sum(before_rerank) == ledger["reached"]["queries"]
    assert [ledger[stage]["recall"] for stage in ("dense", "quantization", "reached", "final")] == [
        found[key]["10"] for key in ("two_tower", "ceiling", "recall", "reranked")
    ]


def recall_from_trec(folder: Path, k: int) -> float:
    """recall@k by nothing but the two files."""
    right = {line.split()[0]: line.split()[2] for line in (folder / "qrels.trec").read_text().splitlines()}
    within = defaultdict(set)
    for line in (folder / "run.trec").read_text().splitlines():
        query, _, image, rank, *_ = line.split()
        if int(rank) <= k:
            within[query].add(image)
    return 100 * sum(image in within[query] for query, image in right.items()) / len(right)


@needs_starter
def test_flickr30k_end_to_end(genret: Any, tmp_path: Path) -> None:
    recipe = ["recipes/avg.yaml", "recipes/scale/flickr30k.yaml"]
    tiny = make_karpathy(tmp_path / "flickr30k", "flickr30k", folders=False)
    encoder, t5 = make_open_clip(tmp_path / "clip"), make_t5(tmp_path / "t5")
    settings = settings_of(tiny, f"encoder.model={encoder}", t5)

    result = genret("train", *recipe, *settings)
    assert result.exit_code == 1 and "29,000" in result.stderr, "an incomplete Flickr30K is refused by its counts"
    settings += ["--set", "dataset.expect={}"]
    run = tmp_path / "run"
    trained = document(genret("train", *recipe, *settings, "--run", run, "--json"))
    check_evaluation(trained["evaluation"], tiny, [30])
    assert genret("train", *recipe, *settings, "--run", run).exit_code == 2, "the directory is in use"
    stages = {
        "features",
        "leakage",
        "encoder",
        "identifier",
        "targets",
        "generator",
        "catalog",
        "evaluation",
        "copies",
        "evaluators",
    }
    assert stages == set(trained["seconds"])

    found = document(genret("evaluate", "--run", run, "--num-beams", "1,5,30", "--trec", tmp_path / "trec", "--json"))
    check_evaluation(found, tiny, [1, 5, 30])
    assert found["by_num_beams"]["1"]["5"] is None and found["by_num_beams"]["5"]["10"] is None
    assert found["recall"] == trained["evaluation"]["recall"], "a second look finds the same"
    for k in (1, 5, 10):
        assert found["recall"][str(k)] == pytest.approx(recall_from_trec(tmp_path / "trec", k))

    answer = document(genret("search", "a red square on grey", "--run", run, "-k", 3, "--json"))
    assert set(answer) == {"query", "hits", "num_beams", "elapsed_ms", "confidence"} and answer["num_beams"] == 30
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 0
    for hit in answer["hits"]:
        assert set(hit) == {"rank", "image_id", "uri", "score", "identifier"}
        assert hit["image_id"] in tiny.image_ids["test"] and len(hit["identifier"]) == 4

    # another learning rate for the generator: everything before it is there already
    again = genret("train", *recipe, *settings, "--set", "train.lr=0.002", "--run", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    for stage, state in {"encoder": "reused", "identifier": "reused", "targets": "reused", "generator": "done"}.items():
        assert f"\n{stage}: {state}" in "\n" + again.stderr


@needs_starter
def test_coco_end_to_end(genret: Any, tmp_path: Path) -> None:
    recipe = ["recipes/avg.yaml", "recipes/scale/coco.yaml"]
    tiny = make_karpathy(tmp_path / "coco", "coco", folders=True)
    clip, t5 = make_clip(tmp_path / "clip"), make_t5(tmp_path / "t5")
    settings = [*settings_of(tiny, f"encoder={{type: clip, model: {clip}}}", t5), "--set", "dataset.expect={}"]

    trained = document(genret("train", *recipe, *settings, "--json"))
    run = Path(trained["run"])
    assert run.name == "avg-coco-1"
    check_evaluation(trained["evaluation"], tiny, [30])
    stored = json.loads((run / "summary.json").read_text())["evaluation"]
    assert stored == trained["evaluation"]
    check_evaluation(document(genret("evaluate", "--json")), tiny, [30])

    draw(tmp_path / "mine" / "own.png", "red", "cross", "white")
    report = document(genret("index", tmp_path / "mine", "--json"))
    assert report == {"added": 1, "removed": 0, "updated": 0, "moved": 0, "unchanged": 0, "missing": 0, "skipped": []}
    hits = document(genret("search", "a red cross", "-k", 100, "--json"))["hits"]
    assert {hit["image_id"] for hit in hits} == {*tiny.image_ids["test"], str(tmp_path / "mine" / "own.png")}
    check_evaluation(document(genret("evaluate", "--json")), tiny, [30])  # of the split alone
