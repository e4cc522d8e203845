"""What every dictionary's codes must fulfil, whatever its sparsifier."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch

from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifier import BatchSparsifier
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting.conformance_case import Case, D, Finding, dense, far_apart

EXACT = 1e-9
"""Relative difference below which float64 results are the same (ours)."""
L0_AGREES = 0.02
"""Largest relative difference of L0 between training and inference (ours)."""
_TOKENS = 24  # of a look at single tokens


def has_the_shapes(case: Case) -> Finding:
    """Weights are [d, width], [width], [width, d] and [d]; another seed draws others."""
    one, again = case.untrained(), case.untrained()
    other = replace_seed(case).untrained()
    shapes = [list(t.shape) for t in (one.W_enc, one.b_enc, one.W_dec, one.b_dec)]
    width = case.recipe.width
    # A threshold that is not calibrated yet is NaN.
    same = all(
        torch.allclose(tensor, again.state_dict()[name], rtol=0, atol=0, equal_nan=True)
        for name, tensor in one.state_dict().items()
    )
    differs = not torch.equal(one.W_dec, other.W_dec)
    return Finding(
        passed=shapes == [[D, width], [width], [width, D], [D]] and same and differs,
        found=f"{shapes}, {'same' if same else 'other'} weights from one seed",
    )


def replace_seed(case: Case) -> Case:
    """The case with another seed for what is drawn from now on."""
    return replace(case, seed=case.seed + 1)


def is_alone(case: Case) -> Finding:
    """A token's code is the same among other tokens and alone."""
    dictionary, x = case.exact(), case.heldout[:_TOKENS].double()
    together = dictionary.encode(x).dense()
    alone = torch.cat([dictionary.encode(row.unsqueeze(0)).dense() for row in x])
    apart = far_apart(together, alone)
    return Finding(passed=apart < EXACT, found=f"relative difference {apart:.1e}")


def names_latents_once(case: Case) -> Finding:
    """Active latents exist, and none comes twice in a token."""
    codes = case.dictionary.encode(case.heldout)
    active = codes.values != 0
    within = bool(((codes.indices >= 0) & (codes.indices < codes.width))[active].all())
    tokens = torch.arange(len(active)).unsqueeze(1).expand_as(active)[active]
    places = tokens * codes.width + codes.indices[active]
    once = len(places.unique()) == len(places)
    return Finding(passed=within and once, found=f"{len(places)} active entries")


def is_as_sparse_as_promised(case: Case) -> Finding | None:
    """At most k latents of a token, or k on average where a threshold was calibrated."""
    k = getattr(case.dictionary.activation, "k", None)
    if k is None:
        return None
    l0 = case.dictionary.encode(case.heldout).l0()
    if isinstance(case.dictionary.activation, BatchSparsifier):
        # Fewer than k may be positive; never more.
        passed, found = float(l0.float().mean()) <= k * (1 + L0_AGREES), l0.float().mean()
    else:
        passed, found = int(l0.max()) <= k, l0.max()
    return Finding(passed=passed, found=f"{float(found):.2f} of k = {k}")


def has_the_signs_it_says(case: Case) -> Finding:
    """No value is negative, unless the sparsifier says that its values have signs."""
    lowest = float(case.dictionary.encode(case.heldout).values.min())
    return Finding(
        passed=case.dictionary.activation.signed or lowest >= 0, found=f"lowest value {lowest:.3g}"
    )


def batch_of(dictionary: Dictionary, x: torch.Tensor, rows: int | None = None) -> EncoderBatch:
    """What a sparsifier sees of some activations in training."""
    return EncoderBatch(
        x=x,
        W_enc=dictionary.W_enc,
        b_enc=dictionary.b_enc,
        centre=dictionary.b_dec if dictionary.apply_b_dec_to_input else None,
        buffer=None if rows is None else x.new_empty(rows, dictionary.width),
        bandwidth=0.1 * D**0.5,
        W_dec=dictionary.W_dec,
    )


def trains_on_what_it_infers(case: Case) -> Finding | None:
    """Where no tokens are compared, training's codes are `select` of the pre-activations."""
    dictionary, x = case.exact(), case.heldout[:_TOKENS].double()
    activation = dictionary.activation
    if isinstance(activation, BatchSparsifier):
        return None
    pre = dictionary.pre_activations(x).detach()
    centred = x - dictionary.b_dec if dictionary.apply_b_dec_to_input else x
    values, indices = activation.select_from(
        centred.detach(), pre, dictionary.W_enc, dictionary.b_enc, dictionary.W_dec
    )
    expected = Codes(indices=indices, values=values.detach(), width=dictionary.width).dense()
    apart = max(
        far_apart(
            dense(activation.encode(batch_of(dictionary, x, rows)), dictionary.width), expected
        )
        for rows in (None, 7)
    )
    return Finding(passed=apart < EXACT, found=f"relative difference {apart:.1e}")


def agrees_on_l0(case: Case) -> Finding:
    """On held-out tokens, training and inference have the same L0."""
    dictionary, x = case.dictionary, case.heldout
    codes = dictionary.activation.encode(batch_of(dictionary, x))
    training = float((codes.values != 0).sum()) / len(x)
    inference = float(dictionary.encode(x).l0().float().mean())
    return Finding(
        passed=abs(inference - training) <= L0_AGREES * max(training, 1e-9) and training > 0,
        found=f"{training:.3f} in training, {inference:.3f} at inference",
    )


def takes_no_tokens(case: Case) -> Finding:
    """An empty batch has empty codes, at inference and in training."""
    dictionary, x = case.dictionary, case.heldout[:0]
    inference = dictionary(x)
    training = dictionary.activation.encode(batch_of(dictionary, x)).decode(dictionary.W_dec)
    shapes = [list(inference.shape), list(training.shape)]
    return Finding(passed=shapes == [[0, D], [0, D]], found=f"reconstructions {shapes}")


def survives_silence(case: Case) -> Finding:
    """Where no latent is active, the reconstruction is the bias."""
    dictionary = case.exact()
    silence(dictionary)
    x = case.heldout[:_TOKENS].double()
    active = int(dictionary.encode(x).l0().sum())
    apart = far_apart(dictionary(x), dictionary.bias.expand(len(x), D))
    return Finding(passed=active == 0 and apart < EXACT, found=f"{active} active entries")


def silence(dictionary: Dictionary) -> None:
    """Give a dictionary an encoder that finds nothing."""
    # By their data: a training may have made other weights of these already.
    dictionary.W_enc.data.zero_()
    dictionary.b_enc.data.fill_(0.0 if dictionary.activation.signed else -1.0)


def refuses_nan(case: Case) -> Finding:
    """Activations that are no numbers have no code."""
    x = case.heldout[:4].clone()
    x[2, 3] = float("nan")
    return must_raise(NonFiniteError, lambda: case.dictionary.encode(x))


def must_raise(kind: type[Exception], act: Callable[[], object]) -> Finding:
    """Whether an act is refused."""
    try:
        act()
    except kind:
        return Finding(passed=True, found=f"{kind.__name__} was raised")
    return Finding(passed=False, found=f"{kind.__name__} was not raised")


def folds_the_scale(case: Case) -> Finding:
    """Values of the folded dictionary are those of the scaled one, over the scale."""
    scaled, folded = case.exact(), case.exact()
    folded.fold_input_scale(4.0)
    x = case.heldout.double()
    codes = far_apart(4 * folded.encode(x / 4).dense(), scaled.encode(x).dense())
    outputs = far_apart(4 * folded(x / 4), scaled(x))
    return Finding(
        passed=max(codes, outputs) < EXACT,
        found=f"relative difference {max(codes, outputs):.1e}",
    )


def folds_the_norms(case: Case) -> Finding:
    """Folding decoder norms keeps the reconstruction, or is refused where latents compete."""
    dictionary = case.exact()
    lengths = 0.5 + torch.rand(dictionary.width, 1, generator=derived(case.seed, "norms"))
    dictionary.W_dec.data.mul_(lengths)
    if dictionary.activation.compares_latents:
        return must_raise(ValueRangeError, dictionary.fold_decoder_norms)
    x = case.heldout.double()
    before = dictionary(x)
    dictionary.fold_decoder_norms()
    apart = far_apart(dictionary(x), before)
    norms = dictionary.directions.norm(dim=1)
    unit = far_apart(norms, torch.ones_like(norms))
    return Finding(passed=max(apart, unit) < EXACT, found=f"relative difference {apart:.1e}")


def is_read_back(case: Case) -> Finding:
    """What was saved is what is read: weights, sparsifier and recipe."""
    with tempfile.TemporaryDirectory() as folder:
        case.dictionary.save(folder, force=True)
        again = load_decomposition(folder)
    x = case.heldout
    same_recipe = isinstance(again, Dictionary) and again.recipe == case.recipe
    codes, others = case.dictionary.encode(x), again.encode(x)
    same = torch.equal(codes.dense(), others.dense()) and torch.equal(
        copy.deepcopy(case.dictionary)(x), again(x)
    )
    return Finding(
        passed=same_recipe and same,
        found=f"{'same' if same else 'other'} codes, {'same' if same_recipe else 'other'} recipe",
    )
