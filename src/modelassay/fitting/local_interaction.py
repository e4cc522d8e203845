"""`local_interaction_basis`: which directions of a site does the rest of the model use?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.statistics import Moments
from modelassay.core.errors import ShapeError, UnsupportedModelError, ValueRangeError
from modelassay.core.progress import Progress, default_progress
from modelassay.core.provenance import Provenance
from modelassay.decompositions.local_interaction import (
    DEFAULT_THRESHOLD,
    LocalInteractionBasis,
    check_threshold,
)
from modelassay.subjects.fisher import score_gradients
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_MAX_LOGITS = 2**25  # logits of one batch: 128 MiB in float32 (ours)
_MAX_EXACT_OUTPUTS = 1024  # backward passes of one batch (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sums:
    """What some inputs add to the two moments."""

    moments: Moments
    jacobian: Float64[Tensor, "d d"]
    """Sum over rows of `M'`."""

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(moments=self.moments + other.moments, jacobian=self.jacobian + other.jacobian)


def local_interaction_basis(
    subject: Subject,
    site: Site,
    inputs: Shaped[Tensor, "input ..."] | TokenizedCorpus,
    *,
    batch: int = 64,
    threshold: float = DEFAULT_THRESHOLD,
    output_directions: int | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> LocalInteractionBasis:
    """The directions of a site that the rest of the model uses, to linear order, most used first.

    Needs two moments, both taken over all rows x of the site on the inputs (tokens, positions of
    an image): the centred covariance, and the Jacobian's second moment

        M' = E[sum_i (dy_i/dx) (dy_i/dx)^T].

    For a general module y is its output. The paper turns the output to its principal components
    first, but a sum over an orthonormal basis is the same in each, so y_i are the plain entries:
    all of them, or, unbiased and cheaper, random combinations ``eps·y`` with signs eps = ±1.

    For a language model the sum over entries would weigh a logit that no prediction depends on as
    much as any other. There y is the prediction in the Fisher metric: M' is the second moment of
    the gradient of the log-probabilities of tokens drawn from the model's own predictions at the
    position itself and later ones (see `modelassay.subjects.fisher`). Half the used variance is
    then, to second order, the KL in nats of replacing a latent by its mean, as far as gradients and
    codes are independent.

    The paper goes back from the output layer by layer, with the Jacobian to the next layer's
    basis; this is its step with the output as the next layer. Moments are in float64; activations
    and gradients are as exact as the model's own dtype, so thresholds near 1e-15 need a float64
    model, and the basis has its dtype then.

    Args:
        subject: the model.
        site: where the activations stand.
        inputs: what `Subject.run` takes, one input a row, each independent of the others in its
            batch; a language model takes token ids without padding, all of whose tokens count, or
            a tokenized corpus, whose measured tokens count (so not BOS, whose activation is often
            so large that it would rule the covariance).
        batch: inputs of one pass; a language model takes fewer where logits would not fit.
        threshold: principal variances and used variances below this share of the largest one are
            dropped.
        output_directions: random combinations of outputs per input; for a language model draws
            per token. None takes all entries of a general module's output, and one draw.
        generator: for random output directions.
        progress: where to report; a bar on a terminal by default.

    Raises:
        ValueRangeError: there are no inputs; the batch, the threshold or the number of output
            directions is out of range; a generator is needed; the output has too many entries;
            the activations do not vary, or nothing depends on them.
        ShapeError: the site does not hold one vector a row.
        UnsupportedModelError: the model returns no tensor of floating point.
        NonFiniteError: activations or gradients hold NaN or Inf.

    Reference: Bushnaq et al. 2024 (arXiv:2405.10928).
    """
    site = subject.resolve(site)
    _check(subject, inputs, batch, threshold, output_directions, generator)
    if subject.structure is None:
        directions = partial(_directions, number=output_directions, generator=generator)
        sums_of = partial(_sums_of_module, subject, site, directions=directions)
    else:
        assert generator is not None  # checked
        draws = 1 if output_directions is None else output_directions
        sums_of = partial(_sums_of_predictions, subject, site, draws=draws, generator=generator)
        logits = subject.vocab_size * _tokens(inputs).shape[-1]
        batch = max(1, min(batch, _MAX_LOGITS // logits))
    total = _summed(sums_of, inputs, batch, site, progress or default_progress())
    basis = LocalInteractionBasis.from_moments(
        total.moments,
        total.jacobian / max(1, total.moments.count),
        threshold=threshold,
        dtype=torch.float64 if subject.dtype == torch.float64 else torch.float32,
        site=site,
    )
    basis.subject_fingerprint = subject.fingerprint()
    basis.provenance = Provenance.collect(
        seed=generator.initial_seed() if generator else 0,
        device=str(subject.device),
        subject=subject.name,
        site=str(site),
        inputs=len(inputs),
        rows=total.moments.count,
        output_directions=output_directions,
        threshold=threshold,
    )
    return basis


def _check(
    subject: Subject,
    inputs: Tensor | TokenizedCorpus,
    batch: int,
    threshold: float,
    output_directions: int | None,
    generator: torch.Generator | None,
) -> None:
    check_threshold(threshold)
    for name, value in {"batch": batch, "output_directions": output_directions}.items():
        if value is not None and value < 1:
            raise ValueRangeError(
                f"{name} must be at least 1; got {value}. Leave it out for the default."
            )
    if len(inputs) == 0:
        raise ValueRangeError(
            "There must be inputs; got none. Give as many as the activations have dimensions, at "
            "the least."
        )
    if generator is None and (subject.structure is not None or output_directions is not None):
        raise ValueRangeError(
            "Random output directions, and the draws from a language model's predictions, must "
            "have a generator; got None. Pass generator=torch.Generator().manual_seed(0)."
        )
    if subject.structure is None and isinstance(inputs, TokenizedCorpus):
        raise UnsupportedModelError(
            f"A tokenized corpus must go to a language model with roles; got {subject.name!r}, "
            "which has none. Pass its inputs as a tensor."
        )


def _summed(
    sums_of: Callable[[Any], _Sums],
    inputs: Tensor | TokenizedCorpus,
    batch: int,
    site: Site,
    progress: Progress,
) -> _Sums:
    starts = range(0, len(inputs), batch)
    with progress.task(f"Jacobians of {site}", total=len(inputs), unit="inputs") as task:
        total = None
        for start in starts:
            part = inputs[start : start + batch]
            sums = sums_of(part)
            total = sums if total is None else total + sums
            task.advance(len(part))
    assert total is not None  # there are inputs
    return total


def _sums_of_predictions(
    subject: Subject,
    site: Site,
    part: Tensor | TokenizedCorpus,
    *,
    draws: int,
    generator: torch.Generator,
) -> _Sums:
    tokens = _tokens(part)
    mask = torch.ones_like(tokens, dtype=torch.bool) if isinstance(part, Tensor) else part.mask
    measured = mask if isinstance(part, Tensor) else part.measured
    activation, gradients = score_gradients(
        subject, site, tokens, mask, draws=draws, generator=generator
    )
    return _Sums(
        moments=Moments.of(activation[measured]),
        jacobian=_gram(gradients[:, measured].flatten(0, 1)) / draws,
    )


def _sums_of_module(
    subject: Subject, site: Site, part: Tensor, *, directions: Callable[[Tensor], Iterator[Tensor]]
) -> _Sums:
    downstream = subject.downstream(site, part)
    activation = downstream.activation.detach().clone().requires_grad_()
    rows = _rows(activation.detach(), site)
    jacobian = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    with torch.enable_grad():
        outputs = _outputs(downstream(activation, gradients=True).logits, subject)
    if outputs.requires_grad:  # or else the site leads nowhere, and its Jacobian is zero
        for direction in directions(outputs):
            (gradient,) = torch.autograd.grad(
                outputs, activation, direction, retain_graph=True, materialize_grads=True
            )
            jacobian += _gram(_rows(gradient, site))
    return _Sums(moments=Moments.of(rows), jacobian=jacobian)


def _directions(
    outputs: Tensor, *, number: int | None, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Combinations of outputs whose second moments sum to the identity."""
    n_outputs = outputs.shape[1]
    if number is not None and generator is not None:
        for _ in range(number):
            signs = torch.randint(2, outputs.shape, generator=generator, device=generator.device)
            yield (2 * signs - 1).to(outputs) / number**0.5
        return
    if n_outputs > _MAX_EXACT_OUTPUTS:
        raise ValueRangeError(
            f"The output must have at most {_MAX_EXACT_OUTPUTS} entries an input, each of which "
            f"takes a backward pass; got {n_outputs}. Pass output_directions=64 and a generator."
        )
    for axis in torch.eye(n_outputs, dtype=outputs.dtype, device=outputs.device):
        yield axis.expand_as(outputs)


def _outputs(output: Tensor | None, subject: Subject) -> Tensor:
    if output is None or not output.is_floating_point():
        raise UnsupportedModelError(
            f"A model must return a tensor of floating point; got {subject.name!r}, which does "
            "not. Wrap it in a module that returns what you want explained."
        )
    return output.reshape(len(output), -1)


def _rows(values: Tensor, site: Site) -> Tensor:
    """One row a feature vector; images ``[batch channel height width]`` have one a position."""
    if values.ndim < 2:
        raise ShapeError(
            f"A site must hold vectors; got {list(values.shape)} at {site}. Choose another site."
        )
    return (values.movedim(1, -1) if values.ndim == 4 else values).flatten(0, -2)


def _gram(rows: Tensor) -> Float64[Tensor, "d d"]:
    rows = rows.to("cpu", torch.float64)
    return rows.T @ rows


def _tokens(inputs: Tensor | TokenizedCorpus) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else inputs.tokens
