"""Recall of groups of queries: by their images' metadata and by query length."""

import numpy as np
from pydantic import Field

import genret
from genret.toolbox.text_table import TextTable

CUTOFFS = (1, 5, 10)
LENGTH = "words of the query"


class GroupsEvaluator(genret.Evaluator):
    """Recall by the images' metadata and by query length, to find groups with low recall."""

    class Config(genret.Config):
        most_values: int = Field(12, ge=2)
        """Metadata with more distinct values, such as ids, are ignored."""
        least_queries: int = Field(5, ge=1)
        """Smaller groups are left out: their recall is too noisy."""

    def evaluate(self, run, found, ui):
        if found.answer is None:  # nothing could be searched
            return None
        asked, images = found.asked, found.answer.images
        hits = {str(k): (images[:, :k] == asked.relevant[:, None]).any(1) for k in CUTOFFS if images.shape[1] >= k}
        rows = [run.retriever.catalog.lookup(asked.keys)[row].metadata for row in asked.relevant]
        lengths = [length_of(text) for text in asked.queries]
        kinds = {key: [row.get(key) for row in rows] for key in sorted({key for row in rows for key in row})}
        kinds = {key: values for key, values in kinds.items() if 2 <= len(set(values)) <= self.config.most_values}
        figures = {key: self.groups(values, hits) for key, values in (kinds | {LENGTH: lengths}).items()}
        return {key: groups for key, groups in figures.items() if groups}

    def groups(self, values, hits):
        """values (Q,), hits (Q,) by cutoff → the recalls of each value, in percent."""
        members = {str(value): np.array([one == value for one in values]) for value in sorted(set(values), key=str)}
        return {
            name: {"queries": int(own.sum()), "recall": {k: 100 * float(hit[own].mean()) for k, hit in hits.items()}}
            for name, own in members.items()
            if own.sum() >= self.config.least_queries
        }

    def tables(self, figures, split):
        return [
            TextTable(
                f"Recall by {key}, split '{split}'",
                [key, "queries", *(f"R@{k}" for k in next(iter(groups.values()))["recall"])],
                [
                    [name, str(one["queries"]), *map("{:.1f}".format, one["recall"].values())]
                    for name, one in groups.items()
                ],
                words=1,
            )
            for key, groups in (figures or {}).items()
        ]


def length_of(text):
    count = len(text.split())
    return next((f"up to {most}" for most in (3, 6, 10, 15) if count <= most), "more than 15")
