"""Structured identifiers: places in leaves by plain bookkeeping, what new images get, what the tree says of vectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.api import Corpus, FitContext
from genret.components.identifiers.structured import StructuredIdentifier
from genret.errors import GenretError

torch.set_num_threads(1)


def corpus(num: int, seed: int = 0, different: int | None = None, name: str = "image", **more: Any) -> Corpus:
    features = F.normalize(torch.randn(different or num, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return Corpus([f"{name} {i}" for i in range(num)], features[torch.arange(num) % len(features)], **more)


def fitted(train: Corpus, **options: Any) -> StructuredIdentifier:
    identifier = StructuredIdentifier(StructuredIdentifier.Config(**({"branching": 4, "leaf_size": 5} | options)))
    nothing: Any = None
    identifier.fit(train, {}, FitContext(0, torch.device("cpu"), Path(), nothing, lambda row: None))
    return identifier


def leaves(codes: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(path) for path in codes[:, :-1].tolist()]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.sampled_from([1, 4, None]), st.integers(1, 40))
def test_every_identifier_names_one_image(num, leaf_size, different, num_new):
    train = corpus(num, different=different)
    identifier = fitted(train, leaf_size=leaf_size)
    codes = identifier.identify(train).codes
    assert codes.shape == (num, len(identifier.vokens.sizes)) and len(codes.unique(dim=0)) == num
    assert (codes >= 0).all() and (codes < torch.tensor(identifier.vokens.sizes)).all()
    for leaf, count in Counter(leaves(codes)).items():
        members = train.features[[row for row, path in enumerate(leaves(codes)) if path == leaf]]
        assert count <= leaf_size or torch.cdist(members, members).max() < 1e-3
    new = corpus(num_new, seed=1, name="new", taken=codes)
    try:
        added = identifier.identify(new).codes
    except GenretError as error:
        assert "places of this structured identifier's tree are taken" in str(error)
        assert num + num_new > len(set(leaves(codes))) * identifier.vokens.sizes[-1]
    else:
        assert len(torch.cat([codes, added]).unique(dim=0)) == num + num_new


def test_places_are_given_in_the_order_of_the_images():
    train = corpus(80)
    codes, seen = fitted(train).identify(train).codes, defaultdict(int)
    for path, place in zip(leaves(codes), codes[:, -1].tolist(), strict=True):
        assert place == seen[path]
        seen[path] += 1


def test_new_images_take_the_lowest_free_place_of_the_nearest_leaf():
    train = corpus(60)
    identifier = fitted(train)
    codes = identifier.identify(train).codes
    gone = torch.arange(60) % 4 == 0  # removed from the catalog
    new = corpus(30, seed=1, name="new", taken=codes[~gone])
    used = {tuple(code) for code in codes[~gone].tolist()}
    waiting, expected = [], {}
    for row, path in enumerate(map(tuple, identifier.tree.descend(new.features).tolist())):
        free = next((place for place in range(5) if (*path, place) not in used), None)
        if free is None:
            waiting.append(row)
        else:
            used.add((*path, free))
            expected[row] = (*path, free)
    nodes, paths = identifier.tree.paths()
    centroid = dict(zip(map(tuple, paths.tolist()), identifier.tree.centroids[nodes], strict=True))
    for row in waiting:
        near = sorted(centroid, key=lambda path: float((centroid[path] - new.features[row]).square().sum()))
        expected[row] = next((*path, place) for path in near for place in range(5) if (*path, place) not in used)
        used.add(expected[row])
    assert waiting
    assert [tuple(code) for code in identifier.identify(new).codes.tolist()] == [expected[row] for row in range(30)]


def test_images_of_the_fit_keep_their_place_whoever_stands_before_them():
    train, new = corpus(40), corpus(10, seed=1, name="new")
    identifier = fitted(train)
    codes = identifier.identify(train).codes
    mixed = Corpus([*new.image_ids, *reversed(train.image_ids)], torch.cat([new.features, -train.features.flip(0)]))
    found = identifier.identify(mixed).codes
    assert found[10:].flip(0).equal(codes) and len(found.unique(dim=0)) == 50


def test_sharing_places_never_fails():
    train = corpus(20)
    identifier = fitted(train, collisions="keep")
    assert not identifier.avoids_collisions and fitted(train).avoids_collisions
    crowd = corpus(23, seed=2, different=1, name="new")
    codes = identifier.identify(crowd).codes
    assert len(set(leaves(codes))) == 1 and codes[:, -1].tolist() == [i % 5 for i in range(23)]
    with pytest.raises(GenretError, match="larger identifier"):
        fitted(corpus(5, different=5)).identify(crowd)


def test_equal_images_share_a_leaf_that_has_a_place_for_each():
    train = corpus(50, different=1)
    identifier = fitted(train)
    assert identifier.vokens.sizes == (50,) and identifier.identify(train).codes[:, 0].tolist() == list(range(50))


def test_what_is_reconstructed_is_the_mean_of_the_leaf():
    train = corpus(200)
    identifier = fitted(train, kmeans_iters=100)  # until k-means has converged
    codes = identifier.identify(train).codes
    rebuilt = identifier.reconstruct(codes)
    for leaf in set(leaves(codes)):
        members = [row for row, path in enumerate(leaves(codes)) if path == leaf]
        mean = F.normalize(train.features[members].mean(0), dim=0)
        torch.testing.assert_close(rebuilt[members], mean.expand(len(members), -1), atol=1e-4, rtol=1e-3)


def test_soft_codes_are_a_softmax_over_the_children_and_even_over_filled_places():
    train, tau = corpus(90), 0.1
    identifier = fitted(train)
    codes, tree = identifier.identify(train).codes, identifier.tree
    found = identifier.code_probabilities(train.features, codes, tau)
    assert [level.shape for level in found] == [(90, size) for size in identifier.vokens.sizes]
    count = Counter(leaves(codes))
    for row in range(90):
        node = 0
        for level, code in enumerate(codes[row, :-1].tolist()):
            children = range(int(tree.first[node]), int(tree.first[node] + tree.fan[node]))
            expected = torch.zeros(identifier.vokens.sizes[level])
            if len(children):
                far = torch.stack([(train.features[row] - tree.centroids[child]).square().sum() for child in children])
                expected[: len(far)] = (-far / (2 * tau)).softmax(0)
                node = children[code]
            else:
                expected[0] = 1
            torch.testing.assert_close(found[level][row], expected, atol=1e-5, rtol=1e-4)
        filled = count[tuple(codes[row, :-1].tolist())]
        assert found[-1][row].tolist() == pytest.approx([1 / filled] * filled + [0] * (5 - filled))
    sure = identifier.code_probabilities(train.features, codes, 1e-6)
    descended = tree.descend(train.features)
    assert all(level.argmax(1).equal(descended[:, m]) for m, level in enumerate(sure[:-1]))


def test_save_and_load(tmp_path):
    train = corpus(70)
    identifier = fitted(train)
    identifier.save(tmp_path / "saved")
    again = StructuredIdentifier(identifier.config)
    again.load(tmp_path / "saved")
    both = Corpus([*train.image_ids, "x"], torch.cat([train.features, train.features[:1]]))
    assert again.vokens == identifier.vokens
    assert again.identify(both).codes.equal(identifier.identify(both).codes)
    for old, new in zip(
        *(
            one.code_probabilities(both.features[:70], identifier.identify(train).codes, 0.1)
            for one in (again, identifier)
        ),
        strict=True,
    ):
        assert old.equal(new)
    (tmp_path / "saved" / "tree.safetensors").write_bytes(b"torn")
    with pytest.raises(GenretError, match="no usable identifier model"):
        StructuredIdentifier().load(tmp_path / "saved")
    with pytest.raises(GenretError, match="not fitted"):
        StructuredIdentifier().identify(train)
