"""Stages are made once, found again by what went into them, and survive being killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genret.errors import GenretError
from genret.train.artifacts import Artifacts, content_key, only_trainer


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def write_answer(folder: Path, checkpoints: Path) -> None:
    (folder / "answer.txt").write_text("42")


def test_a_stage_is_made_once_and_reused(store):
    first = store.stage("heads", {"lr": 1.0}, ["abc"], write_answer)
    again = store.stage("heads", {"lr": 1.0}, ["abc"], lambda folder, checkpoints: pytest.fail("made twice"))
    assert not first.reused and again.reused
    assert again.folder == first.folder and (again.folder / "answer.txt").read_text() == "42"
    facts = json.loads((first.folder / "stage.json").read_text())
    assert facts["options"] == {"lr": 1.0} and facts["inputs"] == ["abc"] and facts["seconds"] == again.seconds


@pytest.mark.parametrize("options, inputs, name", [({"lr": 2.0}, ["abc"], "heads"), ({"lr": 1.0}, ["abd"], "heads")])
def test_another_option_or_input_is_another_artifact(store, options, inputs, name):
    first = store.stage("heads", {"lr": 1.0}, ["abc"], write_answer)
    other = store.stage(name, options, inputs, write_answer)
    assert other.key != first.key and not other.reused


def test_an_interrupted_stage_keeps_its_checkpoints_but_no_half_result(store):
    def killed(folder: Path, checkpoints: Path) -> None:
        (folder / "half.txt").write_text("x")
        (checkpoints / "step-3").write_text("weights")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stage("heads", {}, [], killed)

    def resumed(folder: Path, checkpoints: Path) -> None:
        assert not (folder / "half.txt").exists()
        assert (checkpoints / "step-3").read_text() == "weights"
        write_answer(folder, checkpoints)

    done = store.stage("heads", {}, [], resumed)
    assert not done.reused and [path.name for path in done.folder.parent.iterdir() if path.is_dir()] == [done.key]


def test_two_processes_make_a_stage_once(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from genret.train.artifacts import Artifacts\n"
        "def make(folder, checkpoints): time.sleep(0.5); (folder / 'answer.txt').write_text('42')\n"
        "print(Artifacts(Path(sys.argv[1])).stage('heads', {}, [], make).reused)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in both) == ["False", "True"]


def test_a_run_is_trained_by_one_process(tmp_path):
    program = (
        "import sys; from pathlib import Path; from genret.train.artifacts import only_trainer\n"
        "with only_trainer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(GenretError, match="is being trained by another process"), only_trainer(tmp_path):
            pytest.fail("there are two")
        other.kill()
    with only_trainer(tmp_path):  # the lock ends with its process, however that ends
        pass


def test_keys_do_not_depend_on_the_order_of_options():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 2, "b": 1})


def test_an_unwritable_store_is_one_sentence(tmp_path):
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    with pytest.raises(GenretError, match="cannot write the stage 'heads'"):
        Artifacts(tmp_path / "artifacts").stage("heads", {}, [], write_answer)
