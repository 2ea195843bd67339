"""`genret.connect` has the methods of `genret.load` and gives the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
from PIL import Image

import genret
from genret.api import Restriction
from genret.errors import GenretError, UsageError
from tests.serve import network

TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def remote(run) -> Iterator[genret.serve.client.RemoteRun]:
    with network.served(run) as site, genret.connect(site.address) as found:
        yield found


def draw(file: Path, row: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), (row, 0, 0)).save(file)
    return file


def same(found, expected) -> None:
    assert found.query == expected.query and found.num_beams == expected.num_beams
    assert found.confidence == expected.confidence
    for one, other in zip(found.hits, expected.hits, strict=True):
        assert one._replace(score=0) == other._replace(score=0, thumbnail_file=None) and one.score == pytest.approx(
            other.score, abs=1e-5
        )


def test_it_searches_as_the_run_does(remote, run):
    same(remote.search("a dog", 4, num_beams=6), run.search("a dog", 4, num_beams=6))
    same(remote.search("a dog", where="subject != dog"), run.search("a dog", where="subject != dog"))
    queries = [f"a dog number {number}" for number in range(70)]
    for one, other in zip(remote.search(queries, 2), run.search(queries, 2), strict=True):
        same(one, other)
    first, second = (hit.image_id for hit in run.search("a dog", 2).hits)
    for restriction in (Restriction(without=[first]), Restriction(only=[second]), Restriction(unlike=[first])):
        same(remote.search("a dog", 5, restrict=restriction), run.search("a dog", 5, restrict=restriction))
    assert remote.about["images"] == 12 and remote.figures == run.figures


def test_it_explains_as_the_run_does(remote, run):
    last = run.search("a dog", 9).hits[-1].image_id
    assert remote.explain("a dog", last, k=2)["levels"] == run.explain("a dog", last, k=2).as_json()["levels"]


def test_it_adds_finds_lists_and_removes(remote, run, tmp_path):
    folder = tmp_path / "mine"
    for row in range(3):
        draw(folder / f"{row}.png", row)
    (folder / "no.png").write_text("no picture")
    report = remote.index([folder, tmp_path / "absent"])
    assert report.added == 3 and {Path(one.path).name for one in report.skipped} == {"no.png", "absent"}
    found = remote.search_picture(folder / "2.png", 1).hits[0]
    assert Path(found.image_id).name == "2.png" and Path(found.image_id).is_relative_to(run.folder)
    assert len(list(remote.images())) == 15 and len(list(remote.images("file = 2.png"))) == 1
    assert remote.index(folder / "2.png").unchanged == 1
    report = remote.remove([found.image_id, "absent"])
    assert report.removed == 1 and [one.path for one in report.skipped] == ["absent"]
    assert found.image_id not in run.retriever.catalog.added_images()


def test_errors_are_genrets_own(remote):
    with pytest.raises(UsageError, match="unknown key"):
        remote.search("x", where="colur = red")
    with pytest.raises(UsageError, match="give `where` or `restrict`"):
        remote.search("x", where="row = 1", restrict=Restriction())
    with pytest.raises(UsageError, match="no searchable image has the id 'absent'"):
        remote.search("x", restrict=Restriction(without=["absent"]))


def test_addresses_that_are_no_server(tmp_path):
    with pytest.raises(UsageError, match="begins with http"):
        genret.connect("pictures.example")
    with pytest.raises(GenretError, match="does not answer"):
        genret.connect("http://127.0.0.1:9")


def test_a_token_is_shown(run):
    with network.served(run, token=TOKEN) as site:
        with pytest.raises(GenretError, match="token"):
            genret.connect(site.address)
        with genret.connect(site.address, TOKEN) as remote:
            assert remote.remove(["absent"]).removed == 0
            image = run.search("a dog", 1).hits[0].image_id
            assert remote.remove([image]).removed == 1


def test_without_the_extra_it_is_said_what_to_install():
    program = (
        "import sys; sys.modules['httpx'] = None\nimport genret\n"
        "try: genret.connect('http://127.0.0.1:1')\nexcept genret.GenretError as error: print(error)\n"
        "assert not {'torch', 'fastapi', 'uvicorn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "genret.connect needs further packages: pip install 'genret[serve]'", done.stderr


def test_pictures_are_sent_in_parts(remote, tmp_path, monkeypatch):
    monkeypatch.setattr("genret.serve.client.FILES_AT_A_TIME", 2)
    for row in range(5):
        draw(tmp_path / "mine" / f"{row}.png", row)
    assert remote.index(tmp_path / "mine").added == 5


def test_it_comes_back_to_a_busy_server(run, tmp_path):
    """The index is held for a second; 429 says when to try again."""
    with network.served(run) as site, genret.connect(site.address) as remote:
        loop_lock = site.app.state.indexing
        loop_lock._locked = True
        Timer(0.5, lambda: setattr(loop_lock, "_locked", False)).start()
        assert remote.index(draw(tmp_path / "mine" / "1.png", 1)).added == 1
    with network.served(run) as site, genret.connect(site.address, timeout=1) as remote:
        site.app.state.indexing._locked = True
        with pytest.raises(GenretError, match="added already"):
            remote.index(draw(tmp_path / "mine" / "2.png", 2))
