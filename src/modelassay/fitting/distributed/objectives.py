"""Terms of a loss where latents and tokens are divided between processes.

What comes of a term here has the gradient of this process's latents on its own tokens, so that
the mean over all tokens' processes is the gradient of the term on the whole batch. A term that is
not known to allow this is refused: it would silently become another one.
"""

import math
from dataclasses import dataclass
from functools import singledispatch

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.encoders import encode_slots
from modelassay.decompositions.kernels import sparse_decode
from modelassay.decompositions.selection import abs_topk, topk
from modelassay.fitting.distributed.collectives import sum_, sum_values
from modelassay.fitting.distributed.dead_latents import SharedDeadLatents
from modelassay.fitting.distributed.mesh import ProcessMesh
from modelassay.fitting.distributed.selection import kept_per_token
from modelassay.fitting.objectives.annealed import AnnealedPower
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.gated import GateL1, GateReconstruction
from modelassay.fitting.objectives.l0 import L0, Tanh, TargetL0, mean_l0
from modelassay.fitting.objectives.l1 import L1
from modelassay.fitting.objectives.objective import Forward, Objective
from modelassay.fitting.objectives.reconstruction import NestedReconstruction, Reconstruction


@singledispatch
def across_processes(
    objective: Objective, mesh: ProcessMesh, latents: SharedDeadLatents
) -> Objective:
    """The term for a process that has some latents and some tokens.

    ``@across_processes.register`` adds one.

    Args:
        objective: the term as it is in one process.
        mesh: the processes.
        latents: which of this process's latents are dead.

    Raises:
        ValueRangeError: if none is registered.
    """
    del mesh, latents
    raise ValueRangeError(
        "A term of a loss must be registered for many processes; got "
        f"{type(objective).__name__}. Fit in one process, or register it."
    )


@across_processes.register(Reconstruction | NestedReconstruction | GateReconstruction)
def _(objective: Objective, mesh: ProcessMesh, latents: SharedDeadLatents) -> Objective:
    del mesh, latents  # every process has the whole reconstruction of its tokens
    return objective


@across_processes.register(L1 | L0 | Tanh | GateL1)
def _(objective: Objective, mesh: ProcessMesh, latents: SharedDeadLatents) -> Objective:
    del latents
    return SumOverLatents(term=objective, mesh=mesh)


@across_processes.register
def _(objective: TargetL0, mesh: ProcessMesh, latents: SharedDeadLatents) -> Objective:
    del latents
    return SharedTargetL0(term=objective, mesh=mesh)


@across_processes.register
def _(objective: AuxK, mesh: ProcessMesh, latents: SharedDeadLatents) -> Objective:
    return SharedAuxK(term=objective, mesh=mesh, latents=latents)


@across_processes.register
def _(objective: AnnealedPower, mesh: ProcessMesh, latents: SharedDeadLatents) -> Objective:
    del latents
    return SharedAnnealedPower(objective, mesh)


class SharedAnnealedPower(AnnealedPower):
    """`AnnealedPower`, whose coefficient follows sums over all latents and tokens.

    Args:
        term: the term as it is in one process, before its first step.
        mesh: the processes.
    """

    def __init__(self, term: AnnealedPower, mesh: ProcessMesh) -> None:
        super().__init__(
            coefficient=float(term.state()["coefficient"]),
            p_end=term.p_end,
            p_steps=term.p_steps,
            start_share=term.start_share,
            end_share=term.end_share,
        )
        self._mesh = mesh

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on this process's tokens, all latents counted."""
        return sum_values(super().__call__(forward), self._mesh.latents)

    def over_all(self, sums: Float[Tensor, " power"]) -> Float[Tensor, " power"]:
        """See `AnnealedPower.over_all`; the same on every process."""
        return sum_(sums, self._mesh.everyone) / self._mesh.token_shards


@dataclass(frozen=True, kw_only=True, slots=True)
class SumOverLatents:
    """A term that is a sum over latents, and a mean over tokens."""

    term: Objective
    mesh: ProcessMesh

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on this process's tokens, all latents counted."""
        return sum_values(self.term(forward), self.mesh.latents)


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedTargetL0:
    """`TargetL0`, which squares a mean over the whole batch."""

    term: TargetL0
    mesh: ProcessMesh

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on the whole batch."""
        here = sum_values(mean_l0(forward), self.mesh.latents)
        mean = sum_(here.detach().clone(), self.mesh.tokens) / self.mesh.token_shards
        # The gradients' mean over the processes supplies the 1 / processes of the mean.
        l0 = here + (mean - here.detach())
        return (
            self.term.coefficient * forward.sparsity_factor * (l0 / self.term.target - 1).square()
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedAuxK:
    """`AuxK`, whose dead latents lie on several processes and compete with each other."""

    term: AuxK
    mesh: ProcessMesh
    latents: SharedDeadLatents

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """This process's tokens' share of the term, times the number of shares."""
        residual = forward.residual().detach()
        if not self.latents.most_dead:
            return residual.new_zeros(())
        values, indices = self._codes(forward)
        W_dec = forward.dictionary.W_dec.index_select(0, forward.dead)
        left = residual - sum_values(sparse_decode(values, indices, W_dec), self.mesh.latents)
        variance = self._variance(residual).clamp(min=1e-12)
        return self.term.coefficient * left.square().sum() * self.mesh.token_shards / variance

    def _codes(
        self, forward: Forward
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        dictionary, dead, x = forward.dictionary, forward.dead, forward.activations
        # With fewer dead latents than this in all, all that are positive are kept.
        k = max(1, x.shape[1] // 2)
        slots = min(k, self.latents.most_dead)
        activation = dictionary.activation
        largest = abs_topk if activation.signed else topk
        values, indices = x.new_zeros(len(x), 0), dead.new_zeros(len(x), 0)
        if len(dead):
            values, indices = encode_slots(
                x,
                dictionary.W_enc.t().index_select(0, dead).t(),
                dictionary.b_enc.index_select(0, dead),
                lambda pre: largest(pre, slots),
                centre=dictionary.b_dec.detach() if dictionary.apply_b_dec_to_input else None,
            )
        sizes = values.detach().abs() if activation.signed else values.detach()
        # As in `AuxK`: what is not positive counts as 0, and yet may pass on a gradient.
        through = self.term.straight_through or not activation.compares_latents
        floor = -math.inf if through and not activation.signed else 0.0
        missing = (0, slots - values.shape[1])
        kept = kept_per_token(
            F.pad(sizes, missing, value=floor),
            F.pad(indices, missing),
            k,
            self.mesh.latents,
            floor,
        )
        if not activation.signed:
            values = values + (values.relu() - values).detach()
        return values * kept[:, : values.shape[1]], indices

    def _variance(self, residual: Float[Tensor, "token d"]) -> Float[Tensor, ""]:
        """Sum over the whole batch of squared distances from its mean."""
        n_tokens = len(residual) * self.mesh.token_shards
        mean = sum_(residual.sum(0), self.mesh.tokens) / n_tokens
        return sum_((residual - mean).square().sum(), self.mesh.tokens)
