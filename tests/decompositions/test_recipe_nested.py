"""Matryoshka dictionaries of other recipes."""

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    Matryoshka,
    Recipe,
    ReLUL1,
    TopK,
)
from modelassay.decompositions.storage import load_decomposition

INNER: list[Recipe] = [
    TopK(width=32, k=4),
    BatchTopK(width=32, k=4, free_decoder=True),
    AbsTopK(width=32, k=4, frozen_decoder=True),
    GroupMax(width=32, k=4),
    JumpReLU(width=32, target_l0=4.0),
    ReLUL1(width=32),
    AnnealedL1(width=32),
    Gated(width=32),
]


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: type(inner).__name__)
def test_what_is_nested_starts_as_on_its_own(inner: Recipe, tmp_path):
    recipe = Matryoshka.of(inner, prefixes=(3, 32))
    one, other = (r.build(6, 6, torch.ones(6), generator(0), None) for r in (recipe, inner))
    assert torch.equal(one.W_dec, other.W_dec)
    assert type(one.activation) is type(other.activation)
    assert one.name == f"Matryoshka {other.name}"
    assert set(one.references) == {"bussmann2025", *other.references}
    assert one.recipe == recipe


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: type(inner).__name__)
def test_a_recipe_in_a_recipe_is_saved_and_read(inner: Recipe, tmp_path):
    recipe = Matryoshka.of(inner, random_prefixes=5)
    recipe.build(6, 6, torch.ones(6), generator(0), None).save(tmp_path / "d")
    assert getattr(load_decomposition(tmp_path / "d"), "recipe") == recipe  # noqa: B009


def test_the_usual_form_names_the_same_recipe_as_the_long_one():
    short = Matryoshka(width=64, k=4, sparsifier="groupmax", prefixes=(8, 64))
    assert short.nested == GroupMax(width=64, k=4)
    assert short.inner is None
    assert short.as_json()["inner"] is None


def test_a_file_of_the_first_version_is_read():
    # What Matryoshka wrote before it could hold another recipe.
    config = {
        "kind": "Matryoshka",
        "width": 24,
        "frozen_decoder": False,
        "k": 3,
        "sparsifier": "topk",
        "prefixes": [5, 24],
    }
    kind = config.pop("kind")
    assert kind == Matryoshka.__name__
    recipe = Matryoshka(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    assert recipe.nested == TopK(width=24, k=3)


def test_what_cannot_be_nested_is_refused():
    with pytest.raises(ValueRangeError, match="must not be nested itself; got a Matryoshka"):
        Matryoshka.of(Matryoshka(width=64, k=4))
    with pytest.raises(ValueRangeError, match=r"must be those of the nested recipe.*got \(64"):
        Matryoshka(width=64, inner=TopK(width=32, k=4))
    with pytest.raises(ValueRangeError, match=r"random_prefixes must be at least 2.*got 1"):
        Matryoshka(width=64, k=4, random_prefixes=1)
    with pytest.raises(ValueRangeError, match=r"without fixed prefixes; got 3 and prefixes \(8"):
        Matryoshka(width=64, k=4, random_prefixes=3, prefixes=(8, 64))


def test_a_decoder_cannot_be_free_and_frozen():
    for kind in (TopK, BatchTopK, AbsTopK, GroupMax, Matryoshka):
        with pytest.raises(ValueRangeError, match="must not be both free and frozen"):
            kind(width=64, k=4, free_decoder=True, frozen_decoder=True)
