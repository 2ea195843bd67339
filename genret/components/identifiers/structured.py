"""GRACE's structured identifiers: the path through a tree of clusters, then the image's index within its leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret import api
from genret.api import Corpus, FitContext, Identifier, Identifiers, Loss, Vokens
from genret.components.quantize.kmeans import distances
from genret.components.quantize.tree import Tree, grow
from genret.errors import GenretError
from genret.toolbox import saving as stored


class StructuredIdentifier(Identifier):
    """Hierarchical k-means over the image vectors, with separate vokens per level (GRACE, arXiv 2402.10805).

    All identifiers are as long as the deepest path: shorter paths are padded with code 0, which has no alternative, so
    it costs the generator little, and no end token is needed. The last code is the index in the leaf, which does not
    depend on content. A new image follows the nearest centroids and takes the first free index of its leaf. Codes have
    no vectors: below the first level each means another cluster under every parent.
    """

    has_teacher = True

    class Config(api.Config):
        branching: int = Field(30, ge=2, le=65536)
        """Number of clusters that a cluster is split into."""
        leaf_size: int = Field(30, ge=1, le=65536)
        """Clusters with at most this many images are leaves. Also the number of indices in a leaf, unless a leaf of
        indistinguishable images needs more."""
        kmeans_iters: int = Field(20, ge=0)
        """Iterations of each k-means."""
        collisions: Literal["nearest-free", "keep"] = "nearest-free"
        """New images whose leaf is full: nearest-free uses the nearest leaf with a free index; keep shares indices, so
        later images cannot know which are free."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.tree: Tree | None = None

    @property
    def avoids_collisions(self) -> bool:
        return bool(self.config.collisions == "nearest-free")

    # ------------------------------------------------------------------------------------------------ fitting
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        c = self.config
        generator = torch.Generator().manual_seed(context.seed)
        tree, leaves = grow(train.features.cpu(), c.branching, c.leaf_size, c.kmeans_iters, generator)
        self._set_tree(tree, max(c.leaf_size, int(leaves.bincount().max())))
        filled = [0] * len(tree.centroids)
        places = torch.empty_like(leaves)
        for row, leaf in enumerate(leaves.tolist()):
            places[row] = filled[leaf]
            filled[leaf] += 1
        self._remember(train.image_ids, torch.cat([self._path_of[leaves], places[:, None]], 1))

    def _set_tree(self, tree: Tree, places: int) -> None:
        self.tree = tree
        self._leaves, paths = tree.paths()
        self._path_of = torch.full((len(tree.centroids), tree.depth), -1)
        self._path_of[self._leaves] = paths
        self.vokens = Vokens((*(paths.amax(0) + 1).tolist(), places), learned=min(1, tree.depth))

    def _remember(self, image_ids: Sequence[str], codes: Tensor) -> None:
        """The images of the fit, whose identifiers never change."""
        assert self.tree is not None
        self._fit_rows = {image_id: row for row, image_id in enumerate(image_ids)}
        self._fit_codes = codes
        self._fit_leaves = self.tree.leaf(codes[:, :-1])
        self._filled = self._fit_leaves.bincount(minlength=len(self.tree.centroids)).clamp_min(1)

    # ------------------------------------------------------------------------------------------------ using
    def identify(self, corpus: Corpus) -> Identifiers:
        tree, num_images = self._fitted(), len(corpus.features)
        features = corpus.features.cpu()
        used = torch.zeros(len(tree.centroids), self.vokens.sizes[-1], dtype=torch.bool).numpy()
        if corpus.taken is not None and self.avoids_collisions:
            used[tree.leaf(corpus.taken[:, :-1]).numpy(), corpus.taken[:, -1].numpy()] = True
        leaves, places = tree.leaf(tree.descend(features)), torch.zeros(num_images, dtype=torch.int64)
        fit_rows = [self._fit_rows.get(image_id, -1) for image_id in corpus.image_ids]
        new, displaced = [], []
        for row, fit_row in enumerate(fit_rows):
            leaf, place = int(self._fit_leaves[fit_row]), int(self._fit_codes[fit_row, -1])
            if fit_row < 0 or used[leaf, place]:
                new.append(row)
            else:
                leaves[row], places[row] = leaf, place
                used[leaf, place] = True
        room = _Room(used)
        for row in new:
            place = room.take(int(leaves[row]), share=not self.avoids_collisions)
            if place < 0:
                displaced.append(row)
            else:
                places[row] = place
        for row in displaced:
            leaves[row] = self._nearest_with_room(features[row], room)
            places[row] = room.take(int(leaves[row]))
        return Identifiers(torch.arange(num_images), codes=torch.cat([self._path_of[leaves], places[:, None]], 1))

    def _nearest_with_room(self, vector: Tensor, room: _Room) -> int:
        open_leaves = [leaf for leaf in self._leaves.tolist() if not room.full(leaf)]
        if not open_leaves:
            raise GenretError(
                f"all {len(self._leaves) * self.vokens.sizes[-1]:,} places of this structured identifier's tree are "
                "taken; train with a larger identifier.leaf_size, or with identifier.collisions keep"
            )
        return open_leaves[int(distances(vector, self._fitted().centroids[open_leaves]).argmin())]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """The centroid of the leaf."""
        tree = self._fitted()
        return F.normalize(tree.centroids[tree.leaf(codes[:, :-1].cpu())], dim=-1)

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor]:
        """softmax_k −‖v − c_k‖² / 2τ over the children of the node that `codes` lead to; uniform over the indices that
        the fit used in a leaf."""
        tree, vectors, codes = self._fitted(), features.cpu(), codes.cpu()
        nodes = torch.zeros(len(vectors), dtype=torch.int64)
        levels = []
        for level, size in enumerate(self.vokens.sizes[:-1]):
            near = -0.5 * tree.distances(vectors, nodes)[:, :size]
            levels.append((near / temperature).softmax(-1))
            nodes = tree.child(nodes, codes[:, level])
        filled = self._filled[nodes, None]
        levels.append((torch.arange(self.vokens.sizes[-1]) < filled) / filled)
        return [level.to(features.device) for level in levels]

    def _fitted(self) -> Tree:
        if self.tree is None:
            raise GenretError("this structured identifier is not fitted yet; train a run, or load one")
        return self.tree

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        tree = self._fitted()
        tensors = {"centroids": tree.centroids, "first": tree.first, "fan": tree.fan, "codes": self._fit_codes}
        facts = {"depth": tree.depth, "places": self.vokens.sizes[-1], "image_ids": list(self._fit_rows)}
        stored.save(folder, "tree", tensors, facts)

    def load(self, folder: Path) -> None:
        with stored.reading(folder, "identifier model"):
            tensors, facts = stored.load(folder, "tree")
            tree = Tree(tensors["centroids"], tensors["first"], tensors["fan"], int(facts["depth"]))
            self._set_tree(tree, int(facts["places"]))
            self._remember(facts["image_ids"], tensors["codes"])


class _Room:
    """The indices used in every leaf; the lowest free one is assigned next."""

    def __init__(self, used: Any):
        self.used = used
        """(T, places) bool"""
        self._next = [0] * len(used)

    def full(self, leaf: int) -> bool:
        while self._next[leaf] < self.used.shape[1] and self.used[leaf, self._next[leaf]]:
            self._next[leaf] += 1
        return self._next[leaf] >= self.used.shape[1]

    def take(self, leaf: int, share: bool = False) -> int:
        """The lowest free index, or -1. `share`: if none is free, all of them in turn."""
        if self.full(leaf):
            if not share:
                return -1
            self._next[leaf] += 1
            return (self._next[leaf] - 1) % self.used.shape[1]
        self.used[leaf, self._next[leaf]] = True
        return self._next[leaf]
