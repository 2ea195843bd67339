"""Finished stages of training, shared by all runs: each is a folder named by what went into it.

A stage's key is a hash of its name, its options and the keys of its inputs. A folder under that key is complete and
never changes; an unfinished one has the suffix `.partial` and keeps the checkpoints from which the stage continues.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from genret.errors import GenretError
from genret.kit.files import read_json

FORMATS = {"identifier": 2, "generator": 2}
"""Raised when a stage's meaning changes, so that old artifacts are not reused; 1 for stages that are not listed."""


class Artifact(NamedTuple):
    name: str
    key: str
    folder: Path
    reused: bool
    seconds: float
    """The duration of the stage when it was made, over all its starts."""


def content_key(*parts: Any) -> str:
    """A short hash of JSON-like values, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Artifacts:
    """The store, usually `<home>/artifacts`."""

    def __init__(self, root: Path):
        self.root = root

    def discard(self, artifact: Artifact) -> None:
        """Deletes a damaged artifact, so that it is made anew."""
        damaged = artifact.folder.with_suffix(".damaged")
        shutil.rmtree(damaged, ignore_errors=True)
        artifact.folder.replace(damaged)
        shutil.rmtree(damaged, ignore_errors=True)

    def stage(self, name: str, options: Any, inputs: Iterable[str], make: Callable[[Path, Path], None]) -> Artifact:
        """Returns the stage's artifact, and makes it if it does not exist.

        `make(folder, checkpoints)` writes the result into `folder`; files in `checkpoints` survive an interruption and
        are deleted once the stage is done.
        """
        key = content_key(FORMATS.get(name, 1), name, options, list(inputs))
        folder = self.root / name / key
        partial, facts = folder.with_suffix(".partial"), folder / "stage.json"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # if two runs need the same stage, one makes it; the lock is released when its process ends, in any way
            with FileLock(folder.with_suffix(".lock")):
                if facts.exists():
                    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                        return Artifact(name, key, folder, True, float(read_json(facts)["seconds"]))
                if folder.exists():  # after a power failure, files may never have been written out
                    shutil.rmtree(folder)
                seconds = _made(partial, folder, make, {"name": name, "options": options, "inputs": list(inputs)})
        except OSError as error:
            raise GenretError(
                f"cannot write the stage '{name}' below {self.root}: {error.strerror or error}; "
                "free some space or set GENRET_HOME to a writable folder, then add --resume"
            ) from error
        return Artifact(name, key, folder, False, seconds)


def _made(partial: Path, folder: Path, make: Callable[[Path, Path], None], facts: dict[str, Any]) -> float:
    result, checkpoints, clock = partial / "result", partial / "checkpoints", partial / "seconds"
    earlier = _seconds(clock)
    shutil.rmtree(result, ignore_errors=True)  # partial results are deleted; checkpoints are complete or absent
    result.mkdir(parents=True)
    checkpoints.mkdir(exist_ok=True)
    start = time.monotonic()
    try:
        make(result, checkpoints)
    finally:
        seconds = earlier + time.monotonic() - start
        with suppress(OSError):  # on a full disk the first error is the one to report
            clock.write_text(f"{seconds}\n")
    (result / "stage.json").write_text(json.dumps(facts | {"seconds": round(seconds, 2)}, default=str, indent=1))
    result.replace(folder)
    shutil.rmtree(partial, ignore_errors=True)
    return seconds


def _seconds(clock: Path) -> float:
    """The duration of earlier starts; 0 if the record is incomplete because of a kill or a full disk."""
    with suppress(OSError, ValueError):
        text = clock.read_text()
        return float(text) if text.endswith("\n") else 0.0
    return 0.0


@contextmanager
def only_trainer(run: Path) -> Iterator[None]:
    """Raises an error if another process is training this run directory."""
    try:
        held = FileLock(run / ".train.lock").acquire(timeout=0)
    except Timeout:
        raise GenretError(f"{run} is being trained by another process; wait for it to end, or stop it") from None
    with held:
        yield
