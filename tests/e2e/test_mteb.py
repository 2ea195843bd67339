"""A run among MTEB's models: its evaluator, a task made of the tiny data set, and genret's own figures beside it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from genret.errors import GenretError, UsageError
from genret.settings import Settings

mteb = pytest.importorskip("mteb", reason="pip install genret[mteb]")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:mteb.*", "ignore::ResourceWarning")

ROOT = Path(__file__).parents[2]
ABOUT = {
    "type": "Any2AnyRetrieval", "main_score": "ndcg_at_10", "description": "A dozen drawings.", "reference": None,
    "dataset": {"path": "nowhere", "revision": "1"}, "eval_langs": ["eng-Latn"], "date": None, "domains": None,
    "task_subtypes": None, "license": None, "annotations_creators": None, "dialect": None, "sample_creation": None,
    "bibtex_citation": "", "modalities": ["text", "image"],
}  # fmt: skip


def make_task(data: Path, splits: dict[str, str], category: str = "t2i", **more: Any) -> Any:
    """The data set of the end-to-end tests as MTEB has its own: pictures with ids, queries, and who answers them."""
    import csv

    import datasets
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    with (data / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    class Drawings(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Drawings", category=category, eval_splits=[split for split in splits if split != "train"], **ABOUT
        )

        def load_data(self, num_proc: int | None = None, **words: Any) -> None:
            self.dataset = {"default": {}}
            for split, name in splits.items():
                mine = [row for row in rows if row["split"] == name]
                images = list(dict.fromkeys(row["image"] for row in mine))
                corpus = datasets.Dataset.from_dict({"id": images, "image": [str(data / image) for image in images]})
                queries = {"id": [f"q{i}" for i in range(len(mine))], "text": [row["caption"] for row in mine]}
                self.dataset["default"][split] = {
                    "corpus": corpus.cast_column("image", datasets.Image()),
                    "queries": datasets.Dataset.from_dict(queries),
                    "relevant_docs": {f"q{i}": {row["image"]: 1} for i, row in enumerate(mine)},
                    "top_ranked": more.get("top_ranked"),
                }
            self.data_loaded = True

    return Drawings()


def scores_of(model: Any, task: Any) -> dict[str, float]:
    (result,) = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results
    (scores,) = result.scores["test"]
    return scores


@pytest.fixture
def settings(tiny: Any) -> Settings:
    return Settings(home=tiny.home, device="cpu", num_threads=1)


@pytest.fixture(scope="module")
def dense(tiny: Any) -> Path:
    """The two-tower run beside the generative one, with the same heads."""
    recipe = tiny.root / "dense.yaml"
    recipe.write_text(f"retriever: two-tower\n{tiny.recipe.read_text().partition('identifier:')[0]}")
    found = tiny.genret("train", recipe, "--run", tiny.root / "dense-run", "--json")
    assert found.code == 0, found.err
    return tiny.root / "dense-run"


def snapshot(run: Path) -> dict[str, bytes]:
    """All but SQLite's own bookkeeping, which comes and goes with the last reader."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and ".sqlite-" not in path.name)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["generative", "narrow", "two-tower", "reranked"])
def test_the_same_figures_as_genrets_own(tiny: Any, run: Path, dense: Path, settings: Settings, kind: str) -> None:
    from genret.lab.mteb import GenretSearch

    if kind == "reranked":
        text = (run / "recipe.yaml").read_text()
        assert "rerank: null" in text
        (run / "recipe.yaml").write_text(text.replace("rerank: null", "rerank: dense"))
    where, beams = (dense, None) if kind == "two-tower" else (run, 3 if kind == "narrow" else None)
    words = ("--num-beams", 3) if kind == "narrow" else ()
    own = tiny.genret("evaluate", "--run", where, "--json", *words).document
    before = snapshot(where)
    model = GenretSearch(where, num_beams=beams, settings=settings)
    found = scores_of(model, make_task(tiny.data, {"test": "test"}))
    for k, value in own["recall"].items():
        if value is not None:
            assert 100 * found[f"hit_rate_at_{k}"] == pytest.approx(value, abs=1e-3)
            assert found[f"recall_at_{k}"] == found[f"hit_rate_at_{k}"], "one picture answers a query"
    assert 0 < found["hit_rate_at_5" if kind != "narrow" else "hit_rate_at_3"] <= 1, "not vacuous"
    assert snapshot(where) == before, "the run is only read"


def test_every_query_is_answered_by_distinct_scores(tiny: Any, settings: Settings) -> None:
    """Beams bound what is found; pictures with one identifier differ; the protocol is MTEB's own."""
    from mteb.models import SearchProtocol

    from genret.lab.mteb import GenretSearch

    model = GenretSearch(tiny.run, num_beams=4, settings=settings)
    assert isinstance(model, SearchProtocol)
    task = make_task(tiny.data, {"test": "test"})
    task.load_data()
    split = task.dataset["default"]["test"]
    told = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    with pytest.raises(UsageError, match="after index"):
        model.search(split["queries"], top_k=10, num_proc=None, **told)
    model.index(split["corpus"], num_proc=None, **told)
    found = model.search(split["queries"], top_k=1000, num_proc=None, **told)
    assert set(found) == set(split["queries"]["id"])
    for scores in found.values():
        assert 1 <= len(scores) <= 4 and len(set(scores.values())) == len(scores)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert all(len(one) <= 2 for one in model.search(split["queries"], top_k=2, num_proc=None, **told).values())
    # a second corpus takes the place of the first
    few = split["corpus"].select(range(2))
    model.index(few, num_proc=None, **told)
    again = model.search(split["queries"], top_k=10, num_proc=None, **told)
    assert {name for scores in again.values() for name in scores} == set(few["id"])
    blank = split["queries"].select(range(1)).map(lambda row: {"text": "  "})
    assert model.search(blank, top_k=10, num_proc=None, **told) == {"q0": {}}
    model.close()
    assert not model._folder.exists()


def test_candidates_that_are_given_are_all_ranked(tiny: Any, settings: Settings) -> None:
    """MTEB's reranking of another model's answers: only those pictures, and every one of them."""
    from genret.lab.mteb import GenretSearch

    task = make_task(tiny.data, {"test": "test"})
    task.load_data()
    split = task.dataset["default"]["test"]
    names = split["corpus"]["id"]
    given = {
        query: [names[i % len(names)], names[(i + 3) % len(names)]] for i, query in enumerate(split["queries"]["id"])
    }
    model = GenretSearch(tiny.run, num_beams=1, settings=settings)
    told = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    model.index(split["corpus"], num_proc=None, **told)
    found = model.search(split["queries"], top_k=10, top_ranked=given, num_proc=None, **told)
    assert {query: set(scores) for query, scores in found.items()} == {query: set(two) for query, two in given.items()}


def test_what_mteb_is_told(tiny: Any, dense: Path, settings: Settings) -> None:
    from genret.lab.mteb import GenretSearch

    one = GenretSearch(tiny.run, settings=settings).mteb_model_meta
    wide = GenretSearch(tiny.run, num_beams=50, settings=settings).mteb_model_meta
    two = GenretSearch(dense, settings=settings).mteb_model_meta
    assert one.name == f"genret/{tiny.run.name}" and one.modalities == ["text", "image"]
    assert one.training_datasets is None and one.n_parameters is None, "what is not known is not claimed"
    assert (one.similarity_fn_name.value, two.similarity_fn_name.value) == ("custom", "cosine")
    assert one.revision != two.revision and wide.experiment_kwargs == {"num_beams": 50} and not one.experiment_kwargs
    with pytest.raises(UsageError, match="num_beams"):
        GenretSearch(dense, num_beams=4, settings=settings)


def test_other_tasks_and_broken_pictures(tiny: Any, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    import datasets

    from genret.lab.mteb import GenretSearch

    model = GenretSearch(tiny.run, settings=settings)
    with pytest.raises(GenretError, match=r"'i2t'.*'t2i'"):
        scores_of(model, make_task(tiny.data, {"test": "test"}, category="i2t"))
    task = make_task(tiny.data, {"test": "test"})
    good = (tiny.data / "01.png").read_bytes()
    corpus = datasets.Dataset.from_dict(
        {"id": ["a", "b"], "image": [{"bytes": good, "path": None}, {"bytes": good[:60], "path": None}]}
    ).cast_column("image", datasets.Image())
    with caplog.at_level(logging.WARNING):
        model.index(corpus, task_metadata=task.metadata)
    assert "Drawings/b is left out" in caplog.text
    with pytest.raises(GenretError, match="no picture"):
        model.index(corpus.select([1]), task_metadata=task.metadata)


def test_training_on_a_tasks_own_split(tiny: Any, tmp_path: Path, settings: Settings) -> None:
    """A recipe is enough where there is no run; the second time it is found, and its data set is told to MTEB."""
    from genret.lab.mteb import GenretSearch

    task = make_task(tiny.data, {"train": "train", "test": "test"})
    home = Settings(home=tmp_path, device="cpu", num_threads=1)
    quick = ["train.epochs=1", "train.rank_beams=2"]
    model = GenretSearch.trained(task, [tiny.recipe], quick, settings=home)
    assert model.recipe.protocol == "inductive" and model.mteb_model_meta.training_datasets == {"Drawings"}
    own = tiny.genret("evaluate", "--run", model.run, "--json", home=tmp_path).document
    found = scores_of(model, task)
    assert 100 * found["hit_rate_at_5"] == pytest.approx(own["recall"]["5"], abs=1e-3)
    assert (own["num_images"], own["num_queries"]) == (8, 16)
    when = (model.run / "summary.json").stat().st_mtime_ns
    again = GenretSearch.trained(task, [tiny.recipe], quick, settings=home)
    assert again.run == model.run and (again.run / "summary.json").stat().st_mtime_ns == when
    with pytest.raises(GenretError, match=r"no split 'train', only test.*eval_splits"):
        GenretSearch.trained(
            make_task(tiny.data, {"test": "test"}), [tiny.recipe], settings=Settings(home=tmp_path / "x")
        )


def test_the_documents_lines_run(
    tiny: Any, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word by word, with a small task in the place of MTEB's."""
    import shutil

    task = make_task(tiny.data, {"train": "train", "test": "test"})
    monkeypatch.setenv("GENRET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENRET_DEVICE", "cpu")
    monkeypatch.setattr(mteb, "get_tasks", lambda **words: [task])
    monkeypatch.setattr(mteb, "get_task", lambda name, **words: task)
    for name, source in {"avg-1": tiny.run, "two-tower-1": dense}.items():
        shutil.copytree(source, tmp_path / "home" / "runs" / name)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "avg.yaml").write_text(tiny.recipe.read_text().replace("epochs: 4", "epochs: 1"))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "mteb.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    shown = capsys.readouterr().out.splitlines()
    assert len([line for line in shown if "hit_rate" in line or line.count(".") >= 2]) >= 2, shown
