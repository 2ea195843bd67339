"""Runs the program many times as processes that can be killed, but imports its libraries once.

A line on standard input, `{"words": [...], "home": "...", "kill": "generator:5", "log": "file"}`, forks a process that
runs `genret WORDS`; its exit status is answered, -9 for one that was killed. `kill` names where, counted from 1:

    features:n            the n-th batch of vectors has been stored
    heads:n, tokenizer:n, generator:n
                          the n-th step of this loop is done; every third step leaves a checkpoint
    targets:1, targets:2  before and after they are made, the second with the result written but not in its place
    catalog:n             the n-th chunk of images is in the catalog
    evaluation:n          the catalog is done and the run is being measured
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm  # noqa: F401
import torch
from transformers import AutoConfig, AutoTokenizer, BertModel, T5ForConditionalGeneration  # noqa: F401

import genret.components.backbones.t5
import genret.components.data.folder
import genret.components.encoders.paired
import genret.components.identifiers.rq
import genret.components.losses.generator
import genret.components.losses.tokenizer
import genret.train.pipeline
import genret.training
from genret import cli
from genret.catalog.store import Catalog
from genret.kit.checkpoint import Checkpoint
from genret.kit.encode import encode_images, encode_texts
from genret.kit.feature_cache import FeatureCache
from genret.run import Run
from genret.train import finish

CHECKPOINT_EVERY = 3


class Killer:
    def __init__(self, where: str):
        self.place, _, count = where.partition(":")
        self.left = int(count or 0)

    def passes(self, place: str) -> None:
        """Ends the process if this is the moment."""
        if place == self.place:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def after(killer: Killer, owner: Any, name: str, place: str) -> None:
    inner = getattr(owner, name)

    def outer(*words: Any, **options: Any) -> Any:
        found = inner(*words, **options)
        killer.passes(place)
        return found

    setattr(owner, name, outer)


def before(killer: Killer, owner: Any, name: str, place: str) -> None:
    inner = getattr(owner, name)

    def outer(*words: Any, **options: Any) -> Any:
        killer.passes(place)
        return inner(*words, **options)

    setattr(owner, name, outer)


def arm(killer: Killer) -> None:
    for encode in (encode_images, encode_texts):  # several batches even of a tiny data set
        assert encode.__kwdefaults__ is not None
        encode.__kwdefaults__["batch_size"] = 7
    finish.CATALOG_CHUNK = 3
    after(killer, FeatureCache, "put_many", "features")
    before(killer, genret.train.pipeline, "make_targets", "targets")
    after(killer, genret.train.pipeline.Targets, "save", "targets")
    after(killer, Catalog, "add", "catalog")
    before(killer, Run, "evaluate", "evaluation")
    steps = 0

    def save_if_due(checkpoint: Any) -> None:
        nonlocal steps
        steps += 1
        if steps % CHECKPOINT_EVERY == 0:
            checkpoint.save()
        killer.passes(checkpoint.folder.name)

    Checkpoint.save_if_due = save_if_due


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()  # into the log that the test shows
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        wanted = json.loads(line)

        def work(wanted: dict[str, Any] = wanted) -> None:
            log = Path(wanted["log"]).open("a")  # noqa: SIM115 (until the process ends)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ["GENRET_HOME"] = wanted["home"]
            arm(Killer(wanted["kill"]))
            cli.main(wanted["words"])

        print(fork(work), flush=True)


if __name__ == "__main__":
    main()
