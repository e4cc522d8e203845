"""What edits of single activations do to the next block and to the predictions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.progress import Progress, default_progress
from modelassay.evidence.predictions import kl_nats, log_predictions
from modelassay.evidence.windows import Targets, windows
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_RESIDUAL_ROLES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Effects of several edits at each sample's token."""

    kl: Float[Tensor, "sample edit"]
    """KL(clean || edited), summed over the token and the horizon, in nats."""
    change: Float[Tensor, "sample edit"]
    """Change of the next block's output beyond the edit passing through, over the token and the
    horizon, in units of the edit's norm; 0 where there is no next block."""


def edit_effects(
    subject: Subject,
    site: Site,
    targets: Targets,
    edits: Float[Tensor, "edit sample d"],
    progress: Progress | None = None,
) -> Effects:
    """Add each edit to the activation at its sample's token, one at a time, and look behind it.

    Args:
        subject: the model.
        site: where the activation stands.
        targets: the tokens, and how far behind them effects are summed.
        edits: what is added.
        progress: where to report.
    """
    kl = torch.zeros(edits.shape[1], len(edits))
    change = torch.zeros_like(kl)
    last = Site("resid_post", subject.n_layers - 1)
    beyond = next_block(subject, site)
    read = (last,) if beyond in (None, last) else (beyond, last)
    with (progress or default_progress()).task("Read test", total=len(kl), unit="samples") as task:
        for each in windows(subject, site, read, targets):
            log_p = log_predictions(subject, each.clean[last])
            for number, edit in enumerate(edits[:, each.samples].to(log_p.device)):
                edited = each.rerun(edit)
                costs = kl_nats(log_p, log_predictions(subject, edited[last]))
                kl[each.samples, number] = (costs * each.inside).sum(1).cpu()
                if beyond is not None:
                    moved = edited[beyond] - each.clean[beyond]
                    moved[:, 0] -= edit
                    size = (moved * each.inside[..., None]).flatten(1).norm(dim=1)
                    change[each.samples, number] = (size / edit.norm(dim=1)).cpu()
            task.advance(len(each.samples))
    return Effects(kl=kl, change=change)


def next_block(subject: Subject, site: Site) -> Site | None:
    """The first block output after a residual-stream site that some computation stands before."""
    if site.role not in _RESIDUAL_ROLES:
        return None
    # After mlp_out the rest of the block only adds; the next reader is the next block.
    layer = site.layer if site.role in ("resid_pre", "resid_mid") else site.layer + 1
    return Site("resid_post", layer) if layer < subject.n_layers else None
