"""ExampleEvaluator: recall by the length of the query."""

from __future__ import annotations

from pydantic import Field

import genret


class ExampleEvaluator(genret.Evaluator):
    """Recall of short and of long queries: how often the relevant image is in the top k."""

    class Config(genret.Config):
        words: int = Field(6, ge=1)
        """Queries with more words than this are long."""
        k: int = Field(5, ge=1, le=10)
        """k: the relevant image has to be in the top k."""

    def evaluate(self, run, found, ui):
        if found.answer is None:  # nothing could be searched
            return None
        right = (found.answer.images[:, : self.config.k] == found.asked.relevant[:, None]).any(1)  # (Q,)
        groups = {"short": [], "long": []}
        for text, hit in zip(found.asked.queries, right.tolist(), strict=True):
            groups["long" if len(text.split()) > self.config.words else "short"].append(hit)
        recall = {name: 100 * sum(hits) / len(hits) if hits else None for name, hits in groups.items()}
        return {"k": self.config.k, "recall": recall}

    def tables(self, figures, split):
        if figures is None:
            return []
        said = (f"{name} {recall:.1f}" for name, recall in figures["recall"].items() if recall is not None)
        return [f"example: recall@{figures['k']} of queries that are {', '.join(said)}"]
