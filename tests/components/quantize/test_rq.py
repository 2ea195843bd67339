"""The residual quantizer against vector-quantize-pytorch, formulas and exhaustive search."""

import itertools
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from vector_quantize_pytorch import ResidualVQ

from genret.components.quantize.kmeans import kmeans, nearest
from genret.components.quantize.rq import ResidualQuantizer
from genret.toolbox.codes.usage import usage_statistics

torch.set_num_threads(1)

DIM, LEVELS, SIZE = 6, 3, 8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(num=200, seed=0):
    return torch.nn.functional.normalize(torch.randn(num, DIM, generator=seeded(seed)), dim=1)


def quantizer(**options):
    torch.manual_seed(0)
    return ResidualQuantizer(**({"dim": DIM, "num_levels": LEVELS, "codebook_size": SIZE} | options))


def error(rq, z, codes):
    return (z - rq.decode(codes)).square().sum(1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_equals_vector_quantize_pytorch(shared, learn):
    rq = quantizer(shared=shared, learn=learn).eval()
    rq.init_kmeans(points(), 5, seeded())
    reference = ResidualVQ(dim=DIM, num_quantizers=LEVELS, codebook_size=SIZE, shared_codebook=shared).eval()
    for level, layer in enumerate(reference.layers):
        layer._codebook.embed.data.copy_(rq.book(level).detach()[None])
        layer._codebook.initted.data.fill_(True)
    z = points(seed=1)
    out = rq(z)
    quantized, codes, _, every = reference(z, return_all_codes=True)
    assert out.codes.equal(codes)
    assert rq.encode(z).equal(codes)
    torch.testing.assert_close(out.quantized, quantized)
    torch.testing.assert_close(rq.decode(codes), quantized)
    torch.testing.assert_close(out.partial, every.movedim(0, 1).cumsum(1))
    vectors = rq.code_vectors()
    assert vectors.shape == ((1 if shared else LEVELS) * SIZE, DIM)
    offset = 0 if shared else SIZE * torch.arange(LEVELS)
    torch.testing.assert_close(vectors[codes + offset].sum(1), quantized)


def test_gradients():
    for learn in ("ema", "gradient"):
        rq = quantizer(learn=learn, dead_code_threshold=0).train()
        z = points().requires_grad_()
        out = rq(z)
        out.quantized.square().sum().backward()
        torch.testing.assert_close(z.grad, 2 * out.quantized.detach())
        if learn == "ema":
            assert not out.partial.requires_grad
            continue
        assert rq.codebooks.grad is None
        rq(z.detach()).partial[:, -1].sum().backward()
        for level in range(LEVELS):
            counts = out.codes[:, level].bincount(minlength=SIZE).float()
            assert rq.codebooks.grad[level].equal(counts[:, None].expand(-1, DIM))


@pytest.mark.parametrize("shared", [False, True])
def test_moving_averages_by_hand(shared):
    """N ← γN + (1−γ)n, m ← γm + (1−γ)Σr, e = m/N (arXiv 1711.00937, Eqns. 6–8), from N = the average count."""
    rq = quantizer(shared=shared, ema_decay=0.9, dead_code_threshold=0).train()
    books = 1 if shared else LEVELS
    per_step = 50 * LEVELS // books
    size = torch.full((books, SIZE), per_step / SIZE)
    total = rq.codebooks.clone() * per_step / SIZE
    for step in range(4):
        z = points(50, seed=step)
        before = rq.codebooks.clone()
        out = rq(z)
        count, sums = torch.zeros(books, SIZE), torch.zeros(books, SIZE, DIM)
        residual = z
        for level in range(LEVELS):
            book = 0 if shared else level
            codes = torch.cdist(residual, before[book]).argmin(1)
            assert codes.equal(out.codes[:, level])
            for code, vector in zip(codes.tolist(), residual, strict=True):
                count[book, code] += 1
                sums[book, code] += vector
            residual = residual - before[book][codes]
        size, total = 0.9 * size + 0.1 * count, 0.9 * total + 0.1 * sums
        torch.testing.assert_close(rq.codebooks, total / size[..., None])
        torch.testing.assert_close(rq.cluster_size * per_step / SIZE, size)
    frozen = rq.eval().codebooks.clone()
    rq(points())
    assert rq.codebooks.equal(frozen)


def test_averages_lower_the_error():
    rq = quantizer(dead_code_threshold=0.1, ema_decay=0.8).train()
    z = points(300)
    before = error(rq, z, rq.encode(z)).mean()
    for _ in range(60):
        rq(z)
    assert error(rq, z, rq.encode(z)).mean() < 0.3 * before


@pytest.mark.parametrize("learn", ["ema", "gradient"])
@pytest.mark.parametrize("shared", [False, True])
def test_dead_codes_are_revived(shared, learn):
    rq = quantizer(shared=shared, learn=learn, dead_code_threshold=0.05).train()
    book = 0 if shared else 1
    rq.codebooks.data[book, 2:5] = 100.0  # nothing is near
    if learn == "ema":
        rq.cluster_sum[book, 2:5] = 100.0 * 0.04
    rq.cluster_size[book, 2:5] = 0.04
    z = points(40)
    old = rq.codebooks.detach().clone()
    residuals = rq.residuals(z, LEVELS)
    rq(z)
    given = residuals.flatten(0, 1) if shared else residuals[:, book]
    distance = (rq.codebooks.detach()[book, 2:5, None] - given).square().sum(-1)
    assert distance.min(1).values.max() < 1e-10
    assert distance.argmin(1).unique().numel() == 3  # each on another point
    assert rq.cluster_size[book, 2:5].tolist() == [1.0] * 3
    if learn == "ema":
        assert rq.cluster_sum[book, 2:5].equal(rq.codebooks[book, 2:5])
    else:
        alive = [k for k in range(SIZE) if k not in (2, 3, 4) and rq.cluster_size[book, k] != 1]
        assert rq.codebooks.detach()[book, alive].equal(old[book, alive])
    rq.dead_code_threshold = 0
    rq.codebooks.data[book, 2] = 100.0
    rq.cluster_size[book, 2] = 0.0
    kept = rq.codebooks.detach()[book, 2].clone()
    rq(z)
    assert rq.codebooks.detach()[book, 2].equal(kept)


def test_revival_recovers_a_collapsed_codebook():
    for threshold, least in ((0.0, 0), (0.1, 20)):
        rq = quantizer(codebook_size=32, dead_code_threshold=threshold, ema_decay=0.9).train()
        rq.codebooks[:, 1:] = 100.0
        rq.cluster_sum[:, 1:] = 100.0
        z = points(300)
        for _ in range(200):
            rq(z)
        used = [level.perplexity for level in usage_statistics(rq.encode(z), (32,) * LEVELS)]
        assert min(used) > least
        if not threshold:
            assert max(used) < 1.01


def test_more_dead_codes_than_points():
    rq = quantizer(codebook_size=64).train()
    rq.cluster_size.zero_()
    rq(points(5))
    assert rq.codebooks.isfinite().all()
    assert int((rq.cluster_size[0] == 1).sum()) == 5


def test_kmeans_init_lowers_the_error_level_by_level():
    rq = quantizer()
    z = points(400)
    rq.init_kmeans(z, 10, seeded())
    assert bool(rq.initted)
    partial = rq.eval()(z).partial
    errors = [1.0, *(z[:, None] - partial).square().sum(2).mean(0).tolist()]
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(errors))
    counts = torch.stack([c.bincount(minlength=SIZE) for c in rq.encode(z).T]) * SIZE / len(z)
    torch.testing.assert_close(rq.cluster_size, counts)
    torch.testing.assert_close(rq.cluster_sum / rq.cluster_size[..., None], rq.codebooks)


def test_shared_codebooks_are_initialised_from_all_levels():
    z = points(500) + 3.0  # far from the origin, so that what level 1 leaves looks nothing like what it is given
    pooled = quantizer(shared=True, codebook_size=32)
    pooled.init_kmeans(z, 10, seeded())
    alone = quantizer(shared=True, codebook_size=32)
    alone.codebooks[0] = kmeans(z, 32, 10, seeded())
    assert error(pooled, z, pooled.encode(z)).mean() < 0.5 * error(alone, z, alone.encode(z)).mean()
    used = [level.perplexity for level in usage_statistics(pooled.encode(z), (32,) * LEVELS)]
    starved = [level.perplexity for level in usage_statistics(alone.encode(z), (32,) * LEVELS)]
    assert min(used[1:]) > 3
    assert max(starved[1:]) < 2


@pytest.mark.parametrize("shared", [False, True])
def test_beams_are_never_worse_than_greedy_and_exact_when_wide(shared):
    rq = quantizer(shared=shared, codebook_size=5)
    rq.init_kmeans(points(), 5, seeded())
    z = points(60, seed=4)
    every = torch.tensor(list(itertools.product(range(5), repeat=LEVELS)))
    sums = rq.decode(every)
    optimum = torch.cdist(z, sums).min(1).values.square()
    greedy = error(rq, z, rq.encode(z))
    for beam in (2, 4, 25):
        assert (error(rq, z, rq.encode(z, beam)) <= greedy).all()
    assert error(rq, z, rq.encode(z, 4)).sum() < 0.99 * greedy.sum()
    torch.testing.assert_close(error(rq, z, rq.encode(z, 125)), optimum, atol=1e-5, rtol=1e-4)
    assert rq.encode(z[:0], 4).shape == (0, LEVELS)


@pytest.mark.parametrize("shared", [False, True])
def test_candidates_are_different_encodings_best_first(shared):
    rq = quantizer(shared=shared, codebook_size=4)
    rq.init_kmeans(points(), 5, seeded())
    z = points(20, seed=2)
    every = rq.candidates(z, 1000)
    assert every.shape == (20, 64, LEVELS)
    sums = torch.cdist(z, rq.decode(torch.tensor(list(itertools.product(range(4), repeat=LEVELS))))).square()
    torch.testing.assert_close(error_of(rq, z, every), sums.sort(1).values, atol=1e-5, rtol=1e-4)
    some = rq.candidates(z, 5)
    assert all(len(set(map(tuple, row))) == 5 for row in some.tolist())
    assert (error_of(rq, z, some).diff(dim=1) >= -1e-5).all()


def error_of(rq, z, candidates):
    return torch.stack([error(rq, z, candidates[:, place]) for place in range(candidates.shape[1])], 1)


@pytest.mark.parametrize("shared", [False, True])
def test_assignments_are_what_each_level_is_given_against_its_codes(shared):
    rq = quantizer(shared=shared, learn="gradient").eval()
    z = points(30).requires_grad_()
    out = rq(z)
    residual = z.detach()
    for level, found in enumerate(rq.assignments(z, out.partial)):
        torch.testing.assert_close(found.detach(), -torch.cdist(residual, rq.book(level).detach()).square())
        assert found.argmax(1).equal(out.codes[:, level])
        residual = residual - rq.book(level).detach()[out.codes[:, level]]
    found.sum().backward()
    assert z.grad is not None and rq.codebooks.grad is not None


def test_ties_take_the_lowest_code():
    rq = quantizer(num_levels=2)
    rq.codebooks[:] = rq.codebooks[:, :1].clone()  # all codes of a level alike
    for beam in (1, 3):
        assert rq.encode(points(), beam).eq(0).all()


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_resuming_repeats_every_bit(learn, tmp_path):
    def run(rq, optimizer, steps):
        for step in steps:
            out = rq(points(64, seed=step))
            if optimizer:
                optimizer.zero_grad()
                (points(64, seed=step)[:, None] - out.partial).square().sum().backward()
                optimizer.step()

    def fresh():
        rq = quantizer(learn=learn, dead_code_threshold=0.7, ema_decay=0.8).train()
        return rq, torch.optim.SGD(rq.parameters(), 1e-3) if learn == "gradient" else None

    rq, optimizer = fresh()
    rq.init_kmeans(points(), 2, seeded())
    run(rq, optimizer, range(10))
    save_file(rq.state_dict(), tmp_path / "rq.safetensors")
    random_state = torch.get_rng_state()
    run(rq, optimizer, range(10, 20))
    again, optimizer = fresh()
    assert not bool(again.initted)
    again.load_state_dict(load_file(tmp_path / "rq.safetensors"))
    assert bool(again.initted)
    torch.manual_seed(99)
    torch.set_rng_state(random_state)
    run(again, optimizer, range(10, 20))
    for name, tensor in rq.state_dict().items():
        assert again.state_dict()[name].equal(tensor), name


def test_mixed_precision_does_not_change_codes():
    rq = quantizer(codebook_size=64).eval()
    z = points()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = rq(z)
    assert mixed.codes.equal(rq.encode(z))
    assert nearest(z.bfloat16(), rq.book(0)).equal(torch.cdist(z.bfloat16().float(), rq.book(0)).argmin(1))


def test_usage_statistics():
    codes = torch.tensor([[0, 1], [0, 1], [1, -1], [2, 1]])
    first, second = usage_statistics(codes, (4, 5))
    entropy = 0.5 * 1 + 2 * 0.25 * 2
    assert first.usage == 3 / 4
    assert first.entropy == pytest.approx(entropy)
    assert first.perplexity == pytest.approx(2**entropy)
    assert second == pytest.approx((1 / 5, 0.0, 1.0))
    uniform = usage_statistics(torch.arange(16)[:, None], (16,))[0]
    assert math.isclose(uniform.perplexity, 16)
