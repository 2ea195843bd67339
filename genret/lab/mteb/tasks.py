"""A retrieval task of MTEB as a data set of genret: images and a table in a folder, for recipes with `type: folder`.

MTEB's corpus becomes the split `test`; its queries are that split's captions, which training never sees.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from genret.api import Record
from genret.errors import BadImage, GenretError
from genret.kit.images import read_bytes
from genret.lab.mteb.about import TASK_FILE
from genret.toolbox.splits import hashed

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval, RetrievalSplitData

TABLE = "captions.jsonl"
DEV_FRACTION = 0.1
"""Share of the training images, chosen by a hash of their ids, for the development split, which MTEB tasks lack."""


def write_task(
    task: AbsTaskRetrieval,
    folder: Path,
    *,
    train_split: str = "train",
    test_split: str = "test",
    subset: str | None = None,
) -> Path:
    """Writes a task's training and searched images with their queries; returns `folder`.

    A folder that already holds this task is not changed. An image in both corpora is only searched.
    """
    asked = {"task": task.metadata.name, "train": train_split, "test": test_split, "subset": subset}
    asked["revision"] = task.metadata.dataset.get("revision")
    if (folder / TASK_FILE).is_file():
        if json.loads((folder / TASK_FILE).read_text(encoding="utf-8")) == asked:
            return folder
        raise GenretError(f"{folder} holds another task of MTEB, or other splits of it; name another folder")
    if folder.exists() and any(folder.iterdir()):
        raise GenretError(f"{folder} is not empty; name another folder for the task {task.metadata.name}")
    train, test = (_split(task, name, subset) for name in (train_split, test_split))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    searched = set(map(str, test["corpus"]["id"]))
    with (partial / TABLE).open("w", encoding="utf-8") as table:
        for line in _lines(test, task.metadata.name, partial, "test", set()):
            table.write(line)
        for line in _lines(train, task.metadata.name, partial, "train", searched):
            table.write(line)
    (partial / TASK_FILE).write_text(json.dumps(asked), encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return folder


def _split(task: AbsTaskRetrieval, name: str, subset: str | None) -> RetrievalSplitData:
    if not task.data_loaded:
        task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    subset = subset or next(iter(task.dataset))
    splits: dict[str, Any] = task.dataset.get(subset, {})
    if name not in splits:
        raise GenretError(
            f"MTEB's task {task.metadata.name} has loaded no split '{name}', only {', '.join(splits) or 'none'}; where "
            f'the data set has it, ask for it: mteb.get_task("{task.metadata.name}", eval_splits=["{name}", ...]); '
            "else train on another data set and open that run"
        )
    found: RetrievalSplitData = splits[name]
    return found


def _lines(split: RetrievalSplitData, task: str, folder: Path, name: str, left_out: set[str]) -> Iterator[str]:
    captions: dict[str, list[str]] = {}
    texts = dict(zip(split["queries"]["id"], texts_of(split["queries"]), strict=True))
    for query_id, relevant in split["relevant_docs"].items():
        for image_id, grade in relevant.items():
            if grade > 0 and query_id in texts:
                captions.setdefault(str(image_id), []).append(texts[query_id])
    for number, (record, read) in enumerate(pictures(split["corpus"], task)):
        if record.image_id in left_out:
            continue
        data = read()
        file = f"images/{name}-{number:07}{_suffix(data)}"
        (folder / file).write_bytes(data)
        into = "dev" if name == "train" and hashed(record.image_id, 0) < DEV_FRACTION else name
        row = {"image": file, "caption": captions.get(record.image_id, []), "split": into, "mteb_id": record.image_id}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _suffix(data: bytes) -> str:
    """The file suffix, for people; genret detects the format from the content."""
    try:
        with Image.open(BytesIO(data)) as image:
            return f".{(image.format or 'image').lower()}"
    except Exception:  # the error is reported when the image is read
        return ".image"


def pictures(corpus: Dataset, task: str) -> Iterator[tuple[Record, Callable[[], bytes]]]:
    """The rows of a corpus (columns `id` and `image`) as a retriever's `index` takes them: encoded, not decoded."""
    import datasets

    if "image" not in corpus.column_names:
        raise GenretError(f"the corpus of MTEB's task {task} has no column 'image'; genret searches pictures only")
    rows = corpus.select_columns(["id", "image"])
    if isinstance(rows.features["image"], datasets.Image):
        rows = rows.cast_column("image", datasets.Image(decode=False))
    for row in rows:
        image_id = str(row["id"])
        yield Record(image_id, f"{task}/{image_id}"), partial(_bytes, row["image"], f"{task}/{image_id}")


def texts_of(queries: Dataset) -> list[str]:
    """The query text, followed by its instruction if any, as in MTEB's own models."""
    texts = list(queries["text"])
    if other := next((text for text in texts if not isinstance(text, str)), None):
        raise GenretError(f"MTEB's queries are conversations ({str(other)[:40]}...); genret reads plain text only")
    if "instruction" in queries.column_names:
        instructions = queries["instruction"]
        texts = [f"{text} {more}" if more else text for text, more in zip(texts, instructions, strict=True)]
    return texts


def _bytes(image: Any, name: str) -> bytes:
    """The encoded image as in its file; one that exists only as pixels is encoded as PNG."""
    if isinstance(image, dict) and image.get("bytes"):
        return bytes(image["bytes"])
    if isinstance(image, dict) and image.get("path"):
        return read_bytes(Path(image["path"]))
    if hasattr(image, "save"):
        stream = BytesIO()
        image.save(stream, format="PNG")
        return stream.getvalue()
    raise BadImage(f"{name} holds no picture")
