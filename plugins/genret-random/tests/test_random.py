"""genret's conformance kit, and that the lots are fair."""

from pathlib import Path

import genret_random
import pytest
import torch
from genret_random.identifier import RandomIdentifier

from genret import Corpus
from genret.testing import check_identifier, check_plugin, check_recipe


def test_it_registers():
    assert check_plugin(genret_random) == ["identifier random"]


@pytest.mark.parametrize("options", [{}, {"codebook_size": 2, "num_levels": 10, "salt": "other"}])
def test_it_keeps_the_contract(options):
    check_identifier(RandomIdentifier, **options)


def test_its_recipe_is_sound(tmp_path):
    pytest.importorskip("genret_starter", reason="recipes/avg.yaml trains on the pictures of genret-starter")
    recipe = Path(__file__).parents[1] / "recipe.yaml"
    avg = recipe.parents[2] / "recipes" / "avg.yaml"
    if not avg.is_file():
        pytest.skip("this is no checkout of genret: recipes/avg.yaml is not there")
    check_recipe([avg, recipe], genret_random)


def test_codes_are_drawn_evenly_and_without_regard_to_the_level():
    scheme = RandomIdentifier(RandomIdentifier.Config(codebook_size=10, num_levels=3))
    codes = scheme.identify(Corpus([f"image {n}" for n in range(6000)], torch.zeros(6000, 4))).codes
    for level in range(3):
        counts = torch.bincount(codes[:, level], minlength=10).double()
        chi_square = ((counts - 600) ** 2 / 600).sum()
        assert chi_square < 27.9, "9 degrees of freedom, p = 0.001"
    assert 0.08 < (codes[:, 0] == codes[:, 1]).double().mean() < 0.12, "levels are drawn apart"


def test_the_draw_never_changes():
    """Runs find their pictures again in ten years: these are the codes of version 0.1.0."""
    scheme = RandomIdentifier(RandomIdentifier.Config(codebook_size=256, num_levels=4))
    assert scheme.draw("a.png") == EXPECTED
    salted = RandomIdentifier(RandomIdentifier.Config(codebook_size=256, num_levels=4, salt="x"))
    assert salted.draw("a.png") != EXPECTED


EXPECTED = [112, 83, 203, 211]
