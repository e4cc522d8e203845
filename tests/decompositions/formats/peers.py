"""What the tests of peers' formats share: random weights and slow definitions in float64."""

import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

D, F, K = 6, 24, 3
SITE = Site(role="resid_post", layer=3)


def random_weights(seed=0):
    """W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D] and threshold [F], drawn at random."""
    source = generator(seed)
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    return {
        "W_enc": draw(D, F),
        "b_enc": draw(F),
        "W_dec": draw(F, D),
        "b_dec": draw(D),
        "threshold": draw(F).abs(),
    }


def draw_activations(seed=9, n_tokens=20):
    return torch.randn(n_tokens, D, generator=generator(seed)) * 2 + 1


def slow_encode(w, x, rule, *, subtracts, k=K):
    """Latent values in float64, token by token, latent by latent.

    `rule` is relu, topk, or a threshold [F] or [].
    """
    w = {name: tensor.double() for name, tensor in w.items()}
    rows = []
    for row in x.double():
        seen = row - w["b_dec"] if subtracts else row
        pre = torch.stack([(seen * w["W_enc"][:, i]).sum() + w["b_enc"][i] for i in range(F)])
        if isinstance(rule, torch.Tensor):
            kept = pre > rule.double()
        elif rule == "topk":
            kept = pre >= sorted(pre.tolist())[-k]
        else:
            kept = pre > 0
        rows.append(torch.where(kept & (pre > 0), pre, torch.zeros_like(pre)))
    return torch.stack(rows)


def slow_decode(w, values):
    """Reconstructions in float64."""
    out = [sum(v * w["W_dec"].double()[i] for i, v in enumerate(row)) for row in values]
    return torch.stack(out) + w["b_dec"].double()


def assert_encodes(dictionary, values, x):
    torch.testing.assert_close(dictionary.encode(x).dense(), values.float(), atol=1e-4, rtol=1e-4)


def assert_forward(dictionary, expected, x):
    torch.testing.assert_close(dictionary(x), expected.float(), atol=1e-4, rtol=1e-4)


def dictionary_of(kind, *, subtracts=True, reads=SITE, writes=SITE, seed=3):
    """A dictionary of ours with every weight random."""
    w = random_weights(seed)
    threshold = w.pop("threshold")
    activation = {
        "relu": ReLUActivation(),
        "topk": TopKActivation(K),
        "batchtopk": BatchTopKActivation(K, 0.7),
        "jumprelu": JumpReLUActivation(threshold),
    }[kind]
    return Dictionary(
        **w, activation=activation, apply_b_dec_to_input=subtracts, reads=reads, writes=writes
    )


class Trap:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))
