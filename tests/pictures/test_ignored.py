"""`.genretignore` and `--ignore`, held against git itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from genret.errors import UsageError
from genret.pictures.ignored import FILE, Ignored
from genret.toolbox.walk import walk_images

NAMES = (
    "a.png",
    "b.gif",
    "raw/c.png",
    "raw/keep/d.png",
    "sub/raw.png",
    "sub/e.gif",
    "sub/deep/f.png",
    "sub/deep/g.gif",
)
PATTERNS = {
    "": "# a comment\n*.gif\n/raw/\n!sub/deep/*.gif\n",
    "sub": "deep/f.png\n",
    "sub/deep": "!f.png\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"x")
    return tmp_path / "all"


def walked(folder: Path, *patterns: str) -> set[str]:
    found = walk_images([folder], Ignored([folder], patterns))
    return {path.relative_to(folder).as_posix() for path in found}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")
def test_files_say_what_git_says(folder: Path) -> None:
    assert walked(folder) == set(NAMES)
    for place, text in PATTERNS.items():
        for name in (FILE, ".gitignore"):
            (folder / place / name).write_text(text)
    subprocess.run(["git", "init", "-q", folder], check=True)
    listed = subprocess.run(
        ["git", "-C", folder, "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert walked(folder) == set(listed) & set(NAMES)
    assert walked(folder) == {"a.png", "sub/raw.png", "sub/deep/f.png", "sub/deep/g.gif"}


def test_patterns_given_directly_come_last(folder: Path) -> None:
    (folder / FILE).write_text("*.gif\n", encoding="utf-8-sig")
    assert walked(folder, "!b.gif", "raw/", "/sub/deep") == {"a.png", "b.gif", "sub/raw.png"}
    given = list(walk_images([folder / "b.gif"], Ignored([folder / "sub"], ["*"])))
    assert given == [folder / "b.gif"], "a file that is named is taken"


def test_several_roots_have_their_own(folder: Path) -> None:
    (folder / "raw" / FILE).write_text("c.png\n")
    roots = [folder / "raw", folder / "sub"]
    found = {path.relative_to(folder).as_posix() for path in walk_images(roots, Ignored(roots, ["deep/"]))}
    assert found == {"raw/keep/d.png", "sub/raw.png", "sub/e.gif"}


def test_bad_files_say_what_is_wrong(folder: Path) -> None:
    (folder / FILE).write_bytes(b"\xff\xfe*\x00")
    with pytest.raises(UsageError, match=r"\.genretignore is no UTF-8 text"):
        walked(folder)
    (folder / FILE).write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(UsageError, match="more than 1,048,576 bytes"):
        walked(folder)
