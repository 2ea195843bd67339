"""Trackers: real trainings, and what each tracker wrote, read back by its own package, without a network."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from genret.api import Silent
from genret.errors import UsageError
from genret.plugin.loading import load_plugins
from genret.settings import Settings
from genret.share.trackers.tracking import asked_for, known_trackers
from genret.testing.world import pictures
from genret.testing.world.run import RECIPES
from genret.training import TrainSummary, train

Train = Callable[..., TrainSummary]
STAGE = "generator"


class Noted(Silent):
    """What is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """`trainer(track, name, home)` → the run of a tiny generative training; the stages are made anew each time."""
    from genret.recipe.load import load_recipe

    root = tmp_path_factory.mktemp("trackers")
    (root / "world.yaml").write_text("dataset: world\nencoder: world\n" + RECIPES["generative"])

    def run(track: str, name: str, ui: Any = None, plugin: Any = None, files: Sequence[Path] = ()) -> TrainSummary:
        settings = Settings(home=root / name, plugins="", device="cpu", track=track, num_threads=1)
        loaded = load_plugins(files, settings)
        loaded.include(pictures)
        if plugin is not None:
            loaded.registries.function.register("tracker:mine", plugin, "test")
        folder = root / name / "runs" / "tracked"
        folder.mkdir(parents=True)
        overrides = ["train.epochs=3", "train.bf16=false"]
        recipe = load_recipe([root / "world.yaml"], overrides, loaded.registries)
        return train(recipe, folder, loaded.registries, settings, ui or Silent())

    yield run


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == STAGE]


def check(run: Path, found: dict[str, list[tuple[int, float]]]) -> None:
    """`found`: by metric, (step, value) in order: the losses of `metrics.jsonl` and the recalls of the summary."""
    rows = rows_of(run)
    assert f"{STAGE}/loss" in found, sorted(found)
    assert len(rows) == 3 and [step for step, _ in found[f"{STAGE}/loss"]] == [0, 1, 2]
    for (_, value), row in zip(found[f"{STAGE}/loss"], rows, strict=True):
        assert math.isclose(value, row["loss"], rel_tol=1e-5)
    evaluation = json.loads((run / "summary.json").read_text())["evaluation"]
    for key, name in (("recall", "recall_at_10"), ("two_tower", "two_tower/recall_at_10")):
        ((_, value),) = found[f"evaluation/{name}"]
        assert math.isclose(value, evaluation[key]["10"], rel_tol=1e-5)
    assert f"seconds/{STAGE}" in found


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs the package {package}: an extra")


@needs("tensorboard")
def test_tensorboards_event_files(trainer: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer("tensorboard", "tensorboard", ui := Noted()).run
    assert not [text for text in ui.warnings if "tracker" in text]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    check(run, found)
    (recipe,) = events.Tensors("recipe/text_summary")
    assert b"residual-kmeans" in recipe.tensor_proto.string_val[0]


@pytest.mark.slow  # ten seconds for the tables of an empty store
@needs("mlflow")
@pytest.mark.filterwarnings("ignore")  # mlflow's models use what SQLAlchemy 2.1 deprecates
def test_mlflows_store(trainer: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = trainer("mlflow", "mlflow", ui := Noted()).run
    assert not [text for text in ui.warnings if "tracker" in text]
    client = MlflowClient(tracking_uri=f"sqlite:///{run.parents[1] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("genret")
    (stored,) = client.search_runs([experiment.experiment_id])
    history = {
        name: [(one.step, one.value) for one in client.get_metric_history(stored.info.run_id, name)]
        for name in stored.data.metrics
    }
    check(run, history)
    assert stored.info.status == "FINISHED" and stored.info.run_name == "tracked"
    assert stored.data.params["identifier.type"] == "residual-kmeans"


@needs("wandb")
def test_weights_and_biases_offline_file(trainer: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = trainer("wandb", "wandb", ui := Noted()).run
    assert not [text for text in ui.warnings if "tracker" in text]
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    found = dict[str, list[tuple[int, float]]]()
    for data in leveldb_records(file.read_bytes()[7:]):  # after the mark ":W&B" and the version
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in row.items():
            if not name.startswith("_") and not name.endswith("/epoch"):
                step = row[f"{name.partition('/')[0]}/epoch"]
                found.setdefault(name, []).append((step, value))
    check(run, found)


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format: blocks of 32 KiB with pieces: checksum, length, kind (1 whole, 2 first, 3 more, 4 last)."""
    at, record = 0, b""
    while at + 7 <= len(data):
        if 32768 - (at + 7) % 32768 < 7:  # the rest of a block that has no room for a header
            at += 32768 - (at + 7) % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record = data[at + 7 : at + 7 + length] if kind in (1, 2) else record + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record


@needs("trackio")
def test_trackios_database(trainer: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its place is fixed when it is imported, which has to happen here."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert "trackio" not in sys.modules
    run = trainer("trackio", "trackio", ui := Noted()).run
    assert not [text for text in ui.warnings if "tracker" in text]
    (file,) = (tmp_path / "trackio").glob("genret*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT metrics FROM metrics WHERE run_name = 'tracked' ORDER BY id").fetchall()
    found = dict[str, list[tuple[int, float]]]()
    for (text,) in rows:
        row = json.loads(text)
        for name, value in row.items():
            if not name.endswith("/epoch"):
                found.setdefault(name, []).append((row[f"{name.partition('/')[0]}/epoch"], value))
    check(run, found)


# ------------------------------------------------------------------------------------------------ the interface
class Fails:
    """A plugin's tracker that fails in the second epoch."""

    def __init__(self, run: Any):
        self.told: list[tuple[str, int]] = []
        made.append(self)

    def log(self, stage: str, metrics: dict[str, float], step: int) -> None:
        self.told.append((stage, step))
        if step == 1:
            raise OSError("the server\nis gone")

    def close(self, finished: bool) -> None:
        raise AssertionError("it was left out")


made: list[Fails] = []


def test_a_tracker_that_fails_warns_once_and_the_training_goes_on(trainer: Train) -> None:
    ui = Noted()
    done = trainer("mine", "fails", ui, Fails)
    (warning,) = [text for text in ui.warnings if "tracker" in text]
    assert "'mine'" in warning and "OSError: the server is gone" in warning and "metrics.jsonl" in warning
    assert (done.run / "summary.json").is_file() and len(rows_of(done.run)) == 3
    assert made[-1].told[-1] == (STAGE, 1), "nothing more is sent"


def test_the_tracker_of_the_documents(trainer: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut out of docs/tracking.md, as a one-file plugin."""
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "printer.py").write_text(code)
    run = trainer("print", "printer", None, None, [tmp_path / "printer.py"]).run
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("begins tracked", "finished")
    assert [line for line in lines if line.startswith(f"{STAGE} 2 ")] == [
        f"{STAGE} 2 { {k: float(v) for k, v in rows_of(run)[2].items() if k not in ('stage', 'epoch')} }"
    ]


def test_one_that_cannot_begin_is_left_out(trainer: Train) -> None:
    ui = Noted()

    def start(run: Any) -> Any:
        raise SystemExit("no account")

    done = trainer("mine", "begin", ui, start)
    assert (done.run / "summary.json").is_file() and "no account" in ui.warnings[0]


def test_trackers_change_no_key(trainer: Train) -> None:
    """Nor anything that is trained: another run with the same home finds all stages."""

    class Quiet:
        def __init__(self, run: Any):
            self.run = run

        def log(self, stage: str, metrics: dict[str, float], step: int) -> None:
            assert all(isinstance(value, float) for value in metrics.values())

        def close(self, finished: bool) -> None:
            assert finished

    with_it, without = trainer("mine", "quiet", None, Quiet), trainer("", "none")
    keys = [sorted(path.parent.name for path in run.run.parents[1].glob("artifacts/*/*/stage.json"))
            for run in (with_it, without)]  # fmt: skip
    assert keys[0] == keys[1] and len(keys[0]) >= 3
    assert [row["loss"] for row in rows_of(with_it.run)] == [row["loss"] for row in rows_of(without.run)]


def test_unknown_trackers_and_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    registries = load_plugins((), Settings(plugins="")).registries
    assert known_trackers(registries) == ["mlflow", "tensorboard", "trackio", "wandb"]
    with pytest.raises(UsageError, match="--track tensorbord: there is no such tracker, did you mean 'tensorboard'"):
        asked_for("tensorbord", registries)
    monkeypatch.setattr("genret.share.trackers.tracking.find_spec", lambda name: None)
    for name in known_trackers(registries):
        with pytest.raises(UsageError, match=rf"--track {name} needs the package '{name}': pip install '?genret"):
            asked_for(f"{name}", registries)
    assert asked_for("", registries) == asked_for(None, registries) == {}
