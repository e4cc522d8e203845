"""Which latents have not fired for so long that they count as dead."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError

LONG_WINDOW_TOKENS = 10_000_000
"""A latent that has been silent for this long is dead (Gao et al. 2024, section 2.4)."""

SHORT_WINDOW_SHARE = 0.1
"""In runs of less than 100 M tokens: silent for this share of the run (ours; with the long
window no latent of a short run would ever count as dead, and AuxK would never act)."""


def window_tokens(run_tokens: int) -> int:
    """Tokens of silence after which a latent of a run of `run_tokens` counts as dead."""
    return max(1, min(LONG_WINDOW_TOKENS, int(SHORT_WINDOW_SHARE * run_tokens)))


class DeadLatents:
    """Counts, for every latent, the tokens since it last fired.

    The counts stay on the device: `record` never waits for it. Only `census`, which returns the
    dead latents as indices, does, and the trainer calls it once in many steps.
    """

    def __init__(self, width: int, window: int, device: torch.device | str = "cpu") -> None:
        if width < 1 or window < 1:
            raise ValueRangeError(
                f"width and window must be at least 1; got {width} and {window}. "
                "Use window_tokens(run_tokens) for the window."
            )
        self.width = width
        self.window = window
        # One more place than latents: the index of everything that must not count.
        self._silence = torch.zeros(width + 1, dtype=torch.int64, device=device)

    @property
    def silence(self) -> Int[Tensor, " latent"]:
        """Tokens since each latent last fired."""
        return self._silence[: self.width]

    @silence.setter
    def silence(self, tokens: Int[Tensor, " latent"]) -> None:
        self._silence[: self.width] = tokens

    def record(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"] | None,
        tokens: int,
    ) -> None:
        """Count one batch.

        A latent that was selected with the value 0 has not fired: peers that count it as fired
        see fewer dead latents than there are.

        Args:
            values: the batch's latent values, [token, latent] or a selection of it.
            indices: the latent of each selected value; None where all were.
            tokens: tokens of this batch over all processes, not only this one: with a count
                per process, revival would come later the more processes there are.
        """
        self._silence += tokens
        if indices is None:
            self.silence.masked_fill_((values != 0).any(0), 0)
        else:
            fired = torch.where(values != 0, indices, self.width)
            self._silence.index_fill_(0, fired.flatten(), 0)

    def dead(self) -> Bool[Tensor, " latent"]:
        """Whether each latent is dead."""
        return self.silence >= self.window

    def census(self) -> Int[Tensor, " dead"]:
        """Indices of the dead latents; this waits for the device."""
        return self.dead().nonzero().squeeze(1)
