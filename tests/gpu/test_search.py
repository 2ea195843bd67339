"""Searches on the device against the same searches on the CPU, and how often the host waits in them."""

import warnings

import numpy as np
import pytest
import torch

from bench.models import queries
from genret.components.retrievers.guidance.guide import FlatGuide
from genret.components.retrievers.guidance.means import Points
from genret.decode.beam import beam_search
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie

pytestmark = pytest.mark.gpu
BEAMS = 12
TOLERANCE = 1e-4
"""Of sums of log-probabilities that two devices compute; within it the order may differ."""


def rows(network, variable=False, count=500):
    """(N, 3) tokens of distinct identifiers; `variable`: some end early, by the end token."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(32, (count, 3), generator=generator).unique(dim=0)
    tokens = codes + torch.tensor([int(level[0]) for level in network.level_tokens])
    if not variable:
        return tokens
    end = network.backbone.end_token
    tokens = torch.cat([tokens, torch.full((len(tokens), 1), end)], dim=1)
    tokens[::3, 2], tokens[::3, 3] = end, -1
    return tokens.unique(dim=0)


def guided(network, trie, batch):
    generator = torch.Generator().manual_seed(5)
    books = [torch.randn(32, 16, generator=generator) for _ in range(3)]
    target = torch.randn(batch, 16, generator=generator)
    place = network.device
    points = Points(trie, [book.to(place) for book in books], network.level_tokens)
    return FlatGuide(target.to(place), points, 3.0)


def halves(trie, batch, place):
    """Every query may find another half of the leaves."""
    parity = np.arange(trie.num_leaves) % 2 == 0
    return LeafSets.of([parity if query % 2 else ~parity for query in range(batch)]).to(place)


def found(network, kind, batch, num_beams=BEAMS):
    """→ per query {leaf: score}, on the CPU."""
    variable = kind == "variable length"
    trie = Trie.build(rows(network, variable)).to(network.device)
    guide = guided(network, trie, batch) if kind == "guided" else None
    allowed = halves(trie, batch, network.device) if kind == "restricted" else None
    score = "trie" if kind == "normalized over the trie" else "vocab" if variable else "level"
    levels = network.level_tokens if score == "level" else ()
    beams = beam_search(network.backbone, queries(batch, 0), trie, num_beams, score, levels, allowed, guide)
    return beams.leaves.cpu(), beams.scores.float().cpu()


KINDS = ["plain", "guided", "restricted", "variable length", "normalized over the trie"]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ranking_is_that_of_the_cpu_up_to_ties(networks, kind, batch):
    (leaves, scores), (others, known) = (found(network, kind, batch) for network in networks)
    torch.testing.assert_close(scores, known, atol=TOLERANCE, rtol=0)
    for query in range(batch):
        mine = dict(zip(leaves[query].tolist(), scores[query].tolist(), strict=True))
        other = dict(zip(others[query].tolist(), known[query].tolist(), strict=True))
        last = float(scores[query, -1]) + TOLERANCE
        for leaf in mine.keys() ^ other.keys():  # only one has it: it ties with the last
            assert mine.get(leaf, other.get(leaf)) <= last
        for leaf in mine.keys() & other.keys():
            assert mine[leaf] == pytest.approx(other[leaf], abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["plain", "variable length", "normalized over the trie"])
def test_a_batch_finds_what_its_queries_find_alone(networks, kind):
    """Batches on a device take other kernels than single queries."""
    network = networks[1]
    _, together = found(network, kind, 7)
    _, alone = found(network, kind, 1)
    torch.testing.assert_close(together[:1], alone, atol=TOLERANCE, rtol=0)


class Steps:
    """A backbone whose queries have been read: what follows is the search loop alone."""

    def __init__(self, backbone, texts):
        self._backbone, self._state = backbone, backbone.prefill(texts)

    def prefill(self, texts):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        return self._state

    def step(self, *given):
        return self._backbone.step(*given)


@pytest.mark.parametrize("kind", ["plain", "guided", "restricted"])
def test_nothing_in_the_loop_waits_for_the_host(networks, kind, device, record_property):
    """torch reports every synchronizing call. One is allowed: the check for finite scores, after the loop."""
    if device.type != "cuda":
        pytest.skip("a CPU does not wait")
    network, batch = networks[1], 4
    trie = Trie.build(rows(network)).to(device)
    guide = guided(network, trie, batch) if kind == "guided" else None
    allowed = halves(trie, batch, device) if kind == "restricted" else None
    given = (trie, BEAMS, "level", network.level_tokens, allowed, guide)
    texts = queries(batch, 0)
    with torch.no_grad():
        beam_search(network.backbone, texts, *given)  # the first search makes dense levels and tables
        steps = Steps(network.backbone, texts)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                beam_search(steps, texts, *given)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    waits = [f"{one.filename.rsplit('/', 1)[-1]}:{one.lineno}" for one in told if "synchroniz" in str(one.message)]
    record_property(f"synchronizations, {kind}", len(waits))
    assert len(waits) <= 1, waits


def test_peak_memory_of_a_search_is_stated(networks, device, record_property):
    if device.type != "cuda":
        pytest.skip("a CPU does not count its memory")
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    found(networks[1], "plain", 64)
    peak = torch.cuda.max_memory_allocated(device) - before
    record_property(f"peak MB of 64 tiny searches, {networks[1].name}", round(peak / 2**20, 1))
    assert peak > 0
