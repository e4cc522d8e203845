"""What the written share reads for latents that are nothing but token lookups.

    python -m benchmarks.lookup_floor

Each synthetic latent fires with a fixed value wherever the last one, two or three tokens lie in a
random set, so that all of its variance is given by the tokens. What `written` still reports is the
price of n-grams that the fit documents hold too rarely: the floor under the verdict's threshold.
"""

import torch
from torch import Tensor

from modelassay.activations.harvest import Harvest, harvest
from modelassay.audit.run import AuditConfig, contexts_of
from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.evidence.written import written
from modelassay.subjects.load import load_subject

LATENTS = 200
RATE = (
    0.02  # share of n-grams in each latent's set: about the firing rate of a TopK of k/width 1/64
)


def keys(part: Harvest, n: int) -> Tensor:
    """A number for the last n tokens at every row."""
    context, position = part.rows.unbind(1)
    key = torch.zeros_like(context)
    for back in range(n):
        key = key * 4096 + part.contexts.tokens[context, (position - back).clamp(min=0)]
    return key


def lookup_codes(part: Harvest, n: int, seed: int) -> Codes:
    """Latents that fire where a hash of the last n tokens says so, and with a value of theirs."""
    key = keys(part, n)
    hashed = torch.empty(len(key), LATENTS)
    for latent in range(LATENTS):
        # A multiplicative hash: the same n-gram gives the same draw in every part.
        mixed = (key * 2654435761 + (latent + seed) * 40503) % 1_000_003
        hashed[:, latent] = ((mixed * 48271) % 65_521) / 65_521
    return Codes.from_dense(torch.where(hashed < RATE, 0.5 + hashed / RATE, 0.0))


def main() -> None:
    """Print the quantiles of the written share for lookups of one, two and three tokens."""
    subject = load_subject("bundled")
    contexts = contexts_of(AuditConfig(), subject)
    everything = harvest(subject, contexts, "resid_pre.0", progress=SILENT)
    fit, heldout = everything.select("fit"), everything.select("heldout")
    print("| lookup of | latents measured | median | 90 % | 95 % |\n|---|---|---|---|---|")
    for n in (1, 2, 3):
        evidence = written(
            lookup_codes(fit, n, seed=n), fit, lookup_codes(heldout, n, seed=n), heldout,
            generator=derived(0, "floor", n),
        )  # fmt: skip
        value = evidence.value[~evidence.value.isnan()]
        numbers = " | ".join(f"{float(value.quantile(q)):.3f}" for q in (0.5, 0.9, 0.95))
        print(f"| {n} token{'s' * (n > 1)} | {len(value)} | {numbers} |")


if __name__ == "__main__":
    main()
