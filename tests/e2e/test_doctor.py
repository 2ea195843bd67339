"""`genret doctor` on a home in which everything is broken: each fault is named with its cure, and the cures help."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from genret.guide.doctor import faults as faults_module
from genret.guide.doctor.caches import freed
from genret.guide.doctor.machine import extras_of


def found(tiny: Any, home: Path) -> dict[str, Any]:
    return tiny.genret("doctor", "--json", home=home).document  # type: ignore[no-any-return]


def fault_about(document: dict[str, Any], *words: str) -> dict[str, str]:
    """The one fault that names these."""
    (fault,) = [one for one in document["faults"] if all(word in one["what"] for word in words)]
    assert fault["cure"] and "\n" not in fault["what"] + fault["cure"], "a sentence"
    return fault  # type: ignore[no-any-return]


@pytest.fixture
def home(tiny: Any, tmp_path: Path) -> Path:
    """A home with one good run."""
    tiny.copy(tmp_path / "home" / "runs" / "good")
    return tmp_path / "home"


def test_a_sound_home_has_no_faults(tiny: Any, home: Path) -> None:
    document = found(tiny, home)
    assert document["faults"] == []
    (run,) = document["runs"]
    assert (run["name"], run["state"], run["images"]) == ("good", "finished", 16)
    machine = document["machine"]
    assert machine["packages"].keys() >= {"genret", "torch", "transformers"} and machine["device"] == "cpu"
    assert machine["waiting"]["OMP_WAIT_POLICY"] == "PASSIVE" and machine["threads"] == 1
    assert {"offline", "repositories", "folder"} <= document["weights"]["hub"].keys()
    shown = tiny.genret("doctor", "--check", home=home)
    assert shown.code == 0 and "good" in shown.out and "Nothing is broken" in shown.out
    sizes = {cache["name"]: cache["files"] for cache in document["caches"]}
    assert sizes["thumbnails"] == len(list((home / "runs/good/thumbnails").rglob("*.jpg"))) > 0


def test_every_fault_of_a_broken_home_is_named_with_its_cure(
    tiny: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = home / "runs"
    for name in ("page", "garbage", "short", "moved", "foreign", "cut-off", "older", "no-recipe", "lacks"):
        tiny.copy(runs / name)
    page = runs / "page" / "catalog.sqlite"
    with page.open("r+b") as file:  # every page but the first two: found only by who reads them
        file.seek(8192)
        file.write(b"\xff" * (page.stat().st_size - 8192))
    (runs / "garbage" / "catalog.sqlite").write_bytes(b"no database" * 1000)
    weights = next((runs / "short" / "generator").rglob("*.safetensors"))
    data = weights.read_bytes()
    weights.unlink()  # it may be linked with the stored stage
    weights.write_bytes(data[:-100])
    moved = (runs / "moved" / "recipe.yaml").read_text().replace(str(tiny.data), str(home / "elsewhere"))
    (runs / "moved" / "recipe.yaml").write_text(moved)
    recipe = (runs / "foreign" / "recipe.yaml").read_text()
    (runs / "foreign" / "recipe.yaml").write_text(recipe.replace("type: rq", "type: from-afar"))
    (runs / "cut-off" / "summary.json").unlink()
    (runs / "no-recipe" / "recipe.yaml").unlink()
    shutil.rmtree(runs / "lacks" / "identifier")
    facts = json.loads((runs / "older" / "environment.json").read_text())
    facts["packages"]["genret"] = "0.0.1"
    (runs / "older" / "environment.json").write_text(json.dumps(facts))
    (home / "plugins").mkdir()
    (home / "plugins" / "sick.py").write_text("raise RuntimeError('boom')")
    (home / "plugins.json").write_text("{}")
    (home / "features").mkdir()
    (home / "features" / f"{'0' * 24}.sqlite").write_bytes(b"no database" * 1000)
    monkeypatch.setattr(faults_module, "LEAST_FREE", 10**18)  # no disk has so much room

    document = found(tiny, home)
    states = {run["name"]: run["state"] for run in document["runs"]}
    assert states == {
        "good": "finished", "moved": "finished", "older": "finished", "cut-off": "unfinished",
        **dict.fromkeys(("page", "garbage", "short", "foreign", "no-recipe", "lacks"), "damaged"),
    }  # fmt: skip
    assert {run["name"]: run["genret"] for run in document["runs"]}["older"] == "0.0.1"
    for words, cure in (
        (("catalog", "runs/page"), "--resume"),
        (("catalog", "runs/garbage"), "--resume"),
        (("runs/short/generator", "damaged"), "--resume"),
        (("dataset.root", "runs/moved", str(home / "elsewhere")), "ln -s"),
        (("recipe", "runs/foreign", "from-afar"), "genret plugins"),
        (("runs/no-recipe", "no recipe.yaml"), "move it"),
        (("runs/lacks", "identifier"), "--resume"),
        (("'sick'", "boom"), "mend it"),
        (("feature cache", "damaged"), "made anew"),
        (("disk", "nearly full"), "make room"),
    ):
        assert cure in fault_about(document, *words)["cure"]
    assert len(document["faults"]) == 10, "and no other"
    shown = tiny.genret("doctor", "--check", home=home)
    assert shown.code == 1 and shown.out.count("Cure: ") == 10
    assert "cut-off                  unfinished" in shown.out and "made by genret 0.0.1" in shown.out


@pytest.mark.parametrize("broken", ["catalog.sqlite", "generator", "summary.json"])
def test_the_cure_of_a_damaged_run_cures_it(tiny: Any, home: Path, broken: str) -> None:
    shutil.copytree(tiny.home / "artifacts", home / "artifacts", copy_function=os.link)
    run = home / "runs" / "good"
    (target,) = [run / broken] if (run / broken).is_file() else (run / broken).rglob("model.safetensors")
    target.unlink()
    target.write_bytes(b"broken")
    (fault,) = found(tiny, home)["faults"]
    for step in fault["cure"].rpartition(": ")[2].split(", then "):
        program, *words = step.split()
        if program == "rm":
            Path(*words).unlink()
        else:
            assert program == "genret" and tiny.genret(*words, home=home).code == 0, step
    document = found(tiny, home)
    assert document["faults"] == [] and document["runs"][0]["state"] == "finished"


def obey_rights() -> None:
    """Of a root's process: takes away what lets it pass over the rights of files, from the next program on."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities")
def test_a_home_that_may_only_be_read(tiny: Any, home: Path) -> None:
    closed = tiny.copy(home / "runs" / "closed")
    closed.chmod(0)
    home.chmod(0o555)
    try:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
        environment |= {"GENRET_HOME": str(home), "GENRET_PLUGINS": ""}
        command = [sys.executable, "-m", "genret", "doctor", "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, preexec_fn=obey_rights
        )
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert "rights" in fault_about(document, f"{home} cannot be written")["cure"]
        assert "chmod" in fault_about(document, "runs/closed", "cannot be read")["cure"]
        assert {run["name"]: run["state"] for run in document["runs"]} == {"good": "finished", "closed": "damaged"}
    finally:
        home.chmod(0o755)
        closed.chmod(0o755)


def test_a_home_that_is_a_file_and_one_that_is_empty(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "GENRET_HOME" in fault_about(found(tiny, tmp_path / "file"), f"{tmp_path / 'file'} is a file")["cure"]
    shown = tiny.genret("doctor", home=tmp_path / "new")
    assert "empty so far" in shown.out and "Nothing is broken" in shown.out
    assert not (tmp_path / "new" / "runs").exists(), "nothing is made"


# ------------------------------------------------------------------------------------------------ --clean
def test_clean_removes_what_is_made_again_and_nothing_else(tiny: Any, home: Path) -> None:
    shutil.copytree(tiny.home / "artifacts", home / "artifacts")
    shutil.copytree(tiny.home / "features", home / "features")
    mine = home / "features" / "my-notes.sqlite"
    mine.write_text("mine")
    run = home / "runs" / "good"
    (run / "trie").mkdir(exist_ok=True)
    (run / "trie" / "old").write_bytes(b"x" * 1000)
    left = run / f".ranks.json.{'0' * 16}.partial"
    left.write_bytes(b"x" * 10)
    os.utime(left, (0, time.time() - 2 * 86400))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "trie" not in path.parts}
    expected = sum(
        file.stat().st_size
        for part in ("artifacts", "features", "runs/good/trie")
        for file in (home / part).rglob("*")
        if file.is_file() and file != mine
    )

    refused = tiny.genret("doctor", "--clean", home=home)
    assert refused.code == 2 and "--yes" in refused.err and "features" in refused.err
    assert (run / "trie" / "old").exists() and list((home / "artifacts").rglob("stage.json"))
    document = tiny.genret("doctor", "--clean", "--yes", "--json", home=home).document
    assert document["bytes"] == expected + 10 == sum(one["bytes"] for one in document["removed"])
    del before[left]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert mine.read_text() == "mine" and not list((home / "artifacts").rglob("*.*"))
    assert tiny.genret("search", "a red square on grey", "--json", home=home).document["hits"]
    again = tiny.genret("doctor", "--clean", "--yes", home=home)
    assert again.code == 0 and ("nothing" in again.out or "tries" in again.err), "a search builds its trie anew"


def test_clean_keeps_the_checkpoints_of_an_unfinished_run(tiny: Any, home: Path) -> None:
    partial = home / "artifacts" / "generator" / f"{'a' * 20}.partial"
    partial.mkdir(parents=True)
    (partial / "checkpoint").write_bytes(b"x" * 100)
    (home / "runs" / "good" / "summary.json").unlink()
    assert tiny.genret("doctor", "--clean", "--yes", home=home).code == 0
    assert (partial / "checkpoint").exists()
    shutil.rmtree(home / "runs" / "good")
    assert tiny.genret("doctor", "--clean", "--yes", "--json", home=home).document["bytes"] == 100
    assert not partial.exists()


def test_clean_waits_for_a_training(tiny: Any, home: Path, failed: Any) -> None:
    from filelock import FileLock

    (home / "runs" / "good" / "summary.json").unlink()
    with FileLock(home / "runs" / "good" / ".train.lock"):
        assert found(tiny, home)["runs"][0]["state"] == "training"
        failed(tiny.genret("doctor", "--clean", "--yes", home=home), 2, "is being trained")


def test_links_are_neither_followed_nor_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100)
    os.link(tmp_path / "a" / "file", tmp_path / "b" / "file")
    (tmp_path / "a" / "away").symlink_to("/")
    assert freed([tmp_path / "a"]) == 0, "the file stays in b"
    assert freed([tmp_path / "a", tmp_path / "b"]) == 100


def test_extras_are_those_of_the_package() -> None:
    extras = {extra.name: extra for extra in extras_of("genret")}
    assert extras["faiss"].install == "pip install 'genret[faiss]'" and "dev" not in extras
    assert extras_of("no-such-package") == []
