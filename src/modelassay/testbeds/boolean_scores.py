"""How well the latents of a dictionary stand for the gates of a circuit."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.boolean_circuits import Gate
from modelassay.testbeds.scores import correlation, match
from modelassay.testbeds.truth import is_active

KEPT = 0.95
"""F1 above which a gate counts as having a latent of its own (ours). A gate that is always called
on has 0.86 at most, since none is on for more than three quarters of all inputs."""


def gate_f1(
    values: Float[Tensor, "input latent"], gates: Bool[Tensor, "input gate"]
) -> Float[Tensor, " gate"]:
    """F1 of the best latent, thresholded, at telling when each gate is on.

    Latent, sign and threshold are those of the highest F1 on the first half of the inputs; what
    is returned is their F1 on the second half, ``2 TP / (2 TP + FP + FN)``.

    Args:
        values: of the latents; shuffled, or drawn independently, so that the halves are alike.
        gates: which gates are on.
    """
    half = len(values) // 2
    signed = torch.cat([values, -values], 1)
    ordered, order = signed[:half].sort(0, descending=True)
    # A cut may stand only between different values.
    possible = torch.cat([ordered[:-1] > ordered[1:], torch.ones_like(ordered[:1]).bool()])
    called = torch.arange(1, half + 1)[:, None].to(values)
    found: list[Tensor] = []
    for gate in gates.T:
        on = gate[:half].to(values)
        hits = on[order].cumsum(0)
        f1 = torch.where(possible, 2 * hits / (called + on.sum()).clamp(min=1), -1.0)
        best = int(f1.argmax())
        row, latent = divmod(best, signed.shape[1])
        below = ordered[min(row + 1, half - 1), latent]
        calls = signed[half:, latent] > (ordered[row, latent] + below) / 2
        if row == half - 1:
            calls = torch.ones_like(calls)
        found.append(_f1(calls, gate[half:]))
    return torch.stack(found)


def gate_scores(
    arm: Arm, decomposition: Decomposition, outputs: Sequence[Gate] = ()
) -> dict[str, float]:
    """What the Boolean testbeds measure of a decomposition in an arm whose model reads gates.

    - ``gate_f1``: mean over the gates that are read of the F1 of their best latent;
    - ``gate_f1_always_on``: what calling every gate on would reach;
    - ``hops_kept``, where the reader computes `outputs` from the gates: see there;
    - ``composites_on_data``: match, not corrected for chance, with the features of the activations
      on the data itself: a latent may stand for a joint state there and for another thing on
      independent bits.
    """
    gates = is_active(arm.model_truth.values(arm.interventional))
    f1 = gate_f1(arm.codes(decomposition).dense(), gates)
    on_data = correlation(
        decomposition.encode(arm.activations).dense(), arm.activations_truth.values(arm.data)
    )
    hops = {"hops_kept": hops_kept(f1, outputs)} if outputs else {}
    return {
        "gate_f1": float(f1.mean()),
        "gate_f1_always_on": float(always_on_f1(gates).mean()),
        **hops,
        "composites_on_data": match(on_data),
    }


def always_on_f1(gates: Bool[Tensor, "input gate"]) -> Float[Tensor, " gate"]:
    """F1 of calling every gate on, on all inputs: ``2 p / (1 + p)``."""
    share = gates.float().mean(0)
    return 2 * share / (1 + share)


def hops_kept(f1: Float[Tensor, " gate"], outputs: Sequence[Gate]) -> float:
    """Share of the outputs ``C = g(B, B')`` both of whose middle gates have a latent of their own.

    Only then can a graph over the latents keep the hop from the input over them to the output. At
    one site that is all that can be asked; whether a graph over several layers keeps the hop needs
    dictionaries of several layers.

    Args:
        f1: of the middle gates.
        outputs: gates whose wires are numbers of middle gates.
    """
    kept = [bool(f1[gate.first] > KEPT) and bool(f1[gate.second] > KEPT) for gate in outputs]
    return sum(kept) / len(kept)


def _f1(calls: Tensor, on: Tensor) -> Tensor:
    hits = (calls & on).sum()
    return 2 * hits / (calls.sum() + on.sum()).clamp(min=1)
