"""How well the map of one depth reads another: the layer-transfer matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import TooFewTokensError
from modelassay.observe.lenses.jacobian import JacobianLens
from modelassay.observe.lenses.measures import Final, measure
from modelassay.observe.lenses.quality import with_successor
from modelassay.observe.lenses.streams import read_streams
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.subjects.subject import Subject


@torch.no_grad()
def layer_transfer(
    subject: Subject,
    lens: TunedLens | JacobianLens,
    contexts: TokenizedCorpus,
    *,
    batch_contexts: int = 8,
) -> Float[Tensor, "made read"]:
    """Mean KL(final || lens) in nats when the map made for one depth reads another.

    Entry ``[l, m]`` applies the map of depth l to the stream at depth m; the diagonal is the lens
    as it is meant. Depths whose representations are alike read each other well.

    Args:
        subject: the model.
        lens: fitted to it.
        contexts: of documents that the lens was not fitted to.
        batch_contexts: contexts that the model reads at a time.

    Raises:
        TooFewTokensError: no token has a successor.
        ProvenanceError: a lens of another model.

    Reference: Belrose et al. 2023, section 3.2 (transfer penalties).
    """
    lens.check(subject)
    n_maps = lens.n_layers
    sums = torch.zeros(n_maps, n_maps, dtype=torch.float64)
    n_tokens = 0
    for rows in torch.arange(len(contexts)).split(batch_contexts):
        batch = contexts[rows]
        usable = with_successor(batch)
        streams = read_streams(
            subject, batch.tokens, None if bool(batch.mask.all()) else batch.mask
        )
        targets = batch.tokens.roll(-1, 1)[usable].to(streams.logits.device)
        usable = usable.to(streams.logits.device)
        final = Final.of(streams.logits[usable], 1)
        n_tokens += len(targets)
        for read in range(n_maps):
            resid = streams.resid[read][usable]
            for made in range(n_maps):
                logits = subject.logits_of(lens.translate(resid, made))
                sums[made, read] += float(measure(logits, final, targets).kl.double().sum())
    if not n_tokens:
        raise TooFewTokensError(
            f"A lens is measured on tokens that have a successor; got none in {len(contexts)} "
            "contexts. Add text, or lengthen the contexts."
        )
    return (sums / n_tokens).float()
