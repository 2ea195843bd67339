"""`genret components KIND NAME`: every option with type, default, bounds and meaning, from the code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from genret.api import Config
from genret.guide.describe import bounds_of, describe
from genret.plugin.loading import load_plugins
from genret.settings import Settings

REGISTRIES = load_plugins((), Settings(plugins="")).registries


def options(kind: str, name: str) -> dict[str, Any]:
    return {option.name: option for option in describe(REGISTRIES, kind, name, strict=True).options}


def test_rq_lists_every_option_of_its_config_and_of_those_inside() -> None:
    found = options("identifier", "rq")
    config = REGISTRIES.identifier.get("rq").Config
    inner = config.model_fields["train"].annotation
    assert set(found) == (set(config.model_fields) - {"train"}) | {f"train.{name}" for name in inner.model_fields}
    assert all(option.type and option.meaning for option in found.values())
    size, lr = found["codebook_size"], found["train.lr"]
    assert (size.type, size.default, size.bounds) == ("int", 256, "2 to 65536")
    assert (lr.type, lr.default, lr.bounds) == ("float", inner.model_fields["lr"].default, "above 0")
    assert found["latent_width"].bounds == "at least 2" and found["latent_width"].default is None


def test_options_that_may_be_null_as_a_whole_say_so() -> None:
    found = options("backbone", "llama")
    assert (found["lora"].type, found["lora"].default) == ("options | null", None)
    assert found["lora.r"].default is not None


@pytest.mark.parametrize(
    ("kind", "field", "said"),
    [
        (int, Field(1, ge=1), "at least 1"),
        (int, Field(1, ge=1, le=8), "1 to 8"),
        (float, Field(0.5, gt=0, lt=1), "above 0, below 1"),
        (int | None, Field(None, ge=2), "at least 2"),
        (int, Field(8, multiple_of=8), "a multiple of 8"),
        (str, Field("a", pattern="^a$"), "like ^a$"),
        (list[Annotated[int, Field(ge=3)]], Field([3], min_length=1), "at least 1 long, each at least 3"),
        (Literal["a", "b"], Field("a"), ""),
        (bool, Field(True), ""),
    ],
)
def test_bounds_in_words(kind: Any, field: Any, said: str) -> None:
    model = create_model("Options", __base__=Config, option=(kind, field))
    assert bounds_of(model.model_fields["option"]) == said


@pytest.mark.parametrize("kind", ["dataset", "encoder", "identifier", "backbone", "loss", "reranker"])
def test_every_component_can_be_described(kind: str) -> None:
    for name in REGISTRIES.of(kind):
        found = describe(REGISTRIES, kind, name, strict=True)
        assert found.summary and found.error is None
        assert all(option.meaning or option.name.endswith(".type") for option in found.options), name
