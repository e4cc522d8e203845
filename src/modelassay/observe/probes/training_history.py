"""What a model encodes at each layer and each step of its training: the same probes on checkpoints.

Every figure is set against what needs no training: the token alone, a bag of the tokens read, and
the null twin, which is the model at step 0. The figure of the map is the *lead*: the score less
that of the best of these controls at the same site, resampled together by document.

Reference: McGrath et al. 2022, "Acquisition of chess knowledge in AlphaZero" (concepts by block and
training step).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.observe.probes.scores import Measured

Measure = Literal["lead", "score", "over_token", "over_bag", "over_null", "selectivity"]
MEASURES: tuple[Measure, ...] = (
    "lead", "score", "over_token", "over_bag", "over_null", "selectivity",
)  # fmt: skip
Finding = Literal["learnt", "not beyond the null twin", "not beyond the tokens", "not encoded"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptSummary:
    """A concept at the last step, at the site that the training documents chose."""

    name: str
    site: str
    score: Measured
    lead: Measured
    """Over the best control."""
    over_token: Measured
    over_bag: Measured
    over_null: Measured
    selectivity: Measured
    since: int | None
    """From this step on every checkpoint leads over all controls, at the site chosen for it."""
    finding: Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingHistory:
    """Scores of concepts by site and step; the first resample is the test items as they are."""

    subject: str
    steps: tuple[int, ...]
    sites: tuple[str, ...]
    concepts: tuple[str, ...]
    descriptions: tuple[str, ...]
    graded: tuple[bool, ...]
    n_train: tuple[int, ...]
    n_test: tuple[int, ...]
    n_test_groups: tuple[int, ...]
    null: str
    """What the null twin is, in words."""
    scores: Float[Tensor, "concept site step resample"]
    task: Float[Tensor, "concept site step resample"]
    """On a control task."""
    validation: Float[Tensor, "concept site step"]
    """On held-out folds of the training items: what a site may be chosen by."""
    token: Float[Tensor, "concept resample"]
    bag: Float[Tensor, "concept resample"]
    twin: Float[Tensor, "concept site resample"]

    def resampled(self, measure: Measure) -> Float[Tensor, "concept site step resample"]:
        """A measure in every cell and resample.

        `lead` is over the best of token, bag, null twin and chance (0), chosen by the items as they
        are; the others are differences to one control, and `selectivity` is that to the control
        task.
        """
        token, bag = self.token[:, None, None], self.bag[:, None, None]
        twin = self.twin[:, :, None]
        if measure == "score":
            return self.scores
        if measure == "selectivity":
            return self.scores - self.task
        if measure == "lead":
            return self.scores - self._best_control()[:, :, None]
        others = {"over_token": token, "over_bag": bag, "over_null": twin}
        return self.scores - others[measure]

    def cell(self, measure: Measure, concept: int, site: int, step: int) -> Measured:
        """A measure in one cell, with its 95 % interval."""
        return _measured(self.resampled(measure)[concept, site, step])

    def bounds(self, measure: Measure) -> Float[Tensor, "3 concept site step"]:
        """Value, and ends of the 95 % interval, of every cell; NaN where there is none."""
        values = self.resampled(measure)
        ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
        if values.shape[-1] == 1:
            missing = torch.full_like(values[..., 0], torch.nan)
            return torch.stack([values[..., 0], missing, missing])
        return torch.cat([values[None, ..., 0], values[..., 1:].nanquantile(ends, dim=-1)])

    def chosen_sites(self) -> Int[Tensor, "concept step"]:
        """At each step, the site with the best score on folds of the training documents."""
        return self.validation.nan_to_num(nan=-torch.inf).argmax(1)

    def summaries(self) -> tuple[ConceptSummary, ...]:
        """What there is at the last step, and since when."""
        sites = self.chosen_sites()
        low = self.bounds("lead")[1]
        measures: dict[Measure, Tensor] = {m: self.resampled(m) for m in MEASURES}
        found: list[ConceptSummary] = []
        for number, name in enumerate(self.concepts):
            place = int(sites[number, -1])
            at: dict[Measure, Measured]
            at = {m: _measured(parts[number, place, -1]) for m, parts in measures.items()}
            ahead = low[number].gather(0, sites[number][None])[0] > 0
            found.append(
                ConceptSummary(
                    name=name,
                    site=self.sites[place],
                    since=_since(self.steps, ahead.tolist()),
                    finding=_finding(at),
                    score=at["score"],
                    lead=at["lead"],
                    over_token=at["over_token"],
                    over_bag=at["over_bag"],
                    over_null=at["over_null"],
                    selectivity=at["selectivity"],
                )
            )
        return tuple(found)

    def _best_control(self) -> Float[Tensor, "concept site resample"]:
        n_sites = len(self.sites)
        controls = torch.stack(
            [
                self.token[:, None].expand(-1, n_sites, -1),
                self.bag[:, None].expand(-1, n_sites, -1),
                self.twin,
                torch.zeros_like(self.twin),
            ]
        )
        best = controls[..., 0].nan_to_num(nan=-torch.inf).argmax(0)
        return controls.gather(0, best[None, ..., None].expand(1, *self.twin.shape))[0]


def _measured(resamples: Float[Tensor, " resample"]) -> Measured:
    known = resamples[1:][~resamples[1:].isnan()]
    if 2 * len(known) < len(resamples):
        return Measured(value=float(resamples[0]), low=torch.nan, high=torch.nan)
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Measured(value=float(resamples[0]), low=low, high=high)


def _since(steps: Sequence[int], ahead: Sequence[bool]) -> int | None:
    since: int | None = None
    for step, leads in zip(reversed(steps), reversed(ahead), strict=True):
        if not leads:
            break
        since = step
    return since


def _finding(at: Mapping[Measure, Measured]) -> Finding:
    if not at["score"].low > 0:
        return "not encoded"
    if not at["over_null"].low > 0:
        return "not beyond the null twin"
    if not (at["over_token"].low > 0 and at["over_bag"].low > 0):
        return "not beyond the tokens"
    return "learnt"
