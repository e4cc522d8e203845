import pytest
import torch
from torch import nn

from modelassay.core.randomness import generator
from modelassay.evidence.suffix import continuing, keys_and_values, takes_keys_and_values
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import FAMILIES, tiny_subject
from tests.evidence.planted import tiny_llama

LAST = Site("resid_post", 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_on_from_kept_tokens_as_if_it_had_read_them(family: str):
    subject = tiny_subject(family)
    assert takes_keys_and_values(subject)
    tokens = torch.randint(3, 60, (3, 20), generator=generator(0))
    whole = subject.run(tokens, read=[LAST]).activations[LAST]
    kept = keys_and_values(subject, tokens)
    for start in (0, 1, 13, 19):
        with continuing(subject, [(k[:, :, :start], v[:, :, :start]) for k, v in kept]):
            suffix = subject.run(tokens[:, start:], read=[LAST]).activations[LAST]
        torch.testing.assert_close(suffix, whole[:, start:], rtol=1e-3, atol=1e-4)


def test_nothing_stays_behind(subject: Subject):
    tokens = torch.randint(1, 23, (2, 9), generator=generator(0))
    before = subject.run(tokens).logits
    past = [(k[:, :, :4], v[:, :, :4]) for k, v in keys_and_values(subject, tokens)]
    with pytest.raises(KeyError, match="stop here"), continuing(subject, past):
        raise KeyError("stop here")
    after = subject.run(tokens).logits
    assert before is not None
    assert after is not None
    assert (before == after).all()
    assert past[0][0].shape[2] == 4  # and what was kept did not grow


def test_a_model_that_looks_ahead_or_takes_no_cache_is_left_alone():
    class Forgetful(nn.Module):
        """A Llama whose interface knows no cache."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_llama(norms=True)

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids).logits

    assert not takes_keys_and_values(load_subject(Forgetful(), roles=False))
