"""What a run does about batches with NaN or Inf: it stops, or leaves them out and counts them."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.activations.source import ActivationSource
from modelassay.activations.stream import ActivationStream, BatchStream
from modelassay.core.errors import NonFiniteError
from modelassay.core.provenance import Fact
from modelassay.fitting.options import BadBatchPolicy
from modelassay.subjects.site import Site

LARGEST_SKIPPED_SHARE = 0.1
"""Batches that a run may leave out, as a share of its steps (ours): beyond it, something is wrong
with the model or the harvest, and what is left is no random sample of the data."""
FEW_BATCHES = 10
"""What a run may leave out however short it is (ours)."""

Places = Callable[[int], Mapping[str, str]]
"""For the number of a batch: at which sites it is not finite, and where in it, in words."""


class CheckedBatches:
    """The batches of a stream; with the policy "skip", only the finite ones.

    A batch that is left out never reaches a learner, so that weights, moments, schedules and
    counters stand as if it had not come. Batches come from host memory: looking at one there
    waits for no device. With "stop" none is looked at here; the trainer does that on the device.

    Args:
        stream: of whole batches, so that many processes leave out the same ones.
        policy: what to do.
        steps: of the run.
        places: where a batch is not finite, for messages; None where nobody knows.
        warns: whether this process says what it leaves out.
    """

    def __init__(
        self,
        stream: BatchStream,
        *,
        policy: BadBatchPolicy,
        steps: int,
        places: Places | None = None,
        warns: bool = True,
    ) -> None:
        self._stream = stream
        self._policy: BadBatchPolicy = policy
        self._most = max(FEW_BATCHES, int(LARGEST_SKIPPED_SHARE * steps))
        self._places = places
        self._warns = warns
        self._taken = 0
        self.batch_tokens = stream.batch_tokens
        """Rows of a batch."""
        self.skipped_batches = 0
        """Batches left out so far."""
        self.bad_rows = 0
        """Rows with NaN or Inf in them."""

    @property
    def skipped_rows(self) -> int:
        """Rows of the batches left out so far, finite ones among them."""
        return self.skipped_batches * self.batch_tokens

    def __next__(self) -> Float[Tensor, "token width"]:
        """The next batch that a run may see.

        Raises:
            NonFiniteError: if too many had to be left out.
        """
        if self._policy == "stop":
            return next(self._stream)
        while True:
            batch = next(self._stream)
            self._taken += 1
            bad = int(_bad_rows(batch).sum())
            if not bad:
                return batch
            self.skipped_batches += 1
            self.bad_rows += bad
            self._report()

    def _report(self) -> None:
        """Say which batch was left out, or that it is one too many."""
        places = self.places(self._taken - 1)
        where = "; ".join(f"{site!r} in {place}" for site, place in places.items())
        step = self._taken - self.skipped_batches + 1
        found = f"NaN or Inf before step {step}" + (f" at {where}" if where else "")
        if self.skipped_batches > self._most:
            raise NonFiniteError(
                f"At most {self._most} batches of this run may be left out; got "
                f"{self.skipped_batches} with {self.bad_rows} bad rows, the last one with {found}. "
                "Check the model's numbers, or leave these documents out of the harvest."
            )
        if self._warns:
            warnings.warn(f"Left out a batch: {found}.", stacklevel=3)

    def places(self, number: int) -> Mapping[str, str]:
        """At which sites a batch is not finite, and where in it; nothing where nobody knows.

        Args:
            number: of the batch in the stream, counted from 0; with "stop", that of its step.
        """
        return self._places(number) if self._places else {}

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands, and what was left out."""
        state = self._stream.state_dict()
        if self._policy == "stop":
            return state
        counts = {
            "taken": self._taken,
            "skipped_batches": self.skipped_batches,
            "bad_rows": self.bad_rows,
        }
        return state | counts

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._stream.load_state_dict(state)
        if self._policy == "skip":
            self._taken = state["taken"]
            self.skipped_batches = state["skipped_batches"]
            self.bad_rows = state["bad_rows"]

    def facts(self) -> dict[str, Fact]:
        """What provenance says of it; nothing of a run that leaves nothing out."""
        if self._policy == "stop":
            return {}
        return {
            "skipped_batches": self.skipped_batches,
            "skipped_rows": self.skipped_rows,
            "bad_rows": self.bad_rows,
        }


def places_of(
    source: ActivationSource, stream: ActivationStream, columns: Mapping[Site, slice]
) -> Places:
    """What finds the bad rows of a stream's batches, for `CheckedBatches`.

    Args:
        source: what the stream is of.
        stream: its batches are read again.
        columns: of a row, that each site has.
    """
    return partial(_places, source, stream, columns)


def _places(
    source: ActivationSource, stream: ActivationStream, columns: Mapping[Site, slice], number: int
) -> dict[str, str]:
    batch, rows = stream.again(number)
    found: dict[str, str] = {}
    for site, where in columns.items():
        bad = _bad_rows(batch[:, where]).nonzero()[:, 0]
        if len(bad):
            found[str(site)] = f"{len(bad)} of {len(batch)} tokens"
            if rows is not None:
                found[str(site)] += f", first in {source.place_of(int(rows[bad].min()))}"
    return found


def require_finite(source: ActivationSource, site: Site) -> None:
    """Refuse a source that keeps NaN or Inf at a site.

    Raises:
        NonFiniteError: names the first token of them.
    """
    bad = source.non_finite(site)
    if len(bad):
        raise NonFiniteError(
            f"Activations must be finite; got NaN or Inf at {str(site)!r} in {len(bad)} of "
            f"{source.n_tokens} tokens, first in {source.place_of(int(bad[0]))}. "
            'Check the model\'s numbers, harvest in float32, or pass bad_batches="skip".'
        )


def finite_heldout(
    tokens: Float[Tensor, "token width"], site: Site, policy: BadBatchPolicy
) -> Float[Tensor, "finite width"]:
    """Held-out tokens as a policy lets them be used: all of them, or the finite ones.

    Raises:
        NonFiniteError: if some are not finite and the policy is "stop", or all are not.
    """
    bad = _bad_rows(tokens)
    n_bad = int(bad.sum())
    if not n_bad:
        return tokens
    if policy == "stop" or n_bad == len(tokens):
        raise NonFiniteError(
            f"Held-out activations must be finite; got NaN or Inf at {str(site)!r} in {n_bad} of "
            f"{len(tokens)} tokens. Check the model's numbers, or leave these documents out."
        )
    warnings.warn(f"Left out {n_bad} held-out tokens with NaN or Inf at {site}.", stacklevel=2)
    return tokens[~bad]


def _bad_rows(batch: Float[Tensor, "token width"]) -> Bool[Tensor, " token"]:
    # One number tells in nearly every case, without a mask as large as the batch.
    if batch.sum(dtype=torch.float32).isfinite():
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    return ~batch.isfinite().all(1)
