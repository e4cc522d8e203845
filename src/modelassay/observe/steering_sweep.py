"""Strength sweeps: what steering does to a behaviour, what it costs, and what chance would do.

For each strength s the behaviour is measured on prompts, and the cost on held-out text:

    perplexity(s) = exp(sum of -log p(token) / number of tokens), steered at the same tokens.

The null writes the same changes of the same values into random directions of the same lengths: a
perturbation of the same size at the same tokens, that only does not point where the units point. A
direction steers if its curve leaves those of the null before the text falls apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.probes.scores import Measured, group_weights, measure
from modelassay.observe.steering import Steering, random_directions, together
from modelassay.observe.steering_behaviour import Behaviour
from modelassay.observe.steering_where import ShownTokens, shown
from modelassay.subjects.subject import Subject

N_RANDOM = 8
"""Random directions of the null (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeringSweep:
    """Behaviour and cost at several strengths, of the units and of random directions."""

    units: str
    site: str
    operation: str
    behaviour: str
    strengths: tuple[float, ...]
    unsteered: Float[Tensor, " prompt"]
    """The behaviour without steering."""
    steered: Float[Tensor, "strength prompt"]
    random: Float[Tensor, "draw strength prompt"]
    """The same changes, written in random directions."""
    text_unsteered: Float[Tensor, " document"]
    """Sum of -log p of each held-out document's tokens, in nats."""
    text_steered: Float[Tensor, "strength document"]
    text_random: Float[Tensor, "draw strength document"]
    text_tokens: Int[Tensor, " document"]
    prompts: tuple[ShownTokens, ...]
    """Which tokens were steered and read."""
    seed: int

    def behaviour_at(self, strength: int) -> Measured:
        """Mean behaviour at one of the strengths, with a 95 % interval over prompts."""
        return _mean(self.steered[strength], self.seed)

    def baseline(self) -> Measured:
        """Mean behaviour without steering."""
        return _mean(self.unsteered, self.seed)

    def perplexity_at(self, strength: int | None) -> Measured:
        """Perplexity of held-out text at one of the strengths (None: unsteered).

        With a 95 % interval over documents.
        """
        losses = self.text_unsteered if strength is None else self.text_steered[strength]
        weights = group_weights(torch.arange(len(losses)), derived(self.seed, "text"))
        counts = self.text_tokens.double()
        return measure(lambda w: ((w @ losses.double()) / (w @ counts)).exp(), weights)

    def cost_at(self, strength: int) -> Measured:
        """Steered over unsteered perplexity, on the same resampled documents."""
        excess = (self.text_steered[strength] - self.text_unsteered).double()
        weights = group_weights(torch.arange(len(excess)), derived(self.seed, "text"))
        counts = self.text_tokens.double()
        return measure(lambda w: ((w @ excess) / (w @ counts)).exp(), weights)

    def random_behaviour(self) -> Float[Tensor, "draw strength"]:
        """Mean behaviour of each random direction."""
        return self.random.mean(2)

    def random_perplexity(self) -> Float[Tensor, "draw strength"]:
        """Perplexity under each random direction."""
        total = self.text_tokens.double().sum()
        return (self.text_random.double().sum(2) / total).exp().float()

    def beyond_chance(self) -> tuple[bool, ...]:
        """At which strengths the mean behaviour lies outside those of all random directions."""
        means, chance = self.steered.mean(1), self.random_behaviour()
        outside = (means < chance.amin(0)) | (means > chance.amax(0))
        return tuple(outside.tolist())


def sweep(
    subject: Subject,
    steering: Steering,
    strengths: Sequence[float],
    behaviour: Behaviour,
    prompts: Sequence[Int[Tensor, " _"]],
    text: TokenizedCorpus,
    *,
    n_random: int = N_RANDOM,
    batch_contexts: int = 16,
    seed: int = 0,
    progress: Progress = SILENT,
) -> SteeringSweep:
    """Steer at several strengths, and so do random directions.

    Args:
        subject: a language model.
        steering: units, operation and place; its own strength is not used.
        strengths: at least one; of an ablation ``[0]``.
        behaviour: what is to change.
        prompts: on which it is measured.
        text: held-out contexts, on which the cost is measured.
        n_random: random directions of the null, at least 1.
        batch_contexts: contexts that the model reads at a time.
        seed: of the random directions and the bootstrap.
        progress: where to report.

    Raises:
        ValueRangeError: no strength, prompt or random direction.
        ModelassayError: what the steering or the behaviour refuses.
    """
    if not strengths or not prompts or n_random < 1:
        raise ValueRangeError(
            "A sweep must have at least one strength, prompt and random direction; got "
            f"{len(strengths)}, {len(prompts)} and {n_random}. Add what is missing."
        )
    steering.check(subject)
    written = steering.units.written
    turned = [
        random_directions(written, derived(seed, "random direction", draw))
        for draw in range(n_random)
    ]
    arms = [steering, *(replace(steering, units=steering.units.turned(each)) for each in turned)]
    reader = _Reader(subject, behaviour, prompts, text, batch_contexts)
    with progress.task("Steering", total=1 + len(arms) * len(strengths), unit="runs") as task:
        unsteered, text_unsteered = reader.measured(())
        task.advance(1)
        rows: list[tuple[Tensor, Tensor]] = []
        for arm in arms:
            for strength in strengths:
                rows.append(reader.measured((arm.at(strength),)))
                task.advance(1)
    shape = (len(arms), len(strengths), -1)
    behaviours = torch.stack([row for row, _ in rows]).view(shape)
    losses = torch.stack([loss for _, loss in rows]).view(shape)
    return SteeringSweep(
        units=steering.units.name,
        site=str(steering.site),
        operation=steering.operation.name,
        behaviour=behaviour.name,
        strengths=tuple(float(strength) for strength in strengths),
        unsteered=unsteered,
        steered=behaviours[0],
        random=behaviours[1:],
        text_unsteered=text_unsteered,
        text_steered=losses[0],
        text_random=losses[1:],
        text_tokens=reader.counts,
        prompts=shown(subject, prompts, steering.where, [behaviour.read] * len(prompts)),
        seed=seed,
    )


class _Reader:
    """Measures the behaviour and the cost under some steerings."""

    def __init__(
        self,
        subject: Subject,
        behaviour: Behaviour,
        prompts: Sequence[Int[Tensor, " _"]],
        text: TokenizedCorpus,
        batch_contexts: int,
    ) -> None:
        self._subject, self._behaviour, self._prompts = subject, behaviour, prompts
        self._text, self._batch = text, batch_contexts
        _, self._document = text.document.unique(return_inverse=True)
        # The first token of a context is predicted from nothing.
        self.counts = self._summed(text.measured[:, 1:].sum(1).double()).long()

    def measured(self, steerings: Sequence[Steering]) -> tuple[Tensor, Tensor]:
        """The behaviour of each prompt, and the loss of each document."""
        behaviour = self._behaviour.measured(self._subject, self._prompts, steerings)
        return behaviour, self._losses(steerings).float()

    @torch.no_grad()
    def _losses(self, steerings: Sequence[Steering]) -> Float[Tensor, " document"]:
        found: list[Tensor] = []
        for batch in torch.arange(len(self._text)).split(self._batch):
            part = self._text[batch]
            length = int(part.mask.sum(1).max())
            tokens = part.tokens[:, :length]
            # Padding stands on the right, where a causal model cannot see it from the left.
            logits = self._subject.run(tokens, edit=together(steerings, tokens)).logits
            assert logits is not None
            log_p = logits[:, :-1].float().log_softmax(-1).cpu()
            chosen = log_p.gather(2, tokens[:, 1:, None])[..., 0]
            found.append(-(chosen * part.measured[:, 1:length]).sum(1).double())
        return self._summed(torch.cat(found))

    def _summed(self, values: Float[Tensor, " context"]) -> Float[Tensor, " document"]:
        sums = torch.zeros(int(self._document.max()) + 1, dtype=torch.float64)
        return sums.index_add(0, self._document, values)


def _mean(values: Float[Tensor, " prompt"], seed: int) -> Measured:
    weights = group_weights(torch.arange(len(values)), derived(seed, "prompts"))
    return measure(lambda w: w @ values.double() / w.sum(1), weights)
