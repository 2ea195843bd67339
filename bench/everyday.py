"""How well a run of the quick start finds emoji by everyday words: `python -m bench.everyday RUN`.

`everyday.tsv` has the queries and the emoji that answer them. An answer counts in any skin tone, gender and direction.
Choices were made on the queries of the development half and of `everyday-more.tsv` alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import genret
from genret.search.dense import dense_search
from genret_starter.concepts import base_of, key_of

QUERIES = Path(__file__).with_suffix(".tsv")
MORE = QUERIES.with_name("everyday-more.tsv")
DEPTH = 10
Half = Literal["development", "reporting", "more"]
HALVES: tuple[Half, ...] = ("development", "reporting")
"""Of the first list; `more` is the second one, for development as well."""


class Everyday(NamedTuple):
    query: str
    answers: frozenset[str]
    """Emoji without skin tone, gender and direction"""


def queries(half: Half) -> list[Everyday]:
    file = MORE if half == "more" else QUERIES
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    rows = (line.split("\t") for line in (lines if half == "more" else lines[HALVES.index(half) :: 2]))
    return [Everyday(query, frozenset(map(concept, emoji.split()))) for query, emoji in rows]


def concept(emoji: str) -> str:
    return base_of(key_of(emoji))


def counts(asked: Sequence[Everyday], found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The number of queries with a right emoji at the first place and among ten; `found`: emoji, best first."""
    right = [
        [concept(emoji) in one.answers for emoji in these[:DEPTH]] for one, these in zip(asked, found, strict=True)
    ]
    return {
        "first": sum(row[:1] == [True] for row in right),
        "among_ten": sum(map(any, right)),
        "missed": [one.query for one, row in zip(asked, right, strict=True) if not any(row)],
    }


def measure(run: genret.Run, asked: Sequence[Everyday]) -> dict[str, dict[str, Any]]:
    """The counts of each way to search: as the run does, the images of its beams in dense order, and two towers."""
    texts = [one.query for one in asked]
    beams = run.retriever.num_beams
    assert beams is not None, "the run writes identifiers"
    with run.catalog.snapshot() as snapshot:
        keys = snapshot.searchable_keys()
        images, vectors = snapshot.features_of(keys), run.retriever.text_vectors(texts)
        shown = [str(one.metadata["emoji"]) for one in snapshot.lookup(keys)]
    row = {emoji: place for place, emoji in enumerate(shown)}
    written = [[str(hit.metadata["emoji"]) for hit in one.hits] for one in run.search(texts, k=max(beams, DEPTH))]
    reordered = []
    for emoji, vector in zip(written, vectors, strict=True):
        score = images[[row[one] for one in emoji]] @ vector
        reordered.append([emoji[place] for place in score.argsort(descending=True).tolist()])
    dense = [[shown[place] for place in rows] for rows in dense_search(vectors, images, DEPTH).rows.tolist()]
    return {"avg": counts(asked, written), "reranked": counts(asked, reordered), "two_tower": counts(asked, dense)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--half", choices=(*HALVES, "more"), default="reporting")
    options = parser.parse_args()
    asked = queries(options.half)
    with genret.load(options.run) as run:
        found = measure(run, asked)
    for name, one in found.items():
        print(f"{name:10} first {one['first']:3} of {len(asked)}, among ten {one['among_ten']:3}")
    print(
        json.dumps({"run": options.run, "half": options.half, "num_queries": len(asked), **found}, ensure_ascii=False)
    )


if __name__ == "__main__":
    main()
