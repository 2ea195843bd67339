"""Where plugins' components come in: what they raise and what they return, checked and said in one sentence.

The conformance kit (`genret.testing`) checks far more, once; here is what is cheap enough for every call. Only plugins'
components are watched: genret's own are tested, and a fault of theirs is a fault of genret.

N images   R identifiers   B queries or examples   C candidates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from genret.api.border import raise_named, shown
from genret.errors import GenretError

Check = Callable[[Any, Any, tuple[Any, ...]], str | None]
"""(component, what it returned, what it was given) → what was wanted instead; None if it is fine"""


def watch(component: Any, name: str, origin: str) -> Any:
    """The component, called `name` and registered by `origin`, with methods that check in the places of its own."""
    who = f"the {component.kind} '{name}' (plugin {origin})"
    for method, check in METHODS[component.kind].items():
        wrap = _records if method == "records" else _called
        setattr(component, method, wrap(component, who, method, getattr(component, method), check))
    return component


def _called(component: Any, who: str, name: str, method: Callable[..., Any], check: Check | None) -> Callable[..., Any]:
    def call(*given: Any, **more: Any) -> Any:
        try:
            found = method(*given, **more)
        except Exception as error:
            raise_named(error, who, name)
        if check is not None and (wanted := check(component, found, (*given, *more.values()))) is not None:
            raise GenretError(f"{who}: {name}() returned {shown(found)}; it has to return {wanted}")
        return found

    return call


def _records(component: Any, who: str, name: str, method: Callable[..., Any], check: Check) -> Callable[..., Any]:
    def records(split: str) -> Iterator[Any]:
        seen = set[str]()
        try:
            for record in method(split):
                if (wanted := check(component, record, (seen,))) is not None:
                    raise GenretError(f"{who}: records('{split}') yields {record!r:.200}; it has to yield {wanted}")
                yield record
        except Exception as error:
            raise_named(error, who, name)

    return records


# ------------------------------------------------------------------------------------------------------ what is wanted
def parts_of(value: Any, *names: str) -> list[Any]:
    """Attributes, None where there is none."""
    return [getattr(value, name, None) for name in names]


def _is_table(value: Any, rows: int) -> bool:
    """A tensor (rows, D) of finite floats."""
    is_floats = hasattr(value, "is_floating_point") and value.is_floating_point()
    return bool(is_floats and value.ndim == 2 and len(value) == rows and value.isfinite().all())


def _features(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    return None if _is_table(found, len(given[0])) else f"a tensor ({len(given[0])}, D) of finite floats"


def _projected(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    if _is_table(found, len(given[0])) and bool(((found.float().norm(dim=-1) - 1).abs() < 0.01).all()):
        return None
    return f"a tensor ({len(given[0])}, D) of finite floats whose rows have length 1"


def _identifiers(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    count, sizes = len(given[0].features), component.vokens.sizes
    owners, codes, texts = parts_of(found, "owners", "codes", "texts")
    if not hasattr(owners, "unique_consecutive") or owners.unique_consecutive().tolist() != list(range(count)):
        return f"Identifiers whose owners name each of {count} images, in order, from 0 to {count - 1}"
    if (codes is None) == (texts is None):
        return "Identifiers with either codes or texts"
    if codes is None:
        return None if len(texts) == len(owners) else f"one text for each of {len(owners)} owners"
    if not hasattr(codes, "is_floating_point") or codes.is_floating_point() or codes.shape != (len(owners), len(sizes)):
        return f"codes as an int64 tensor ({len(owners)}, {len(sizes)}), a column for each level of vokens"
    if bool((codes < -1).any()) or any(int(codes[:, level].max()) >= size for level, size in enumerate(sizes)):
        return f"codes from 0 to below {sizes} (vokens.sizes), -1 after the end"
    return None


def _scores(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    rows = given[0].rows
    if not hasattr(found, "is_floating_point") or not found.is_floating_point() or found.shape != rows.shape:
        return f"a tensor {tuple(rows.shape)} of floats"
    is_nan = bool(found[rows.to(found.device) >= 0].isnan().any())
    return "numbers, -inf for candidates that cannot be judged (some are nan)" if is_nan else None


def _ranked(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    count = len(given[2])
    images, scores, leaves = tables = parts_of(found, "images", "scores", "leaves")
    if not all(type(one).__name__ == "ndarray" for one in tables) or not images.shape == scores.shape == leaves.shape:
        return f"genret.Ranked of three numpy arrays ({count}, C)"
    if images.ndim != 2 or len(images) != count or images.dtype.kind != "i" or scores.dtype.kind != "f":
        return f"genret.Ranked of images ({count}, C), integers, and scores ({count}, C), floats"
    there = scores[images >= 0]
    return None if bool((abs(there) < float("inf")).all()) else "finite scores of all images found"


def _record(component: Any, found: Any, given: tuple[Any, ...]) -> str | None:
    (seen,) = given
    image_id, uri, captions = parts_of(found, "image_id", "uri", "captions")
    if not isinstance(image_id, str) or not isinstance(uri, str):
        return "genret.Record with texts for image_id and uri"
    if not isinstance(captions, tuple) or not all(isinstance(text, str) for text in captions):
        return "captions as a tuple of texts: ('a dog',)"
    again = image_id in seen
    seen.add(image_id)
    return "each image_id once" if again else None


_FILES: dict[str, Check | None] = dict.fromkeys(("fit", "save", "load"))
METHODS: dict[str, dict[str, Any]] = {
    "dataset": {
        "records": _record,
        "read": lambda _, found, __: None if isinstance(found, bytes) else "the picture as bytes",
    },
    "encoder": {"image_features": _features, "text_features": _features}
    | {"project_images": _projected, "project_texts": _projected}
    | _FILES,
    "identifier": {"identify": _identifiers} | _FILES,
    "backbone": dict.fromkeys(("build", "tokens", "logits", "prefill", "step", "score", "save", "load")),
    "reranker": {"score": _scores, "load": None},
    "retriever": {"candidates": _ranked, "build_index": None} | _FILES,
    "evaluator": dict.fromkeys(("before_training", "after_training", "evaluate", "tables")),
}
"""What is watched of each kind, with what its results have to be; losses go through `api.border.loss_term`."""
