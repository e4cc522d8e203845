"""General modules: ports by path, in-place activations, tuples, reused modules."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import UnknownNameError, UnsupportedModelError, ValueRangeError
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import tiny_subject


class Fire(nn.Module):
    """A SqueezeNet-like part: branches, and activations in place."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.relu = nn.Conv2d(4, 3, 1), nn.ReLU(inplace=True)
        self.expand1x1, self.expand3x3 = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x).relu_(), self.expand3x3(x).relu_()], 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), Fire())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        return load_subject(Net())


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_ports_are_listed_resolved_and_read(net, images):
    site = net.resolve("features.2.expand1x1:out")
    assert site in net.sites()
    run = net.run(images, read=[site, Site.parse("features.2:in")])
    assert run.logits.shape == (2, 5)
    assert run.activations[site].shape == (2, 4, 6, 6)
    assert net.width(site) == 4
    torch.testing.assert_close(run.logits, net.module(images))


def test_a_read_is_what_the_module_returned_and_not_what_was_written_into_it(net, images):
    conv, relu = Site.parse("features.0:out"), Site.parse("features.1:out")
    read = net.run(images, read=[conv, relu]).activations
    torch.testing.assert_close(read[conv], net.module.features[0](images))
    assert read[conv].min() < 0
    torch.testing.assert_close(read[relu], read[conv].relu())
    graph = net.run(images, read=[conv], gradients=True)
    torch.testing.assert_close(graph.activations[conv], read[conv])
    (gradient,) = torch.autograd.grad(graph.logits.sum(), graph.activations[conv])
    assert gradient.abs().max() > 0


def test_an_edit_equals_the_forward_pass_by_hand(net, images):
    site = Site.parse("features.2.squeeze:out")
    mine = torch.ones(2, 3, 6, 6)
    run = net.run(images, edit={site: lambda _: mine})
    fire = net.module.features[2]
    by_hand = torch.cat([fire.expand1x1(mine).relu(), fire.expand3x3(mine).relu()], 1)
    torch.testing.assert_close(run.logits, net.module.head(by_hand.mean((2, 3))))
    assert torch.equal(mine, torch.ones_like(mine))


def test_the_input_can_be_optimised_and_is_not_marked(net, images):
    run = net.run(images, read=[Site.parse("features.0:in")], gradients=True)
    seen = run.activations[Site.parse("features.0:in")]
    (gradient,) = torch.autograd.grad(run.logits[:, 0].sum(), seen)
    assert gradient.shape == images.shape
    assert not images.requires_grad


def test_until_and_downstream_work_at_ports(net, images):
    site = Site.parse("features.2.expand3x3:out")
    stopped = net.run(images, read=[site], until=site)
    assert stopped.logits is None
    rest = net.downstream(site, images)
    assert torch.equal(rest.activation, stopped.activations[site])
    torch.testing.assert_close(rest(rest.activation).logits, net.run(images).logits)


def test_the_first_tensor_of_a_tuple_is_read_and_edited():
    subject = load_subject(nn.Sequential(nn.LSTM(3, 4), Last()))
    site, x = subject.resolve("0:out"), torch.zeros(5, 2, 3)
    run = subject.run(x, read=[site], edit={site: torch.ones_like})
    assert torch.equal(run.activations[site], torch.ones(5, 2, 4))
    assert torch.equal(run.logits, torch.ones(2, 4))


class Last(nn.Module):
    def forward(self, output):
        sequence, (_, _) = output
        return sequence[-1]


def test_a_module_that_runs_twice_names_no_tensor():
    relu = nn.ReLU()
    subject = load_subject(nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu))
    site = Site.parse("1:out")
    with pytest.raises(ValueRangeError, match="runs more than once"):
        subject.run(torch.zeros(1, 2), read=[site])
    with pytest.raises(ValueRangeError, match="runs more than once"):
        subject.run(torch.zeros(1, 2), edit={site: lambda value: value})


def test_a_module_that_does_not_run_is_out_of_reach():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    subject = load_subject(Lazy())
    for options in (
        {"read": [Site.parse("unused:out")]},
        {"edit": {Site.parse("unused:out"): lambda value: value}},
        {"until": Site.parse("unused:out")},
    ):
        with pytest.raises(ValueRangeError, match="out of reach: unused:out"):
            subject.run(torch.zeros(1, 2), **options)


def test_what_needs_a_language_model_says_so(net, images):
    for wanted in (
        lambda: net.resolve("resid_post.0"),
        lambda: net.logits_of(torch.zeros(1, 2)),
        net.unembedding,
    ):
        with pytest.raises(UnsupportedModelError, match="needs a language model"):
            wanted()
    with pytest.raises(UnknownNameError, match=r"Did you mean 'features\.2\.expand1x1'"):
        net.resolve("features.2.expand1:out")
    with pytest.raises(ValueRangeError, match=r"Call run\(inputs, read=\[site\]\) once"):
        net.width("features.0:out")
    with pytest.raises(ValueRangeError, match="takes an attention mask"):
        net.run(images, mask=torch.tensor([[True, True, False], [True, True, True]]))


def test_a_mask_without_padding_needs_no_masking(net, images):
    run = net.run(images, mask=torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(run.logits, net.run(images).logits)


def test_ports_inside_a_language_model_use_the_prefix_too():
    subject = tiny_subject("llama")
    tokens = torch.arange(6).view(1, 6)
    inside = subject.resolve("model.layers.1.mlp.up_proj:out")
    rest = subject.downstream(inside, tokens)
    assert rest.rest.keywords["prefix"][0] == 1
    torch.testing.assert_close(rest(rest.activation).logits, subject.run(tokens).logits)
    norm = subject.resolve("model.norm:out")
    read = rest(rest.activation, read=[norm]).activations[norm]
    torch.testing.assert_close(read, subject.run(tokens, read=[norm]).activations[norm])
    with pytest.raises(ValueRangeError, match="block 1 or later"):
        rest(rest.activation, read=[subject.resolve("model.layers.0:out")])
