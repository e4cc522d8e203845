"""Decoders whose rows are mixtures of points of the data."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.recipe_archetypal import Archetypal
from modelassay.fitting.centroids import centroids, check_enough
from modelassay.fitting.parametrisation import FromActivations, Parametrisation

_TOKENS_OF_A_CANDIDATE = 16  # that clusters are made of, on average (ours)
_SHORTEST = 1e-6  # of a row, in units of the candidates' root mean square norm: ours


@final
class ArchetypalDecoder(Parametrisation):
    """Decoder rows ``D = (W C + Λ) e^m``, and an encoder with its bias, made into unit rows.

    With π the pre-activations of the raw encoder E, `z = select(π |D|)` and `x̂ = Σ z_i D_i /
    |D_i|`, which is the dictionary of unit rows

        W_enc = E |D|,    b_enc = b |D|,    W_dec = D / |D|.

    So latents are compared by what they contribute, as `NormAware` does, and what is exported is
    what was trained, exactly. (In the reference they are compared by π; for sparsifiers that
    choose each latent on its own there is no difference.)

    Candidates have the data's mean subtracted, as `b_dec` adds it, and a root mean square norm of
    1, so that neither the bound of Λ nor the learning rate depends on the data's scale.

    Each row starts as one candidate, with more latents than candidates as the mean of two; Λ and
    m as 0, and the encoder as the transpose of the decoder (ours; an identity matrix in the
    reference's code).

    Reference: Fel et al. 2025, section 4.
    """

    candidates: Float[Tensor, "candidate d"]

    def __init__(
        self,
        dictionary: Dictionary,
        candidates: Float[Tensor, "candidate d"],
        *,
        relaxation: float,
        generator: torch.Generator,
    ) -> None:
        """Start from some candidates.

        Args:
            dictionary: whose decoder and encoder are made.
            candidates: C, centred.
            relaxation: largest norm of a row of Λ, in units of the candidates' root mean square.
            generator: on the CPU; deals the candidates to the latents.
        """
        super().__init__()
        self.relaxation = relaxation
        size = candidates.square().sum(1).mean().sqrt()
        self.register_buffer("candidates", (candidates / size).to(dictionary.W_dec))
        mixtures = _first_mixtures(dictionary.width, len(candidates), generator)
        self.mixtures = nn.Parameter(mixtures.to(dictionary.W_dec))
        self.offsets = nn.Parameter(torch.zeros_like(dictionary.W_dec))
        self.log_scale = nn.Parameter(dictionary.W_dec.new_zeros(()))
        with torch.no_grad():
            rows, norms = self._rows()
            self.W_enc = nn.Parameter(rows.t() / norms.square())
            self.b_enc = nn.Parameter(dictionary.b_enc.detach() / norms)

    def _rows(self) -> tuple[Float[Tensor, "width d"], Float[Tensor, " width"]]:
        """D and the norms of its rows."""
        rows = torch.addmm(self.offsets, self.mixtures, self.candidates)
        rows = rows * self.log_scale.exp()
        return rows, rows.norm(dim=1).clamp(min=_SHORTEST)

    def forward(self) -> dict[str, Tensor]:
        """Encoder, its bias and unit decoder rows."""
        rows, norms = self._rows()
        return {
            "W_enc": self.W_enc * norms,
            "b_enc": self.b_enc * norms,
            "W_dec": rows / norms.unsqueeze(1),
        }

    @torch.no_grad()
    def project(self) -> None:
        """Make W a matrix of mixing weights again, and Λ no longer than it may be."""
        self.mixtures.clamp_(min=0)
        sums = self.mixtures.sum(1, keepdim=True)
        # A row of which nothing is left becomes the mean of all candidates.
        self.mixtures.add_((sums == 0).to(self.mixtures))
        self.mixtures.div_(self.mixtures.sum(1, keepdim=True))
        lengths = self.offsets.norm(dim=1, keepdim=True)
        self.offsets.mul_((self.relaxation / lengths.clamp(min=1e-30)).clamp(max=1))


def _first_mixtures(width: int, n: int, generator: torch.Generator) -> Float[Tensor, "{width} {n}"]:
    """Row-stochastic weights: single candidates in random order, then means of two."""
    order = torch.randperm(n, generator=generator)
    weights = torch.zeros(width, n)
    latents = torch.arange(width)
    first = order[latents % n]
    # The pairs of one round through the candidates stand `round` places apart: none comes twice
    # before all have come.
    second = order[(latents + latents // n) % n]
    weights[latents, first] += 0.5
    weights[latents, second] += 0.5
    return weights


def archetypal(recipe: Archetypal) -> FromActivations:
    """The decoder of a recipe, of candidates that are drawn from the activations."""

    def make(
        dictionary: Dictionary, sample: Float[Tensor, "token d"], generator: torch.Generator
    ) -> ArchetypalDecoder:
        centred = sample.to(dictionary.W_dec) - dictionary.b_dec.detach()
        check_enough(centred, recipe.candidates)
        if recipe.candidates_are == "centres":
            candidates = centroids(centred, recipe.candidates, generator)
        else:
            candidates = centred[: recipe.candidates]
        return ArchetypalDecoder(
            dictionary, candidates, relaxation=recipe.relaxation, generator=generator
        )

    return FromActivations(tokens=_TOKENS_OF_A_CANDIDATE * recipe.candidates, make=make)
