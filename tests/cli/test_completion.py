"""Completion in a real bash: what the shell would write after TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Bash's lines that load the completion which `genret --show-completion` prints."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    folder = tmp_path_factory.mktemp("completion")
    program = folder / "genret"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genret "$@"\n')
    program.chmod(0o755)
    environment = environment_of(folder)
    done = subprocess.run(
        ["bash", "-c", f"{program} --show-completion bash"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0 and "complete " in done.stdout, done.stderr
    (folder / "completion.bash").write_text(done.stdout)
    return str(folder)


def environment_of(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GENRET_")}
    return kept | {
        "GENRET_HOME": str(folder / "home"), "GENRET_PLUGINS": "", "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }  # fmt: skip


def complete(folder: str, *words: str, at: Path | None = None) -> list[str]:
    """What bash offers for the last of the words, by the function that the completion registers."""
    listed = " ".join(f"'{word}'" for word in words)
    script = f"""
    source {folder}/completion.bash
    COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}"; COMP_POINT=${{#COMP_LINE}}
    function_name=$(complete -p genret | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    $function_name genret '{words[-1]}' '{words[-2]}'
    printf '%s\\n' "${{COMPREPLY[@]}}"
    complete -p genret >&2
    """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment_of(Path(folder)), timeout=120, cwd=at
    )
    assert done.returncode == 0, done.stderr
    assert "-o default" in done.stderr, "where the program offers nothing, bash completes files"
    return done.stdout.split()


def test_commands_and_options_are_completed(bash: str) -> None:
    assert complete(bash, "genret", "tr") == ["train"]
    assert complete(bash, "genret", "train", "--tra") == ["--track"]


def test_paths_are_left_to_the_shell(bash: str) -> None:
    """Recipes are files: the program offers nothing, so that `-o default` completes them."""
    assert complete(bash, "genret", "train", "recipes/av") == []
