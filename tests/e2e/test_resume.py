"""A training that is killed in every stage, twice, and resumed ends with the same bits as one that never was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from genret.train.artifacts import only_trainer

KILLS = [
    "features:2", "features:3", "heads:2", "heads:4", "tokenizer:2", "tokenizer:5", "targets:1", "targets:2",
    "generator:2", "generator:5", "catalog:2", "catalog:3", "evaluation:1", "evaluation:1",
]  # fmt: skip
"""One after the other: each start resumes the one before."""


class Trainer:
    """Trains in processes of their own, forked from one that has everything imported."""

    def __init__(self, tiny: Any, folder: Path):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GENRET_NUM_THREADS": "1", "GENRET_DEVICE": "cpu"}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        script = Path(__file__).with_name("forks.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server: Any = subprocess.Popen([sys.executable, script], env=environment, **pipes)  # type: ignore[call-overload]
        self.tiny, self.folder = tiny, folder
        self.log = folder / "log.txt"

    def train(self, name: str, *words: object, kill: str = "") -> int:
        """`genret train` with a home and a run called `name`; the exit status, -9 if it was killed."""
        home, run = self.folder / name, self.folder / f"{name}-run"
        words = ("train", self.tiny.recipe, "--run", run, *words)
        wanted = {"words": [str(word) for word in words], "home": str(home), "kill": kill, "log": str(self.log)}
        self.server.stdin.write(json.dumps(wanted) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait(timeout=60)


@pytest.fixture(scope="module")
def trainer(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    trainer = Trainer(tiny, tmp_path_factory.mktemp("resume"))
    yield trainer
    trainer.close()


@pytest.fixture(scope="module")
def whole(trainer: Trainer) -> Path:
    """The run that nobody stopped."""
    assert trainer.train("whole") == 0, trainer.said()
    return trainer.folder / "whole-run"


def losses(run: Path) -> dict[str, dict[str, float]]:
    """The last row of each loop: its losses and its look at the development split."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["stage"]: row for row in rows if "event" not in row}


def assert_same(run: Path, whole: Path) -> None:
    for file in ("encoder/heads", "identifier/tokenizer", "generator/model"):
        assert (run / f"{file}.safetensors").read_bytes() == (whole / f"{file}.safetensors").read_bytes(), file
    assert codes(run) == codes(whole)
    assert losses(run) == losses(whole)
    assert evaluation(run) == evaluation(whole)
    assert (run / "quality.json").read_text() == (whole / "quality.json").read_text()


def codes(run: Path) -> list[tuple[str, bytes]]:
    """Every image's identifiers, as the catalog has them."""
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{run / 'catalog.sqlite'}")
    with engine.connect() as connection:
        asked = "select image_id, identifier from identifiers join images on images.id = image_key order by 1, 2"
        found = [(row[0], row[1]) for row in connection.execute(text(asked))]
    engine.dispose()
    assert found
    return found


def evaluation(run: Path) -> Any:
    return json.loads((run / "summary.json").read_text())["evaluation"]


def test_killed_twice_in_every_stage(trainer: Trainer, whole: Path) -> None:
    run = trainer.folder / "killed-run"
    for number, kill in enumerate(KILLS):
        assert trainer.train("killed", *(["--resume"] if number else []), kill=kill) == -9, f"{kill}: {trainer.said()}"
        assert not (run / "summary.json").exists(), "an unfinished run must not look finished"
    assert trainer.train("killed", "--resume") == 0, trainer.said()
    assert "Traceback" not in trainer.said()
    resumed = [
        json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines() if "event" in line
    ]
    assert {"heads", "tokenizer", "generator"} == set(resumed), "loops go on from their checkpoints"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "event" not in line]
    epochs = [(row["stage"], row["epoch"]) for row in rows]
    assert len(set(epochs)) == len(epochs), "no epoch is listed twice"
    assert_same(run, whole)
    left = [path.name for path in (trainer.folder / "killed" / "artifacts").glob("*/*") if path.suffix == ".partial"]
    assert not left, "checkpoints are gone once their stage is done"


def test_a_finished_run_resumed_stays_as_it_is(trainer: Trainer, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*.safetensors")}
    known, figures = codes(whole), evaluation(whole)
    assert trainer.train("whole", "--resume") == 0, trainer.said()
    assert {path: path.read_bytes() for path in whole.rglob("*.safetensors")} == before
    assert (codes(whole), evaluation(whole)) == (known, figures)


def test_a_damaged_checkpoint_or_stage_is_made_anew(trainer: Trainer, whole: Path) -> None:
    """A resumed training does not stumble over what a crash of the machine has cut short."""
    assert trainer.train("torn", kill="generator:5") == -9
    (checkpoint,) = (trainer.folder / "torn" / "artifacts").glob(
        "generator/*.partial/checkpoints/*/tensors.safetensors"
    )
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with (trainer.folder / "torn-run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"stage": "gener')
    (facts,) = (trainer.folder / "torn" / "artifacts").glob("targets/*/stage.json")
    facts.write_text("")
    (codebooks,) = (trainer.folder / "torn" / "artifacts").glob("identifier/*/tokenizer.safetensors")
    codebooks.write_bytes(codebooks.read_bytes()[:-100])
    assert trainer.train("torn", "--resume") == 0, trainer.said()
    assert load_file(trainer.folder / "torn-run" / "identifier" / "tokenizer.safetensors")
    assert_same(trainer.folder / "torn-run", whole)


def test_two_trainings_of_one_run(trainer: Trainer, whole: Path) -> None:
    with only_trainer(whole):
        assert trainer.train("whole", "--resume") == 1
        assert trainer.said().rstrip().endswith("is being trained by another process; wait for it to end, or stop it")
    assert trainer.train("whole", "--resume") == 0, "the lock ends with its owner"
