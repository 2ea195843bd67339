"""Runs towers over any number of images and texts: streaming, in batches, only for vectors that the cache lacks.

A small thread pool reads and decodes the next batches while the tower processes the current one, so memory holds a few
batches of images, independent of the size of the dataset.

N images   W views   D width of the tower's vectors
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genret.api import Bar, Encoder, Progress, Silent, Skipped
from genret.errors import BadImage, GenretError
from genret.kit.feature_cache import FeatureCache
from genret.kit.images import at_most

LARGEST_SIDE = 1024
"""Images are scaled down to this size while they wait for the tower: no tower needs more."""
LEAST_SIDE = 512
"""Large JPEGs are decoded at a reduced size whose shorter side is not below it, which is what takes their time."""
NUM_THREADS = 4
BATCHES_AHEAD = 2
Made = TypeVar("Made")
LOOKUP = 4096
"""Vectors read from the cache at a time."""


class ImageItem(NamedTuple):
    key: str
    """A key of the image's content: a hash of its bytes."""
    load: Callable[[], Image.Image]
    """Opens it as RGB; `BadImage` if that fails."""
    uri: str = ""
    """Name shown to people."""


class EncodedImages(NamedTuple):
    features: Tensor
    """(N', W, D) of the images that could be read"""
    rows: Tensor
    """(N',) indices of the given images, ascending"""
    skipped: list[Skipped]


def encode_images(
    encoder: Encoder,
    items: Iterable[ImageItem],
    cache: FeatureCache,
    *,
    views: int = 1,
    batch_size: int = 64,
    progress: Progress | None = None,
    label: str = "encode images",
) -> EncodedImages:
    """Vectors of `views` views of each image, in order. Images that cannot be read are skipped and reported."""
    items = list(items)
    suffixes = ["" if view == 0 else f"|{encoder.view_key(view)}" for view in range(views)]
    missing = _missing(items, suffixes, cache)
    bad: dict[str, str] = {}
    with _bar(progress, label, len(missing)) as bar:
        for loaded in decoded(items, list(missing), batch_size, bad):
            vectors: dict[str, np.ndarray] = {}
            for view, suffix in enumerate(suffixes):
                batch = {items[i].key + suffix: image for i, image in loaded if view in missing[i]}
                if batch:
                    rows = _checked(encoder.image_features(list(batch.values()), view), "image")
                    vectors |= dict(zip(batch, rows, strict=True))
            cache.put_many(vectors)
            bar.advance(len(loaded))
        bar.advance(len(bad))
    good = [i for i, item in enumerate(items) if item.key not in bad]
    keys = [items[i].key + suffix for i in good for suffix in suffixes]
    features = _gather(keys, cache).view(len(good), views, cache.width or 0)
    return EncodedImages(features, torch.tensor(good, dtype=torch.long), _skipped(items, bad))


def encode_texts(
    encoder: Encoder,
    texts: Sequence[str],
    cache: FeatureCache,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    label: str = "encode texts",
) -> Tensor:
    """(T, D) vectors of texts; each distinct text is encoded once, batched with others of similar length."""
    keys = {text: sha256(text.encode()).hexdigest() for text in dict.fromkeys(texts)}
    known = cache.present(keys.values())
    missing = sorted((text for text, key in keys.items() if key not in known), key=lambda text: (-len(text), text))
    with _bar(progress, label, len(missing)) as bar:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            vectors = _checked(encoder.text_features(batch), "text")
            cache.put_many({keys[text]: vector for text, vector in zip(batch, vectors, strict=True)})
            bar.advance(len(batch))
    return _gather([keys[text] for text in texts], cache)


def _skipped(items: Sequence[ImageItem], bad: Mapping[str, str]) -> list[Skipped]:
    """What was left out and why. Of identical images only the first was opened; the others get its reason."""
    first: dict[str, str] = {}
    skipped = list[Skipped]()
    for item in items:
        if item.key in bad:
            opened = first.setdefault(item.key, item.uri)
            reason = bad[item.key].replace(opened, item.uri, 1) if opened else bad[item.key]
            skipped.append(Skipped(item.uri or item.key, reason))
    return skipped


def _missing(items: Sequence[ImageItem], suffixes: Sequence[str], cache: FeatureCache) -> dict[int, list[int]]:
    """The first image of each content whose views the cache lacks, with those views."""
    first = {item.key: i for i, item in reversed(list(enumerate(items)))}
    known = cache.present(key + suffix for key in first for suffix in suffixes)
    lacking = {i: [v for v, suffix in enumerate(suffixes) if key + suffix not in known] for key, i in first.items()}
    return {i: views for i, views in sorted(lacking.items()) if views}


def decoded(
    items: Sequence[ImageItem], wanted: Sequence[int], batch_size: int, bad: dict[str, str]
) -> Iterator[list[tuple[int, Image.Image]]]:
    """Batches of decoded images with their positions; images that cannot be read go into `bad`, by key."""
    with closing(in_threads((partial(_image, items[i]) for i in wanted), BATCHES_AHEAD * batch_size)) as images:
        numbered = zip(wanted, images, strict=True)
        while some := list(islice(numbered, batch_size)):
            bad |= {items[i].key: str(image) for i, image in some if isinstance(image, BadImage)}
            if loaded := [(i, image) for i, image in some if not isinstance(image, BadImage)]:
                yield loaded


def _image(item: ImageItem) -> Image.Image | BadImage:
    try:
        return opened(item.load)
    except BadImage as error:
        return error


def in_threads(calls: Iterable[Callable[[], Made]], ahead: int, threads: int = NUM_THREADS) -> Generator[Made]:
    """The results of calls, in order; up to `ahead` of them are made before they are asked for."""
    pool, calls = ThreadPoolExecutor(threads, thread_name_prefix="genret-decode"), iter(calls)
    waiting: deque[Future[Made]] = deque()
    try:
        while True:
            waiting.extend(pool.submit(call) for call in islice(calls, ahead - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def opened(load: Callable[[], Image.Image]) -> Image.Image:
    """The image, scaled down to the largest size that any tower needs."""
    return at_most(load(), LARGEST_SIDE)


def _checked(vectors: Tensor, modality: str) -> np.ndarray:
    if not bool(vectors.isfinite().all()):
        raise GenretError(
            f"the {modality} tower returned NaN or infinite values; set its bf16: false, or check its weights"
        )
    return vectors.float().numpy()


def _gather(keys: Sequence[str], cache: FeatureCache) -> Tensor:
    """(len(keys), D) from the cache: the same values that later runs will read."""
    features = torch.zeros(len(keys), cache.width or 0)
    for start in range(0, len(keys), LOOKUP):
        chunk = keys[start : start + LOOKUP]
        found = cache.get_many(chunk)
        if lost := [key for key in chunk if key not in found]:
            raise GenretError(f"the feature cache {cache.path} lost {len(lost)} vectors while it was used; start again")
        features[start : start + len(chunk)] = torch.from_numpy(np.stack([found[key] for key in chunk]))
    return features


def _bar(progress: Progress | None, label: str, total: int) -> AbstractContextManager[Bar]:
    return progress(label, total) if progress is not None and total else Silent()


@torch.no_grad()
def text_vectors(encoder: Encoder, device: torch.device, texts: Sequence[str]) -> Tensor:
    """Texts → (B, D) unit rows of the shared space, on the CPU. `device`: where the encoder's heads are."""
    return encoder.project_texts(encoder.query_features(texts).to(device)).float().cpu()
