"""The local interaction basis of models: what is known of it, and its slow definition."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus, tokenize
from modelassay.activations.statistics import Moments
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import PCA
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting import local_interaction
from modelassay.fitting.local_interaction import local_interaction_basis
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import VOCAB_SIZE, tiny_subject

HIDDEN = Site.parse("1:out")
STREAM = Site.parse("resid_post.0")


def basis_of(subject, inputs, site=HIDDEN, **options):
    return local_interaction_basis(subject, site, inputs, progress=SILENT, **options)


def mlp(n_outputs=3, d=6, seed=0):
    """Two layers before the site and two after, so that the Jacobian depends on the input."""
    source = generator(seed)
    module = nn.Sequential(
        nn.Linear(4, d), nn.Tanh(), nn.Linear(d, 8), nn.GELU(), nn.Linear(8, n_outputs)
    )
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source)
    return module.double()


def inputs_of(n=120, d=4):
    return torch.randn(n, d, generator=generator(9), dtype=torch.float64)


def jacobian_moment(rest, x):
    """M', slowly: one row at a time, all of the Jacobian."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for row in x:
        jacobian = torch.autograd.functional.jacobian(rest, row)
        for gradient in jacobian.reshape(-1, x.shape[1]):
            total += torch.outer(gradient, gradient)
    return total / len(x)


def moment_by_codes(basis, moment):
    return basis.directions.double() @ moment @ basis.directions.double().T


# x² by ten ReLUs.


class Squares(nn.Module):
    """x² on [-1, 1] by ten ReLUs, read by least squares from exact targets."""

    def __init__(self, two_sided=False):
        super().__init__()
        knots = torch.linspace(-1, 1, 11, dtype=torch.float64)[:10]
        signs = torch.ones(10, dtype=torch.float64)
        if two_sided:
            knots = torch.cat([knots[5:], -knots[5:]])
            signs[5:] = -1
        self.first = nn.Linear(1, 10, dtype=torch.float64)
        self.first.weight.data, self.first.bias.data = signs[:, None], -knots * signs
        self.relu = nn.ReLU()
        self.read_out = nn.Linear(10, 1, dtype=torch.float64)
        x = grid()
        h = self.relu(self.first(x)).detach()
        design = torch.cat([h, torch.ones_like(x)], dim=1)
        solved = torch.linalg.lstsq(design, x.square(), driver="gelsd").solution[:, 0]
        self.read_out.weight.data, self.read_out.bias.data = solved[None, :10], solved[10:]

    def forward(self, x):
        return self.read_out(self.relu(self.first(x)))


def grid():
    return torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]


RELU = Site.parse("relu:out")


@pytest.fixture(scope="module")
def squares() -> Subject:
    return load_subject(Squares())


def read_covector(subject):
    return subject.module.read_out.weight.detach()[0]


def hidden(subject):
    return subject.run(grid(), read=[RELU]).activations[RELU].detach()


def test_ten_relus_compute_the_square_as_well_as_is_known(squares):
    x = grid()
    error = squares.run(x).logits.detach() - x.square()
    assert float(error.var() / x.square().var()) == pytest.approx(1.0e-4, rel=0.01)
    assert float(error.abs().max()) == pytest.approx(6.7e-3, rel=0.01)
    assert float(error.square().mean()) == pytest.approx(0.2**4 / 180, rel=0.01)


def test_the_square_has_one_used_variance_and_its_covector_is_what_is_read(squares):
    """The covector is w itself; the direction is the pattern ``covariance w``, which is not w."""
    basis, w = basis_of(squares, grid(), site=RELU, batch=4096), read_covector(squares)
    assert basis.width == 1
    assert abs(cosine_similarity(basis.covectors[0], w, dim=0)) == pytest.approx(1, abs=1e-9)
    h = hidden(squares)
    pattern = torch.cov(h.T, correction=0) @ w
    assert abs(cosine_similarity(basis.directions[0], pattern, dim=0)) == pytest.approx(1, abs=1e-9)
    assert abs(cosine_similarity(basis.directions[0], w, dim=0)) < 0.5
    output = squares.run(grid()).logits[:, 0]
    assert float(basis.used_variance) == pytest.approx(float(output.var(correction=0)))


def test_no_principal_component_is_what_is_read_though_a_score_correlates(squares):
    """Why it needs the model: PCA's second score correlates with x², and no component is w."""
    h, w = hidden(squares), read_covector(squares)
    pca = PCA.from_moments(Moments.of(h))
    share = pca.variances / pca.variances.sum()
    assert float(share[0]) == pytest.approx(0.960, abs=5e-4)
    read = (h @ w).var(correction=0) / (w.square().sum() * pca.variances.sum())
    assert float(read) == pytest.approx(0.013, abs=5e-4)
    cosines = cosine_similarity(pca.directions.double(), w[None], dim=1).abs()
    assert cosines[:4].tolist() == pytest.approx([0.018, 0.606, 0.230, 0.442], abs=5e-4)
    assert cosines.argmax() == 1
    scores = pca.encode(h.float()).dense()
    together = torch.corrcoef(torch.stack([scores[:, 1], grid()[:, 0].float().square()]))
    assert abs(float(together[0, 1])) == pytest.approx(0.961, abs=5e-4)


# The definition, and what follows from it.


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_fast_moment_is_the_slow_one(batch):
    subject, inputs = load_subject(mlp()), inputs_of()
    basis = basis_of(subject, inputs, batch=batch, threshold=1e-12)
    x = subject.run(inputs, read=[HIDDEN]).activations[HIDDEN].detach()
    moment = jacobian_moment(subject.module[2:], x)
    slow = type(basis).from_moments(
        Moments.of(x), moment, threshold=1e-12, dtype=torch.float64, site=HIDDEN
    )
    assert basis.width == slow.width == 6
    torch.testing.assert_close(basis.used_variance, slow.used_variance, rtol=1e-8, atol=0)
    torch.testing.assert_close(basis.covectors, slow.covectors, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(basis.directions, slow.directions, rtol=1e-6, atol=1e-9)
    by_codes = moment_by_codes(basis, moment)
    torch.testing.assert_close(by_codes, torch.eye(6).double(), rtol=0, atol=1e-7)


class Changed(nn.Module):
    """A module whose site is seen in another basis: what is read is folded back."""

    def __init__(self, module, change):
        super().__init__()
        self.before = nn.Sequential(module[0], module[1])
        self.changed = nn.Linear(*change.shape, bias=False, dtype=torch.float64)
        self.changed.weight.data = change
        self.back = nn.Linear(*change.shape, bias=False, dtype=torch.float64)
        self.back.weight.data = torch.linalg.inv(change)
        self.after = module[2:]

    def forward(self, x):
        return self.after(self.back(self.changed(self.before(x))))


CHANGED = Site.parse("changed:out")


@pytest.mark.parametrize("kind", ["rotation", "invertible"])
def test_a_change_of_basis_that_the_reader_undoes_leaves_the_codes(kind):
    change = torch.randn(6, 6, generator=generator(4), dtype=torch.float64)
    change = torch.linalg.qr(change)[0] if kind == "rotation" else change
    module, inputs = mlp(), inputs_of()
    plain, changed = load_subject(module), load_subject(Changed(module, change))
    before = basis_of(plain, inputs, threshold=1e-12)
    after = basis_of(changed, inputs, site=CHANGED, threshold=1e-12)
    torch.testing.assert_close(after.used_variance, before.used_variance, rtol=1e-6, atol=1e-12)
    x, moved = (
        subject.run(inputs, read=[site]).activations[site].detach()
        for subject, site in ((plain, HIDDEN), (changed, CHANGED))
    )
    z, z_moved = before.encode(x).dense(), after.encode(moved).dense()
    aligned = (z * z_moved).sum(0).sign()  # the sign of a latent is free
    torch.testing.assert_close(z_moved * aligned, z, rtol=1e-5, atol=1e-6)
    # Directions change with the activations, covectors with their inverse.
    torch.testing.assert_close(
        after.directions * aligned[:, None], before.directions @ change.T, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        after.covectors * aligned[:, None] @ change, before.covectors, rtol=1e-5, atol=1e-6
    )


def test_at_the_output_it_is_the_principal_components():
    subject, inputs, site = load_subject(mlp(5)), inputs_of(), Site.parse("4:out")
    basis = basis_of(subject, inputs, site=site, threshold=1e-12)
    pca = PCA.from_moments(Moments.of(subject.run(inputs).logits.detach()))
    torch.testing.assert_close(basis.used_variance.float(), pca.variances, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(basis.directions.float(), pca.directions, rtol=0, atol=1e-4)


def test_random_output_directions_are_unbiased():
    subject, inputs = load_subject(mlp(20)), inputs_of(30)
    exact = basis_of(subject, inputs, threshold=1e-12)
    drawn = basis_of(
        subject, inputs, threshold=1e-12, output_directions=500, generator=generator(0)
    )
    # Signs' products have variance 1: the error of the whole moment is that of 500 * 30 draws.
    torch.testing.assert_close(drawn.used_variance, exact.used_variance, rtol=0.15, atol=0)
    one = basis_of(subject, inputs, output_directions=1, generator=generator(0))
    again = basis_of(subject, inputs, output_directions=1, generator=generator(0))
    assert torch.equal(one.covectors, again.covectors)
    assert not torch.equal(one.used_variance, exact.used_variance)


class Image(nn.Module):
    """Channels at positions; the output sees channel 0 at all of them, and no other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)
        self.conv.weight.data = torch.randn(3, 4, 1, 1, generator=generator(1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image):
        return self.relu(self.conv(image))[:, 0].sum((1, 2))


def test_an_image_has_a_row_a_position_and_a_site_may_be_overwritten():
    subject = load_subject(Image())
    images = torch.randn(10, 4, 4, 5, generator=generator(0))
    basis = basis_of(subject, images, site=Site.parse("conv:out"))
    assert basis.d_in == 3
    assert basis.provenance is not None
    assert basis.provenance.facts["rows"] == 200
    torch.testing.assert_close(
        basis.covectors / basis.covectors.norm(), torch.tensor([[1.0, 0, 0]]), rtol=0, atol=1e-6
    )


def test_the_model_is_left_as_it_was():
    module = mlp().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    basis_of(load_subject(module), inputs_of())
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_it_says_where_it_comes_from_and_comes_back(tmp_path):
    subject = load_subject(mlp())
    basis = basis_of(subject, inputs_of())
    basis.save(tmp_path)
    back = load_decomposition(tmp_path)
    assert back.subject_fingerprint == subject.fingerprint()
    assert back.reads == HIDDEN
    assert back.provenance is not None
    assert back.provenance.facts["inputs"] == 120
    x = inputs_of(5, 6)
    assert torch.equal(back.encode(x).dense(), basis.encode(x).dense())


# Language models.


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return tiny_subject()


def tokens_of(n=48, length=10):
    return torch.randint(3, VOCAB_SIZE, (n, length), generator=generator(2))


def exact_fisher_moment(subject, tokens):
    """Mean over tokens t of sum_s J_st^T (diag p_s - p_s p_s^T) J_st, from whole Jacobians."""
    total = 0
    for context in tokens:
        downstream = subject.downstream(STREAM, context[None])

        def logits(x, downstream=downstream):
            return downstream(x, gradients=True).logits[0]

        x = downstream.activation
        jacobian = torch.autograd.functional.jacobian(logits, x, vectorize=True)
        jacobian = jacobian[:, :, 0].double()  # s v t d
        p = logits(x).double().softmax(-1).detach()
        centred = jacobian - torch.einsum("sv,svtd->std", p, jacobian)[:, None]
        total = total + torch.einsum("sv,svtd,svte->de", p, centred, centred)
    return total / tokens.numel()


def test_a_language_model_has_the_fisher_moment(tiny):
    tokens = tokens_of()
    basis = basis_of(
        tiny, tokens, site=STREAM, output_directions=64, threshold=1e-9, generator=generator(0)
    )
    exact = type(basis).from_moments(
        Moments.of(tiny.run(tokens, read=[STREAM]).activations[STREAM].flatten(0, 1)),
        exact_fisher_moment(tiny, tokens),
        threshold=1e-9,
    )
    assert exact.width == basis.width == 32
    # The leading ones, whose error is that of 30,000 draws; sampling inflates the smallest.
    torch.testing.assert_close(basis.used_variance[:8], exact.used_variance[:8], rtol=0.05, atol=0)
    torch.testing.assert_close(
        basis.used_variance.sum(), exact.used_variance.sum(), rtol=0.02, atol=0
    )
    first = cosine_similarity(basis.covectors[0], exact.covectors[0], dim=0)
    assert abs(float(first)) > 0.99


def test_batches_are_of_no_consequence_but_for_the_draws(tiny):
    tokens = tokens_of(16)
    one, other = (
        basis_of(tiny, tokens, site=STREAM, output_directions=50, batch=b, generator=generator(0))
        for b in (3, 16)
    )
    torch.testing.assert_close(one.used_variance[:5], other.used_variance[:5], rtol=0.1, atol=0)


def corpus_of(tokens, mask, measured):
    n = len(tokens)
    return TokenizedCorpus(
        corpus=Corpus(source="x", documents=(Document(name="0", text="x", split="fit"),)),
        tokens=tokens,
        mask=mask,
        measured=measured,
        document=torch.zeros(n, dtype=torch.long),
        spans=torch.full((*tokens.shape, 2), -1),
    )


def test_only_a_corpus_measured_tokens_count(tiny):
    tokens = tokens_of(20)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[::2, 7:] = False
    measured = mask.clone()
    measured[:, 0] = False
    contexts = corpus_of(tokens.masked_fill(~mask, 0), mask, measured)
    basis = basis_of(tiny, contexts, site=STREAM, generator=generator(0))
    assert basis.provenance is not None
    assert basis.provenance.facts["rows"] == int(measured.sum())
    # What stands in the padding changes nothing, and what stands at unmeasured tokens does not
    # enter the mean.
    other = replace(contexts, tokens=tokens)
    same = basis_of(tiny, other, site=STREAM, generator=generator(0))
    torch.testing.assert_close(same.used_variance, basis.used_variance)
    x = tiny.run(tokens, mask=mask, read=[STREAM]).activations[STREAM]
    torch.testing.assert_close(basis.bias, x[measured].mean(0), rtol=1e-4, atol=1e-5)


def test_no_more_of_the_mlp_is_used_than_its_output_has_dimensions(tiny):
    site = Site.parse("mlp_hidden.0")
    basis = basis_of(tiny, tokens_of(), site=site, generator=generator(0), threshold=1e-9)
    assert (basis.d_in, basis.width) == (48, 32)


def text_of(subject, split, n_tokens):
    corpus = stdlib_corpus()
    picked = [document for document in corpus.documents if document.split == split][:20]
    contexts = tokenize(
        Corpus(source=corpus.source, documents=tuple(picked)),
        subject.tokenizer,
        context_tokens=64,
    )
    return contexts.take(n_tokens, generator(3))


def kl_nats(subject, contexts, site, edited):
    """Mean KL at the measured tokens when an edited activation takes the place of all of them."""
    downstream = subject.downstream(site, contexts.tokens, mask=contexts.mask)
    x = downstream.activation
    moved = torch.where(contexts.measured[..., None], edited(x.flatten(0, 1)).view_as(x), x)
    log_p, log_q = (downstream(value).logits.log_softmax(-1) for value in (x, moved))
    return float((log_p.exp() * (log_p - log_q)).sum(-1)[contexts.measured].mean())


def test_it_keeps_predictions_better_than_as_many_principal_components():
    subject, site, width = load_subject("bundled"), Site.parse("mlp_hidden.2"), 64
    contexts, heldout = text_of(subject, "fit", 4000), text_of(subject, "heldout", 1000)
    basis = cut(basis_of(subject, contexts, site=site, generator=generator(0)), width)
    x = subject.run(contexts.tokens, mask=contexts.mask, read=[site]).activations[site]
    pca = PCA.from_moments(Moments.of(x[contexts.measured]))
    components = pca.directions[:width]
    lost = kl_nats(subject, heldout, site, basis)
    lost_by_pca = kl_nats(
        subject, heldout, site, lambda x: (x - pca.bias) @ components.T @ components + pca.bias
    )
    assert lost < 0.5 * lost_by_pca


def cut(basis, width):
    return type(basis)(
        basis.bias,
        basis.covectors[:width],
        basis.directions[:width],
        basis.used_variance[:width],
        threshold=basis.threshold,
    )


# Errors.


def test_no_inputs_are_refused(tiny):
    with pytest.raises(ValueRangeError, match="There must be inputs; got none"):
        basis_of(load_subject(mlp()), inputs_of(0))
    with pytest.raises(ValueRangeError, match="There must be inputs; got none"):
        basis_of(tiny, tokens_of(0), site=STREAM, generator=generator(0))


def test_activations_that_do_not_vary_are_refused():
    with pytest.raises(ValueRangeError, match="must vary; got the same in every row"):
        basis_of(load_subject(mlp()), inputs_of()[:1].expand(50, 4))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueRangeError, match="threshold must be above 0 and below 1"):
        basis_of(load_subject(mlp()), inputs_of(), threshold=threshold)


@pytest.mark.parametrize("name", ["batch", "output_directions"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueRangeError, match=f"{name} must be at least 1; got 0"):
        basis_of(load_subject(mlp()), inputs_of(), generator=generator(0), **{name: 0})


def test_draws_without_a_generator_are_refused(tiny):
    with pytest.raises(ValueRangeError, match="must have a generator; got None"):
        basis_of(load_subject(mlp()), inputs_of(), output_directions=4)
    with pytest.raises(ValueRangeError, match="must have a generator; got None"):
        basis_of(tiny, tokens_of(), site=STREAM)


def test_too_many_outputs_are_refused_unless_directions_are_drawn(monkeypatch):
    monkeypatch.setattr(local_interaction, "_MAX_EXACT_OUTPUTS", 2)
    subject = load_subject(mlp(3))
    with pytest.raises(ValueRangeError, match=r"at most 2 entries an input.* got 3"):
        basis_of(subject, inputs_of())
    assert basis_of(subject, inputs_of(), output_directions=1, generator=generator(0)).width > 0


class Deaf(nn.Module):
    """Computes a hidden layer that nothing reads."""

    def __init__(self):
        super().__init__()
        self.unread, self.read = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x):
        self.unread(x)
        return self.read(x)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_site_that_nothing_reads_is_refused(frozen):
    subject = load_subject(Deaf().double().requires_grad_(not frozen))
    with pytest.raises(ValueRangeError, match="must depend on activations that vary"):
        basis_of(subject, inputs_of(), site=Site.parse("unread:out"))


class Classes(nn.Sequential):
    """Returns a class, which has no derivative."""

    def forward(self, x):
        return super().forward(x).argmax(-1)


def test_an_output_without_derivatives_is_refused():
    subject = load_subject(Classes(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double())
    with pytest.raises(UnsupportedModelError, match="must return a tensor of floating point"):
        basis_of(subject, inputs_of())


def test_a_site_without_vectors_is_refused(tiny):
    flat = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0), nn.Identity()).double()
    with pytest.raises(ShapeError, match="must hold vectors"):
        basis_of(load_subject(flat), inputs_of())
    with pytest.raises(ShapeError, match="must hold one vector a token"):
        basis_of(tiny, tokens_of(), site=Site.parse("head_out.0"), generator=generator(0))


def test_a_corpus_needs_a_language_model():
    tokens = tokens_of(4)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with pytest.raises(UnsupportedModelError, match="must go to a language model"):
        basis_of(load_subject(mlp()), corpus_of(tokens, mask, mask))


def test_what_is_not_finite_is_refused():
    inputs = inputs_of()
    inputs[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="activations must be finite"):
        basis_of(load_subject(mlp()), inputs)
