"""What training may use of the test images: the recipe's `protocol`, and the pseudo-queries that it may need.

inductive            nothing
transductive-index   their pixels, for the identifier model
transductive-pseudo  their pixels and pseudo-queries, for the identifier model and the generator

Their true captions are never trained on, and the encoder's heads never use them. In the training corpus the test
images (called searched images in the code) follow the training images.

    N training images   S searched images   D width of the shared space
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genret.api import Corpus, Dataset
from genret.errors import GenretError, one_line
from genret.kit.captions import nearest_captions, normalize_caption
from genret.recipe.schema import Protocol, PseudoQueries
from genret.train.artifacts import content_key
from genret.train.targets import dense_neighbours

SENTENCES = "sentences.json"
"""In a run without captions, the held-out sentences that it can be measured on."""
MOST_LINE = 100_000
"""Maximum length of a line in a pseudo-query file; longer ones are errors."""


class TrainingCorpora(NamedTuple):
    """The data that the two models may be trained on."""

    tokenizer: Corpus
    generator: Corpus
    key: str
    """Changes with everything that the test images contribute."""
    remark: str | None = None
    """A note for the user."""


class Captions(NamedTuple):
    """Pseudo-queries: generated captions of S images."""

    texts: list[str]
    owners: list[int]
    features: Tensor
    """(T, D) unit rows"""


def training_corpora(
    protocol: Protocol,
    options: PseudoQueries,
    train: Corpus,
    searched: Corpus,
    encode: Callable[[Sequence[str]], Tensor],
) -> TrainingCorpora:
    """`encode`: texts → (T, D) unit rows, for captions from a file."""
    same = train.image_ids == searched.image_ids
    if protocol == "inductive":
        return TrainingCorpora(train, train, content_key(protocol))
    bare = searched.without_captions()
    if protocol == "transductive-index":
        joined = train if same else join(train, bare)
        return TrainingCorpora(joined, train, content_key(protocol, list(searched.image_ids)))
    if options.file is not None:
        made = captions_from_file(Path(options.file), searched, options.per_image, encode)
    else:
        made = captions_of_neighbours(train, bare, options)
    learnt = bare._replace(captions=made.texts, text_features=made.features, owners=torch.tensor(made.owners))
    joined = join(train, learnt)
    key = content_key(protocol, list(searched.image_ids), made.texts, made.owners)
    return TrainingCorpora(joined, joined, key, _remark(searched, made))


def taught_by(source: Dataset, split: str, corpus: Corpus, encode: Callable[[Sequence[str]], Tensor]) -> Corpus:
    """The corpus with the distinct captions of a split of `source`, each given to the image nearest to it.

    That owner is a hard target's only; the dense teacher (`teacher.py`) sees the sentence's own vector.
    """
    texts = list(dict.fromkeys(text for record in source.records(split) for text in record.captions))
    if not texts:
        return corpus.without_captions()
    vectors = encode(texts)
    nearest = dense_neighbours(vectors, corpus.features, 1, 1.0).images[:, 0]
    return corpus._replace(captions=texts, text_features=vectors, owners=nearest)


def join(train: Corpus, searched: Corpus) -> Corpus:
    """One corpus of N + S images; missing views of test images are replaced by the original image."""
    taken = set(train.image_ids)
    if both := next((name for name in searched.image_ids if name in taken), None):
        raise GenretError(
            f"the image id '{both}' occurs among the training and among the searched images; "
            "a transductive protocol needs ids that are unique within the data set"
        )
    views = train.views
    if views is not None:
        theirs = searched.views if searched.views is not None else searched.features[:, None]
        views = torch.cat([views, theirs[:, :1].expand(-1, views.shape[1], -1)])
    joined = train._replace(
        image_ids=[*train.image_ids, *searched.image_ids],
        features=torch.cat([train.features, searched.features]),
        views=views,
    )
    if not searched.captions:
        return joined
    assert train.text_features is not None and searched.text_features is not None
    assert train.owners is not None and searched.owners is not None
    return joined._replace(
        captions=[*train.captions, *searched.captions],
        text_features=torch.cat([train.text_features, searched.text_features]),
        owners=torch.cat([train.owners, searched.owners + len(train.features)]),
    )


def captions_of_neighbours(train: Corpus, searched: Corpus, options: PseudoQueries) -> Captions:
    """Each test image takes the captions of its nearest training images that are most similar to its own vector."""
    if train.text_features is None or train.owners is None or not train.captions:
        raise GenretError("protocol transductive-pseudo makes captions from training captions, but there are none")
    order = train.owners.argsort(stable=True)
    counts = torch.bincount(train.owners, minlength=len(train.features))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    vectors, wordings = train.text_features[order], [train.captions[row] for row in order.tolist()]
    texts, owners, rows = list[str](), list[int](), list[int]()
    found = nearest_captions(searched.features, train.features, vectors, starts, options.neighbours)
    for image, captions in enumerate(found):
        different: dict[str, int] = {}
        for caption in captions:
            different.setdefault(wordings[caption], caption)
        for text, row in list(different.items())[: options.per_image]:
            texts.append(text)
            owners.append(image)
            rows.append(row)
    return Captions(texts, owners, vectors[torch.tensor(rows, dtype=torch.int64)])


def captions_from_file(
    path: Path, searched: Corpus, per_image: int, encode: Callable[[Sequence[str]], Tensor]
) -> Captions:
    """Reads JSON Lines of {"image_id", "caption"}; lines about other images are ignored.

    Raises `GenretError` for a caption that is a true one of its image: those are never trained on.
    """
    row_of = {image_id: row for row, image_id in enumerate(searched.image_ids)}
    true = _wordings(searched)
    texts, owners = list[str](), list[int]()
    counts = [0] * len(row_of)
    try:
        with path.open(encoding="utf-8") as stream:
            number = 0
            while line := stream.readline(MOST_LINE):
                number += 1
                image_id, caption = _parsed(line, f"pseudo_queries.file: {path}:{number}")
                row = row_of.get(image_id)
                if row is None or counts[row] >= per_image:
                    continue
                if normalize_caption(caption) in true[row]:
                    raise GenretError(
                        f"pseudo_queries.file: {path}:{number} gives the searched image '{image_id}' its true caption "
                        f"'{one_line(caption, 60)}'; made-up captions must not be copied from the data"
                    )
                texts.append(caption)
                owners.append(row)
                counts[row] += 1
    except (OSError, UnicodeDecodeError) as error:
        raise GenretError(f"pseudo_queries.file: cannot read {path} ({one_line(error)})") from error
    if not texts:
        raise GenretError(f"pseudo_queries.file: {path} has no caption of any searched image")
    order = sorted(range(len(texts)), key=lambda place: owners[place])
    texts, owners = [texts[place] for place in order], [owners[place] for place in order]
    return Captions(texts, owners, encode(texts))


def _parsed(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        image_id, caption = row["image_id"], row["caption"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise GenretError(f'{where}: should be {{"image_id": ..., "caption": ...}}') from None
    if not isinstance(image_id, str) or not isinstance(caption, str) or not caption.strip():
        raise GenretError(f"{where}: image_id and caption should be texts, and the caption not empty")
    return image_id, caption


def _wordings(corpus: Corpus) -> list[set[str]]:
    """The normalized true captions of each image."""
    found: list[set[str]] = [set() for _ in corpus.image_ids]
    if corpus.owners is not None:
        for caption, owner in zip(corpus.captions, corpus.owners.tolist(), strict=True):
            found[owner].add(normalize_caption(caption))
    return found


def _remark(searched: Corpus, made: Captions) -> str | None:
    """A warning if pseudo-queries equal true captions, by chance, because training and test images share captions."""
    true = _wordings(searched)
    same = sum(normalize_caption(text) in true[owner] for text, owner in zip(made.texts, made.owners, strict=True))
    if not same:
        return None
    return (
        f"{same:,} of {len(made.texts):,} made-up captions of searched images are worded like a true one: training "
        "images have captions of the same words"
    )
