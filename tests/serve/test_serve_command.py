"""`genret serve` as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from genret.cli import build
from genret.cli.failures import friendly
from genret.cli.state import State
from genret.plugin.loading import load_plugins
from genret.settings import Settings
from genret.testing.world import pictures


def start(run, tmp_path: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    shutil.copytree(run.folder, folder := tmp_path / "copy")
    command = [
        sys.executable,
        "-m",
        "genret",
        "--plugin",
        pictures.__file__,
        "serve",
        "--run",
        str(folder),
        "--port",
        "0",
    ]
    variables = os.environ | {"GENRET_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1", "GENRET_DEVICE": "cpu"}
    return subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables | environment
    )


def ask(address: str, path: str, **options) -> httpx.Response:
    until = time.monotonic() + 60
    while (reply := httpx.get(address + path, **options)).status_code == 503 and time.monotonic() < until:
        time.sleep(0.1)
    return reply


def test_it_serves_until_it_is_interrupted(run, tmp_path):
    process = start(run, tmp_path)
    try:
        line = process.stdout.readline()
        address = re.search(r"served at (http://127\.0\.0\.1:\d+)/ ", line)
        assert address, line + process.stderr.read()
        found = ask(address[1], "/v1/search", params={"q": "a dog", "k": 3}, timeout=30)
        expected = [hit.image_id for hit in run.search("a dog", 3).hits]
        assert [hit["image_id"] for hit in found.json()["hits"]] == expected
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode in (0, 130) and "Traceback" not in err, err


class Answer:
    def __init__(self, tmp_path: Path, *words: object):
        settings = Settings(home=tmp_path, device="cpu", plugins="")
        plugins = load_plugins((), settings)
        plugins.include(pictures)
        with friendly(False):
            found = CliRunner().invoke(build(State(settings, plugins)), [str(word) for word in words])
        self.code, self.out, self.err = found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--token", "short"], "16 or more"),
        (["--token", "has spaces in it and more"], "16 or more"),
        (["--token", "@/no/such/file"], "cannot be read"),
        (["--index-folder", "/no/such/folder"], "is no folder"),
    ],
)
def test_wrong_options(run, tmp_path, options, said):
    answer = Answer(tmp_path, "serve", "--run", run.folder, *options)
    assert answer.code == 2 and said in answer.err and len(answer.err.strip().splitlines()) == 1, answer.err


def test_a_port_that_is_taken(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = Answer(tmp_path, "serve", "--run", run.folder, "--port", taken.getsockname()[1])
    assert answer.code == 1 and "cannot listen at 127.0.0.1" in answer.err and "--port" in answer.err


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "empty").mkdir()
    answer = Answer(tmp_path, "serve", "--run", tmp_path / "empty")
    assert answer.code in (1, 2) and "Traceback" not in answer.err and len(answer.err.strip().splitlines()) == 1


def test_without_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr("genret.serve.command.find_spec", lambda name: None)
    answer = Answer(tmp_path, "serve", "--run", run.folder)
    assert (
        answer.code == 1 and answer.err == "Error: genret serve needs further packages: pip install 'genret[serve]'\n"
    )


def test_elsewhere_a_token_is_made_and_shown(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "genret.serve.network.listen.listen",
        lambda run, options, ui, new_token: asked.append((options, new_token)),
    )
    assert Answer(tmp_path, "serve", "--run", run.folder, "--host", "0.0.0.0").code == 0
    (file := tmp_path / "token").write_text("from-a-file-of-its-own\n")
    assert Answer(tmp_path, "serve", "--run", run.folder, "--host", "0.0.0.0", "--token", f"@{file}").code == 0
    assert Answer(tmp_path, "serve", "--run", run.folder, "--read-only", "--rate", 0).code == 0
    (made, shown), (given, hidden), (local, _) = asked
    assert len(made.token) >= 32 and shown
    assert given.token == "from-a-file-of-its-own" and not hidden
    assert local.token is None and not local.allow_changes and local.rate == 0
