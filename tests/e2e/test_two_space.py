"""Two spaces through the program: trained, evaluated, searched, added to, and carried elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genret.api import Identifiers, QueryBatch
from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.settings import Settings


@pytest.fixture(scope="module")
def trained(tiny: Any) -> tuple[Path, dict[str, Any]]:
    text = f'{{type: sentence, model: "{tiny.text}", bf16: false}}'
    image = "{type: timm, model: test_resnet, pretrained: false, image_size: 32, bf16: false}"
    other = image.replace("32", "48")
    train = "{epochs: 4, batch_size: 16}"
    options = [
        f"encoder={{type: two-space, image: {image}, text: {text}, reader: {text}, reader_image: {other}, dim: 16, "
        f"train: {train}}}",
        "identifier={type: two-space, codebook_size: 4, num_levels: 3, reader_levels: 2, encode_beam: 2}",
        f"backbone.encoder=[{tiny.text}, {tiny.text}]",
        "backbone.num_layers=0",
        "backbone.code_head=16",
        "loss.distill.weight=1",
        "train.written_levels=2",
        "train.epochs=1",
        "search.guidance=20",
    ]
    sets = [word for option in options for word in ("--set", option)]
    run = tiny.root / "two-space"
    answer = tiny.genret("train", tiny.recipe, *sets, "--run", run, "--json")
    return run, answer.document["evaluation"]


def test_queries_are_compared_in_the_first_space_alone(tiny: Any, trained: tuple[Path, dict[str, Any]]) -> None:
    run, found = trained
    assert found["drowned_out"] is not None and found["written_levels"] == 2
    assert len(found["identifier"]["perplexity"]) == 2 + 3
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    encoder: Any = Run(run, load_plugins((), settings).registries, settings).retriever.encoder
    texts = encoder.text_features(["a red square on grey", "some orange ground with a line, blue"])
    seen = sum(one.heads.image.mean.shape[0] for one in (encoder.compared, encoder.read))
    images = encoder.project_images(torch.randn(8, seen))
    queries, width = encoder.project_texts(texts), texts.shape[1] // 2
    alone = encoder.compared.project_texts(texts[:, :width])
    torch.testing.assert_close(queries @ images.T, alone @ images[:, :16].T)
    assert bool((images[:, 16:].norm(dim=1) > 0.7).all()), "images have a part of both"


def of_leaves(run: Run, query: str, gamma: float, own: float, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The guidance of every identifier by the retriever, and by both comparisons written out."""
    retriever: Any = run.retriever
    changed = {"guidance": gamma, "self_guidance": own, "length_weight": beta}
    retriever.options = retriever.options.model_copy(update=changed)
    with retriever.catalog.snapshot() as snapshot:
        rows = snapshot.read_identifiers(searchable=True)
        index = retriever.index_at(snapshot)
    batch, trie = QueryBatch([query], retriever.text_vectors), index.trie
    found = retriever.guidance.begin(batch, trie)[1].of_leaves(torch.arange(trie.num_leaves)[None])[0]
    codes = torch.from_numpy(rows.codes).long().unique(dim=0)
    leaves = {tuple(row): leaf for leaf, row in enumerate(trie.tokens_of(torch.arange(trie.num_leaves)).tolist())}
    tokens = retriever.backbone.tokens(Identifiers(torch.arange(len(codes)), codes))
    found = found[[leaves[tuple(row)] for row in tokens.tolist()]]
    vectors = retriever.identifier.code_vectors().view(5, 4, 32)
    points = torch.stack([vectors[level][codes[:, level]] for level in range(5)], dim=1)  # (U, 5, 32)
    z = torch.nn.functional.normalize(batch.vectors[0, :16], dim=0) * 0.5**0.5
    states, mask = retriever.backbone._encoder([query], torch.device("cpu"))
    u = retriever.backbone.module["codes"].read(states, mask)[0]
    wanted = torch.zeros(len(codes))
    for weight, target, point in ((gamma, z, points.sum(1)[:, :16]), (own, u, points[:, :2].sum(1))):
        near = point @ target - beta / 2 * point.square().sum(1)
        wanted += weight * (near - target.square().sum() / 2 / beta)
    return found, wanted


@torch.no_grad()
@pytest.mark.parametrize(
    ("gamma", "own", "beta"), [(20.0, 0.0, 1.0), (20.0, 30.0, 1.0), (0.0, 30.0, 1.0), (20.0, 30.0, 0.5)]
)
def test_guidance_by_the_query_and_by_what_the_model_reads(
    tiny: Any, trained: tuple[Path, dict[str, Any]], gamma: float, own: float, beta: float
) -> None:
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    with Run(trained[0], load_plugins((), settings).registries, settings) as run:
        found, wanted = of_leaves(run, "a red cross", gamma, own, beta)
        torch.testing.assert_close(found, wanted)
        assert len(run.search("a red cross", 5).hits) == 5


@torch.no_grad()
def test_neither_vector_has_a_part_in_the_others_search(tiny: Any, trained: tuple[Path, dict[str, Any]]) -> None:
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    with Run(trained[0], load_plugins((), settings).registries, settings) as run:
        retriever: Any = run.retriever
        plain = retriever.drowned_out().search(["a red cross"], 8)[0].hits
        retriever.options = retriever.options.model_copy(update={"self_guidance": 30.0})
        assert retriever.drowned_out().search(["a red cross"], 8)[0].hits == plain, "what the model reads is not heard"
        retriever.options = retriever.options.model_copy(update={"guidance": 0.0})
        assert retriever.drowned_out() is None and not retriever.wants_vectors

        def refuse(_: Any) -> Any:
            raise AssertionError("no vector of the query from outside is asked for")

        with retriever.catalog.snapshot() as snapshot:
            beams = retriever.beams(QueryBatch(["a red cross"], refuse), retriever.index_at(snapshot).trie, 4)
        assert bool((beams.leaves >= 0).all())


def test_a_run_is_searched_and_added_to_where_it_is_carried(
    tiny: Any, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, _ = trained
    before = tiny.search("--run", run)
    assert len(before) == 8
    assert tiny.genret("push", run, tmp_path / "bundle").code == 0
    assert tiny.genret("pull", tmp_path / "bundle", "--run", "pulled", home=tmp_path / "home").code == 0
    assert tiny.search("--run", "pulled", home=tmp_path / "home") == before
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (tmp_path / "mine").mkdir()
    shutil.copy(tiny.data / "01.png", tmp_path / "mine" / "again.png")
    assert tiny.genret("index", tmp_path / "mine", "--run", copy, "--json").document["added"] == 1
    hits = tiny.genret("search", "a red cross", "-k", 50, "--run", copy, "--json").document["hits"]
    named = {hit["image_id"]: hit["identifier"] for hit in hits}
    again, first = named[str(tmp_path / "mine" / "again.png")], named["01.png"]
    assert len(again) == 5 and again[:2] == first[:2], "the same picture has the same written codes"


def test_one_without_the_other_is_refused(tiny: Any, failed: Callable[..., None], tmp_path: Path) -> None:
    answer = tiny.genret("train", tiny.recipe, "--set", "identifier=two-space", "--run", tmp_path / "run")
    failed(answer, 2, "identifier two-space needs vectors of several spaces")


def test_self_guidance_needs_a_model_that_reads_vectors(tiny: Any, failed: Callable[..., None], tmp_path: Path) -> None:
    sets = ("--set", "search.self_guidance=10", "--run", tmp_path / "run")
    failed(tiny.genret("train", tiny.recipe, *sets), 2, "search.self_guidance: needs a backbone that reads a query as")
