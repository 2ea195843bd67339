"""A run goes to a folder, to archives and to a hub, and comes back in an empty home with the same answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

import genret
from genret.share.contents import MANIFEST
from tests.share.hub import Hub

Found = Callable[..., list[Any]]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own, of httpx


@pytest.mark.parametrize("name", ["shared", "shared.tar.gz", "shared.tar", "shared.zip"])
def test_a_pulled_run_answers_alike(tiny: Any, found: Found, tmp_path: Path, name: str) -> None:
    pushed = tiny.genret("push", "tiny-1", tmp_path / name, "--json").document
    assert pushed["images"] == 16 and pushed["left_out"] == 0
    home = tmp_path / "home"
    pulled = tiny.genret("pull", tmp_path / name, "--json", home=home).document
    assert pulled["run"] == str(home / "runs" / "shared") and pulled["images"] == 16
    assert found(home) == found()
    assert {path.name for path in tmp_path.iterdir()} == {name, "home"}, "nothing half is left"
    assert not any((home / "partial").iterdir())


def test_a_pulled_run_can_be_measured_and_pushed_on(tiny: Any, found: Found, bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert tiny.genret("pull", bundle, "--run", "again", home=home).code == 0
    before = tiny.genret("evaluate", "--json").document
    after = tiny.genret("evaluate", "--json", home=home).document
    for key in ("recall", "two_tower", "ceiling", "ledger", "num_queries"):
        assert after[key] == before[key]
    assert tiny.genret("push", "again", tmp_path / "on.tar.gz", home=home).code == 0
    assert tiny.genret("pull", tmp_path / "on.tar.gz", home=tmp_path / "third").code == 0
    assert found(tmp_path / "third") == found()
    tiny.draw(tmp_path / "new" / "mine.png", "red", "square", "grey")
    assert tiny.genret("index", tmp_path / "new", "--json", home=home).document["added"] == 1


# ------------------------------------------------------------------------------------------------ what is in it
def test_a_bundle_is_safetensors_and_json_without_pictures(tiny: Any, tmp_path: Path) -> None:
    assert tiny.genret("push", "tiny-1", tmp_path / "plain").code == 0
    files = [path for path in (tmp_path / "plain").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl", ".yaml", ".md", ".png"}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as stored:
                assert list(stored.keys())
        elif path.suffix == ".png":
            assert path.name == "results.png"
            Image.open(path).verify()
        else:
            text = path.read_text()
            assert str(tiny.root) not in text and str(Path.home()) + "/" not in text, f"{path} tells of this machine"
    listed = json.loads((tmp_path / "plain" / MANIFEST).read_text())["files"]
    assert {path.relative_to(tmp_path / "plain").as_posix() for path in files} == {*listed, MANIFEST}


def test_what_users_added_stays_at_home(tiny: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny.run, home / "runs" / "mine")
    tiny.draw(tmp_path / "private" / "holiday.png", "red", "square", "white")
    assert tiny.genret("index", tmp_path / "private", home=home).code == 0
    answer = tiny.genret("push", "mine", tmp_path / "without", home=home)
    assert "1 pictures that `genret index` added stay here" in answer.err
    assert not [path for path in (tmp_path / "without").rglob("*.json") if "holiday" in path.read_text()]
    assert tiny.genret("push", "mine", tmp_path / "with", "--added", home=home).code == 0
    other = tmp_path / "other"
    assert tiny.genret("pull", tmp_path / "with", "--json", home=other).document["images"] == 17
    assert str(tmp_path / "private" / "holiday.png") in tiny.search(home=other)


def test_thumbnails_and_the_catalog_go_by_choice(tiny: Any, bundle: Path, tmp_path: Path) -> None:
    shown = [path.relative_to(bundle).as_posix() for path in bundle.glob("thumbnails/*/*")]
    assert len(shown) == 8 and all(re.fullmatch(r"thumbnails/[0-9a-f]{2}/[0-9a-f]{64}\.jpg", name) for name in shown)
    home = tmp_path / "home"
    assert tiny.genret("push", "tiny-1", tmp_path / "bare", "--no-catalog").code == 0
    assert tiny.genret("pull", tmp_path / "bare", "--json", home=home).document["images"] == 0
    assert "no images" in tiny.genret("search", "a red square", home=home).err
    tiny.draw(tmp_path / "new" / "mine.png", "red", "square", "grey")
    assert tiny.genret("index", tmp_path / "new", home=home).code == 0
    assert tiny.search(home=home) == [str(tmp_path / "new" / "mine.png")]


def test_the_card_is_read_by_the_hubs_own_library(bundle: Path, tiny: Any) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(bundle / "README.md")
    assert card.data.license == "apache-2.0" and "genret" in card.data.tags
    figures = tiny.genret("evaluate", "--json").document
    measured = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert measured["recall_at_10"] == round(figures["recall"]["10"], 2)
    assert measured["recall_at_10_two_tower"] == round(figures["two_tower"]["10"], 2)
    row = f"| two-tower search with the same vectors | {figures['two_tower']['1']:.1f} |"
    assert row in card.text and "inductive" in card.text and "![" in card.text
    assert "| this model | apache-2.0 |" in card.text and "| training data | not stated" in card.text
    assert Image.open(bundle / "results.png").height > 300, "a sheet of searches, since pictures come along"


# ------------------------------------------------------------------------------------------------ the hub
def test_to_the_hub_and_back(
    tiny: Any, found: Found, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = tiny.genret("push", "tiny-1", "hub:me/tiny", "--json").document
    assert hub.private["me/tiny"] and f"hub:me/tiny@{hub.at('me/tiny', 'main')[0]}" == pushed["target"]
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)
    first = pushed["target"].partition("@")[2]
    assert tiny.genret("push", "tiny-1", "hub:me/tiny", "--no-catalog").code == 0
    assert not [name for name in hub.at("me/tiny", "main")[1] if name.startswith("catalog/")], "what is gone, goes"

    home = tmp_path / "home"
    pulled = tiny.genret("pull", f"hub:me/tiny@{first}", "--json", home=home).document
    assert pulled["revision"] == first and pulled["images"] == 16
    assert found(home) == found()
    assert json.loads((home / "runs" / "tiny" / "pulled.json").read_text())["revision"] == first

    monkeypatch.setenv("GENRET_HOME", str(tmp_path / "loaded"))
    with genret.load(f"hub:me/tiny@{first}") as run:
        first_one, _ = run.search(["a red square", "some orange ground"], k=8)
    hits = [(hit.image_id, hit.score) for hit in first_one.hits]
    assert hits == [(hit["image_id"], hit["score"]) for hit in found()[0]["hits"]]
    hub.requests.clear()
    genret.load(f"hub:me/tiny@{first}").close()
    assert not hub.requests, "a commit that is here is opened without network"


def test_the_hubs_refusals_are_sentences(tiny: Any, hub: Hub, failed: Callable[..., None], tmp_path: Path) -> None:
    assert tiny.genret("push", "tiny-1", "hub:me/tiny").code == 0
    hub.commit("me/other", {"README.md": b"a model"})
    good = hub.at("me/tiny", "main")[1]
    hub.commit("me/pickled", {**good, "pytorch_model.bin": b"\x80\x04"})
    hub.commit("me/changed", {**good, "generator/genret.json": good["generator/genret.json"].replace(b"85", b"86")})
    home = tmp_path / "home"
    failed(tiny.genret("pull", "hub:me/none", home=home), 1, "hub:me/none", "no such repository")
    failed(tiny.genret("pull", "hub:me/tiny@gone", home=home), 1, "hub:me/tiny", "no such revision")
    failed(tiny.genret("pull", "hub:me/other", home=home), 1, "no bundle of genret")
    failed(tiny.genret("pull", "hub:me/pickled", home=home), 1, "pytorch_model.bin may be a pickle")
    failed(tiny.genret("pull", "hub:me/changed", home=home), 1, "generator/genret.json", "checksum")
    failed(tiny.genret("pull", "hub:me", home=home), 2, "hub:owner/name")
    assert not list(home.glob("runs/*"))


def test_a_push_that_breaks_off_changes_nothing_on_the_hub(tiny: Any, hub: Hub, failed: Callable[..., None]) -> None:
    assert tiny.genret("push", "tiny-1", "hub:me/tiny").code == 0
    before = hub.at("me/tiny", "main")
    hub.fail = "/commit/"
    failed(tiny.genret("push", "tiny-1", "hub:me/tiny", "--no-catalog"), 1, "hub:me/tiny")
    assert hub.at("me/tiny", "main") == before


# ------------------------------------------------------------------------------------------------ usage, interruptions
def test_targets_and_names_that_are_taken(tiny: Any, bundle: Path, failed: Callable[..., None], tmp_path: Path) -> None:
    failed(tiny.genret("push", "tiny-1", bundle), 2, "in use")
    (tmp_path / "there.tar.gz").write_text("mine")
    failed(tiny.genret("push", "tiny-1", tmp_path / "there.tar.gz"), 2, "exists already")
    failed(tiny.genret("push", "tiny-1", tmp_path / "no" / "where"), 2, "there is no folder")
    failed(tiny.genret("push", "tiny-1", tmp_path / "x", "--no-catalog", "--thumbnails"), 2, "--thumbnails")
    failed(tiny.genret("pull", bundle, "--run", "tiny-1"), 2, "tiny-1", "--run")
    failed(tiny.genret("pull", bundle, "--run", "../x"), 2, "no name for a run")
    failed(tiny.genret("pull", tmp_path / "none"), 2, "there is no folder or archive")
    (tmp_path / "x.rar").write_text("?")
    failed(tiny.genret("pull", tmp_path / "x.rar"), 2, ".tar.gz")
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    failed(tiny.genret("pull", tmp_path / "broken.tar.gz"), 1, "no archive")
    (tmp_path / "broken.zip").write_bytes(b"PK nonsense")
    failed(tiny.genret("pull", tmp_path / "broken.zip"), 1, "no archive")


@pytest.mark.parametrize("command", ["push", "pull"])
def test_killed_in_the_middle(tiny: Any, bundle: Path, tmp_path: Path, command: str) -> None:
    """A process that is killed between two files leaves no run, no archive, and nothing that a later one would take."""
    home = tmp_path / "home"
    shutil.copytree(tiny.run, home / "runs" / "tiny-1")
    slow = tmp_path / "slow.py"
    where = {"push": "bundle.write_manifest", "pull": "pull.check_content"}[command]
    module, name = where.split(".")
    slow.write_text(
        f"import os, sys, time, genret.share.{module} as m\n"
        f"def wait(*a, **k): os.write(1, b'now\\n'); time.sleep(60)\n"
        f"m.{name} = wait\nfrom genret.cli import main; main(sys.argv[1:])\n"
    )
    words = {"push": ["push", "tiny-1", str(tmp_path / "out.tar.gz")], "pull": ["pull", str(bundle), "--run", "new"]}
    process = subprocess.Popen(
        [sys.executable, str(slow), *words[command]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"GENRET_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    while "now" not in process.stdout.readline():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out.tar.gz").exists()
    assert [path.name for path in (home / "runs").iterdir()] == ["tiny-1"]
    assert tiny.genret(*words[command], home=home).code == 0, "and works the next time"
