from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from modelassay.subjects.hooks import (
    Flags,
    Port,
    Stop,
    first_tensor,
    skipping,
    visit_tensor,
    visiting,
)

Pair = namedtuple("Pair", "left right")
ONE, TWO = torch.ones(2), torch.full((2,), 2.0)


def double(value):
    return 2 * value


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ONE, TWO),
        ((ONE, None), (TWO, None)),
        ((None, ONE), (None, TWO)),
        ([ONE, 7], [TWO, 7]),
        (Pair(ONE, 5), Pair(TWO, 5)),
        ({"a": None, "b": ONE}, {"a": None, "b": TWO}),
        (OrderedDict(a=ONE, b=ONE), OrderedDict(a=TWO, b=ONE)),
        ((), ()),
        ((3, None), (3, None)),
    ],
)
def test_only_the_first_tensor_is_visited_and_the_container_stays(values, expected):
    changed = visit_tensor(values, double)
    assert type(changed) is type(expected)
    torch.testing.assert_close(changed, expected)
    assert first_tensor(values) is None or torch.equal(first_tensor(values), ONE)


def test_a_later_item_can_be_named():
    torch.testing.assert_close(visit_tensor((ONE, ONE), double, item=1), (ONE, TWO))


def test_a_visitor_that_changes_nothing_leaves_the_very_object():
    values = (ONE, None)
    assert visit_tensor(values, lambda value: value) is values


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def hooks_of(module):
    return [
        (path, len(part._forward_hooks), len(part._forward_pre_hooks), "forward" in vars(part))
        for path, part in module.named_modules()
    ]


def test_visitors_of_one_port_act_in_order_and_before_hooks_of_others(model):
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append("theirs"))
    visitors = [
        (Port("0", "out"), lambda value, name=name: (seen.append(name), value)[1])
        for name in ("first", "second")
    ]
    with visiting(dict(model.named_modules()), visitors):
        model(torch.zeros(1, 2))
    assert seen == ["first", "second", "theirs"]


def test_hooks_are_gone_when_a_visitor_raises(model):
    before = hooks_of(model)

    def fail(_value):
        raise ZeroDivisionError

    parts = dict(model.named_modules())
    visitors = [(Port("0", "in"), double), (Port("1", "softmax"), double), (Port("1", "in"), fail)]
    with pytest.raises(ZeroDivisionError), visiting(parts, visitors):
        model(torch.zeros(1, 2))
    assert hooks_of(model) == before
    assert torch._C._len_torch_function_stack() == 0


def test_hooks_are_gone_when_a_module_is_missing(model):
    before = hooks_of(model)
    visitors = [(Port("nowhere", "in"), double), (Port("0", "in"), double)]
    with pytest.raises(KeyError), visiting(dict(model.named_modules()), visitors):
        pass
    assert hooks_of(model) == before


def test_keyword_arguments_are_visited():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(2, 2)

        def forward(self, x):
            return self.part(input=x)

    model, x = Model(), torch.ones(1, 2)
    with visiting(dict(model.named_modules()), [(Port("part", "in"), double)]):
        changed = model(x)
    torch.testing.assert_close(changed, model.part(2 * x))


def test_softmax_is_visited_in_its_module_only():
    class Attention(nn.Module):
        def forward(self, x):
            return functional.softmax(x, -1), x.softmax(-1), torch.softmax(x, -1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Attention()

        def forward(self, x):
            return (*self.part(x), x.softmax(-1))

    x = torch.ones(1, 2)
    model = Model()
    with visiting(dict(model.named_modules()), [(Port("part", "softmax"), double)]):
        *inside, outside = model(x)
    for value in inside:
        torch.testing.assert_close(value, torch.ones(1, 2))
    torch.testing.assert_close(outside, torch.full((1, 2), 0.5))


def test_stop_passes_through_a_model_that_catches_exceptions():
    def stop(_value):
        raise Stop

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Identity()

        def forward(self, x):
            try:
                return self.part(x)
            except Exception:  # noqa: BLE001  that is the model's fault, and must not matter
                return None

    model = Model()
    with pytest.raises(Stop), visiting(dict(model.named_modules()), [(Port("part", "in"), stop)]):
        model(torch.zeros(1))


def test_skipped_blocks_return_the_result_and_get_their_own_forward_back(model):
    def own_forward(x):
        return x + 1

    def fail_while_skipping():
        with skipping(list(model), TWO):
            assert torch.equal(model(torch.zeros(1, 2)), TWO)
            raise ZeroDivisionError

    model[1].forward = own_forward
    with pytest.raises(ZeroDivisionError):
        fail_while_skipping()
    assert "forward" not in vars(model[0])
    assert model[1].forward is own_forward


def test_flags_are_restored_one_by_one(model):
    def fail_while_evaluating():
        with Flags.of(model).evaluating():
            assert not any(part.training for part in model.modules())
            raise ZeroDivisionError

    model.train()
    model[0].eval()
    with pytest.raises(ZeroDivisionError):
        fail_while_evaluating()
    assert (model.training, model[0].training, model[1].training) == (True, False, True)
