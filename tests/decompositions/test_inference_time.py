"""Pursuits as decompositions: same directions, other codes."""

from types import SimpleNamespace

import pytest
import torch

from modelassay.activations.harvest import harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.errors import NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.core.references import REFERENCES
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.inference_time import Pursuit
from modelassay.decompositions.least_squares import refit_values
from modelassay.decompositions.linear import PCA, RandomDictionary
from modelassay.decompositions.recipes import TopK
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.fitting.fit import fit
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site

D, WIDTH = 12, 40
METHODS = ("omp", "mp", "gradient_pursuit")
SITE = Site(role="resid_post", layer=2)


def draw_activations(n=50, seed=9):
    return torch.randn(n, D, generator=generator(seed)) + 1


def random_dictionary(k=3):
    mean = draw_activations().mean(0)
    return RandomDictionary(WIDTH, D, k, generator=generator(0), mean=mean, site=SITE)


def transcoder(*, d_out=D, writes=None):
    return Dictionary(
        W_enc=torch.randn(D, WIDTH, generator=generator(0)),
        b_enc=torch.zeros(WIDTH),
        W_dec=torch.randn(WIDTH, d_out, generator=generator(1)),
        b_dec=torch.zeros(d_out),
        activation=TopKActivation(3),
        reads=SITE,
        writes=writes,
    )


# The interface.


@pytest.mark.parametrize("method", METHODS)
def test_directions_bias_and_sites_are_the_base_ones(method):
    base = random_dictionary()
    pursuit = Pursuit(base, k=3, method=method)
    assert torch.equal(pursuit.directions, base.directions)
    assert torch.equal(pursuit.bias, base.bias)
    assert (pursuit.reads, pursuit.writes) == (SITE, base.writes)
    assert (pursuit.width, pursuit.d_in, pursuit.d_out) == (WIDTH, D, D)
    codes = pursuit.encode(draw_activations())
    assert codes.l0().max() <= 3
    assert codes.values.min() >= 0
    assert set(base.references) < set(pursuit.references) <= set(REFERENCES)


def test_names_say_what_was_done():
    base = random_dictionary()
    assert Pursuit(base, k=5).name == "random 40 (k=3), OMP (k=5)"
    pursuit = Pursuit(base, k=2, method="gradient_pursuit", non_negative=False)
    assert pursuit.name == "random 40 (k=3), gradient pursuit (k=2, signed)"


def test_planted_codes_are_found_behind_a_bias_and_long_directions():
    source = generator(3)
    turned = torch.linalg.qr(torch.randn(D, D, generator=source)).Q
    base = Dictionary(
        W_enc=torch.zeros(D, D),
        b_enc=torch.zeros(D),
        W_dec=turned * torch.rand(D, 1, generator=source).add(0.1) * 10,
        b_dec=torch.randn(D, generator=source),
        activation=TopKActivation(3),
    )
    codes = torch.rand(20, D, generator=source) * (torch.rand(20, D, generator=source) < 0.25)
    found = Pursuit(base, k=D).encode(codes @ base.directions + base.bias)
    torch.testing.assert_close(found.dense(), codes, rtol=1e-4, atol=1e-4)


def test_a_covector_reads_the_value_of_a_latent_that_is_alone():
    pursuit = Pursuit(transcoder(), k=1)
    alone = torch.rand(WIDTH, generator=generator(4)) + 0.5
    x = pursuit.bias + alone.unsqueeze(1) * pursuit.directions
    read = ((x - pursuit.bias) * pursuit.covectors).sum(1)
    torch.testing.assert_close(read, alone)
    torch.testing.assert_close(pursuit.encode(x).dense().diagonal(), alone)


def test_codes_over_all_components_are_the_projections():
    x = draw_activations()
    moments = SimpleNamespace(mean=x.mean(0), covariance=torch.cov(x.T))
    base = PCA.from_moments(moments)
    signed = Pursuit(base, k=D, non_negative=False)
    torch.testing.assert_close(signed.encode(x).dense(), base.encode(x).dense(), atol=1e-4, rtol=0)
    torch.testing.assert_close(signed(x), x, atol=1e-4, rtol=0)


# Real activations.


@pytest.mark.slow
def test_on_a_language_model_no_encoder_reconstructs_as_well_with_as_many_latents():
    subject = load_subject("bundled")
    source = harvest(subject, stdlib_corpus(), "resid_post.2", tokens=8000, progress=SILENT)
    base = fit(
        TopK(width=1024, k=16), source, tokens=80_000, batch_tokens=512, seed=0, progress=SILENT
    )
    x = source.select("heldout").activations().float()[:1000]

    def errors(codes):
        return (x - base.decode(codes)).square().sum(1)

    encoded = base.encode(x)
    refitted = refit_values(encoded, x - base.bias, base.directions, non_negative=True)
    found = {method: Pursuit(base, k=16, method=method).encode(x) for method in METHODS}
    mean = {method: float(errors(codes).mean()) for method, codes in found.items()}
    of_encoder = float(errors(encoded).mean())
    assert (errors(refitted) <= errors(encoded) + 1e-3).all()
    for method in METHODS:
        assert mean[method] < float(errors(refitted).mean()) < of_encoder
        assert (errors(found[method]) <= errors(encoded)).float().mean() > 0.75
    assert mean["omp"] < mean["gradient_pursuit"] < mean["mp"]
    with_fewer = errors(Pursuit(base, k=12).encode(x)).mean()
    assert float(with_fewer) < of_encoder


# What is refused.


@pytest.mark.parametrize(
    ("k", "method", "message"),
    [
        (0, "omp", "dimensions, 12; got 0. Choose at least one"),
        (13, "omp", "dimensions, 12; got 13. Choose fewer"),
        (0, "mp", "atoms, 40; got 0"),
        (41, "gradient_pursuit", "atoms, 40; got 41"),
    ],
)
def test_k_out_of_range_is_refused_at_once(k, method, message):
    with pytest.raises(ValueRangeError, match=message):
        Pursuit(random_dictionary(), k=k, method=method)
    assert Pursuit(random_dictionary(), k=40, method="mp").k == 40


def test_an_unknown_method_is_refused_with_near_misses():
    with pytest.raises(UnknownNameError, match=r"got 'gradient'. Did you mean 'gradient_pursuit'"):
        Pursuit(random_dictionary(), k=2, method="gradient")


def test_transcoders_are_refused():
    with pytest.raises(ShapeError, match="reads 12 dimensions and writes 8"):
        Pursuit(transcoder(d_out=8), k=2)
    with pytest.raises(ValueRangeError, match=r"reads resid_post.2 and writes mlp_out.2"):
        Pursuit(transcoder(writes=Site(role="mlp_out", layer=2)), k=2)


def test_activations_that_are_not_finite_or_too_wide_are_refused():
    pursuit = Pursuit(random_dictionary(), k=2)
    x = draw_activations()
    with pytest.raises(ShapeError, match=r"\[token, 12\]; got \[50, 11\]"):
        pursuit.encode(x[:, 1:])
    x[17, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="NaN or Inf in row 17"):
        pursuit.encode(x)
