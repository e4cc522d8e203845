"""Audit the grokked modular-addition transformer, whose features are known, and look for them.

    python -m benchmarks.modular_addition ../shared/data/modadd113 --out out/modular_addition

The network adds modulo 113 with six frequencies (Nanda et al. 2023): at its last position the
residual stream holds cos and sin of 2 pi k (a + b) / 113 for k in 1, 8, 15, 18, 36, 56. So every
latent can be held against the truth: how much of its variance is a function of a + b, and how much
of that lies at the six frequencies.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from modelassay.activations.harvest import harvest
from modelassay.activations.pretokenised import corpus_from_tokens
from modelassay.audit.assay import audit
from modelassay.core.files import prepare_output, write_json
from modelassay.core.progress import BarProgress
from modelassay.decompositions.recipes import TopK
from modelassay.fitting.fit import fit
from modelassay.report.report import report
from modelassay.subjects.hooked_transformer import load_modular_addition

PRIME = 113
KEY_FREQUENCIES = (1, 8, 15, 18, 36, 56)


def sum_spectrum(values: Tensor) -> tuple[Tensor, Tensor]:
    """What of each latent depends on a + b only, and where in frequency.

    Args:
        values: [prime * prime, latent] values of all pairs, in the order a, b.

    Returns:
        The share of each latent's variance that is a function of (a + b) mod p, and that
        function's power per frequency 1 … (p - 1) / 2, [latent, frequency], summing to 1.
    """
    table = values.double().T.reshape(-1, PRIME, PRIME)
    a = torch.arange(PRIME)
    # Row c of the re-ordered table: all pairs with a + b = c.
    by_sum = table[:, a[None, :], (a[:, None] - a[None, :]) % PRIME]
    means = by_sum.mean(2)
    share = means.var(1, correction=0) / table.flatten(1).var(1, correction=0)
    power = torch.fft.rfft(means - means.mean(1, keepdim=True)).abs().square()[:, 1:]
    return share, power / power.sum(1, keepdim=True)


def main() -> None:
    """Fit, audit, compare with the truth; write the report and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", default="resid_post.0")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("out/modular_addition"))
    options = parser.parse_args()
    prepare_output(options.out, force=True)
    subject = load_modular_addition(options.folder)
    a, b = torch.meshgrid(torch.arange(PRIME), torch.arange(PRIME), indexing="ij")
    tokens = torch.stack([a.flatten(), b.flatten(), torch.full((PRIME**2,), PRIME)], dim=1)
    measured = torch.zeros_like(tokens, dtype=torch.bool)
    measured[:, 2] = True
    corpus = corpus_from_tokens(
        tokens,
        source="all pairs of modular addition",
        measured=measured,
        names=[f"{x}+{y}" for x, y, _ in tokens.tolist()],
        heldout_share=0.3,
    )
    progress = BarProgress()
    activations = harvest(subject, corpus, options.site, batch_contexts=512, progress=progress)
    dictionary = fit(
        TopK(width=options.width, k=options.k), activations, tokens=1_000_000,
        batch_tokens=1024, seed=0, progress=progress,
    )  # fmt: skip
    assert not isinstance(dictionary, list)
    result = audit(subject, dictionary, activations, seed=0, progress=progress)
    result.save(options.out)
    report(result).write(options.out / "report.html", force=True)
    codes = dictionary.encode(activations.activations()).dense()
    share, power = sum_spectrum(codes)
    at_keys = power[:, [k - 1 for k in KEY_FREQUENCIES]].sum(1)
    alive = codes.abs().sum(0) > 0
    comparison = {
        "verdicts": result.shares(),
        "alive": int(alive.sum()),
        "median share of variance that is a function of a + b": float(share[alive].median()),
        "median power at the six key frequencies": float(at_keys[alive].median()),
        "chance power at six of 56 frequencies": 6 / 56,
        "dominant frequencies": Counter((power[alive].argmax(1) + 1).tolist()).most_common(10),
        "by verdict": {
            verdict: {
                "latents": len(rows := [i for i, v in enumerate(result.verdicts) if v == verdict]),
                "median share of a + b": float(share[rows].nanmedian()) if rows else None,
                "median power at keys": float(at_keys[rows].nanmedian()) if rows else None,
            }
            for verdict in result.shares()
        },
    }
    write_json(options.out / "comparison.json", comparison)
    print(json.dumps(comparison, indent=1))


if __name__ == "__main__":
    main()
