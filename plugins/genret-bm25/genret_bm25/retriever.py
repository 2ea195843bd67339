"""BM25 over borrowed captions. N catalog images   T training captions   c captions of an image"""

import bm25s
import numpy as np
import torch
from pydantic import Field

import genret
from genret.kit.captions import nearest_captions
from genret.toolbox import saving


class BM25Retriever(genret.CatalogRetriever):
    """BM25 scores of the query for captions that an image borrows from its nearest training images."""

    learns = True

    class Config(genret.Config):
        neighbours: int = Field(5, ge=1)
        """Number of nearest training images to borrow captions from."""
        captions: int = Field(5, ge=1)
        """Number of captions to borrow: those most similar to the image's vector."""
        k1: float = Field(1.5, ge=0)
        """BM25's k1: saturation of the term frequency."""
        b: float = Field(0.75, ge=0, le=1)
        """BM25's b: length normalization."""

    def fit(self, train, context):
        captioned, owners = train.owners.unique(return_inverse=True)
        order = owners.argsort(stable=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), owners.bincount().cumsum(0)])
        tensors = {"images": train.features[captioned], "captions": train.text_features[order], "starts": starts}
        self.learn(tensors, [train.captions[row] for row in order.tolist()])

    def learn(self, tensors, captions):
        self.tensors, self.captions = tensors, captions
        self.words = bm25s.BM25(k1=self.config.k1, b=self.config.b)
        self.words.index(bm25s.tokenize(captions, stopwords=None, show_progress=False), show_progress=False)

    def save(self, folder):
        saving.save(folder, "bm25", self.tensors, {"captions": self.captions})

    def load(self, folder):
        with saving.reading(folder, "BM25 index"):
            stored = saving.load(folder, "bm25")
            self.learn(stored.tensors, stored.facts["captions"])

    def build_index(self, snapshot, keys):
        if "tensors" not in vars(self):
            raise genret.GenretError("this bm25 retriever is not fitted yet; train a run, or load one")
        found = nearest_captions(snapshot.features_of(keys), neighbours=self.config.neighbours, **self.tensors)
        rows = [torch.tensor(captions[: self.config.captions]) for captions in found]
        return keys, torch.nn.utils.rnn.pad_sequence(rows, True, -1).numpy()  # (N,), (N, c)

    def candidates(self, snapshot, index, batch, k, num_beams, allowed):
        keys, borrowed = index
        scores = np.zeros((len(batch), len(self.captions) + 1), np.float32)  # (B, T + 1), the last for padding
        for row, words in enumerate(bm25s.tokenize(batch.texts, stopwords=None, return_ids=False, show_progress=False)):
            scores[row, :-1] = self.words.get_scores(words or [""])
        return genret.Ranked.of(scores[:, borrowed].sum(2) / (borrowed >= 0).sum(1), keys, self.depth(k), allowed)
