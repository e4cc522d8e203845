import pytest
import torch

from modelassay.activations.rows import ActivationRows
from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.fitting.fit import fit
from modelassay.subjects.site import Site

SITE = Site("module", path="trunk", port="out")


def rows(count: int = 4000, width: int = 6) -> ActivationRows:
    activations = torch.rand(count, width, generator=torch.Generator().manual_seed(0))
    return ActivationRows.of(activations, SITE, heldout=torch.arange(count) % 4 == 0)


def test_the_split_keeps_rows_apart_and_in_order() -> None:
    whole = rows(8)
    fit_rows, heldout = whole.select("fit").matrix.tensor(), whole.select("heldout").matrix.tensor()
    assert torch.equal(heldout, whole.matrix.tensor()[::4])
    assert len(fit_rows) == 6
    assert whole.width() == 6
    assert whole.n_tokens == 8


def test_dictionaries_fit_plain_rows() -> None:
    dictionaries = fit(
        [TopK(width=12, k=2), BatchTopK(width=12, k=2)], rows(), tokens=20_000, batch_tokens=256
    )
    assert [d.width for d in dictionaries] == [12, 12]
    assert dictionaries[0].provenance is not None
    assert dictionaries[0].provenance.facts["corpus"] == "rows"


def test_moments_are_those_of_the_rows() -> None:
    whole = rows(50)
    assert torch.allclose(whole.moments().mean, whole.matrix.tensor().double().mean(0))
    assert whole.moments() is whole.moments()


def test_a_split_without_rows_is_refused() -> None:
    activations = torch.ones(4, 2)
    whole = ActivationRows.of(activations, SITE, heldout=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(TooFewTokensError, match="rows on the heldout side"):
        whole.select("heldout")
    with pytest.raises(ShapeError, match="one entry per row, 4"):
        ActivationRows.of(activations, SITE, heldout=torch.zeros(3, dtype=torch.bool))
