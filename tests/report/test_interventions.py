"""Pages and pictures of patching and steering: what they show, and what they must not hide."""

from xml.etree import ElementTree

import pytest
import torch

from modelassay.core.provenance import Provenance
from modelassay.observe.attribution_patching import Completeness
from modelassay.observe.patching import Effects
from modelassay.observe.steering_sweep import SteeringSweep
from modelassay.observe.steering_where import ShownTokens
from modelassay.report.intervention_pictures import curves_picture, effect_picture
from modelassay.report.patching import effect_map, patching_report
from modelassay.report.steering import steering_curves, steering_report
from modelassay.subjects.site import Site

_SVG = "{http://www.w3.org/2000/svg}"


def effects(*, scale=1.0, n_pairs=8, method="patching"):
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor([[1.0, 0.0, -0.5], [0.25, 0.1, 1.5]])
    total = 2 + 0.1 * torch.randn(n_pairs, generator=generator)
    return Effects(
        method=method,
        direction="denoising",
        parts=("resid_pre.0", "resid_pre.1"),
        columns=("0 the", "1 </svg>", "2 *"),
        values=scale * share[:, :, None] * total,
        source=scale * total,
        target=torch.zeros(n_pairs),
        groups=torch.arange(n_pairs),
    )


def swept(*, beyond=True):
    generator = torch.Generator().manual_seed(0)
    steered = torch.tensor([[0.1], [0.3], [0.6]]) + 0.01 * torch.rand(3, 6, generator=generator)
    losses = 20 + torch.rand(7, generator=generator)
    return SteeringSweep(
        units="direction",
        site="resid_post.1",
        operation="add",
        behaviour="probability of ' <b>'",
        strengths=(0.0, 2.0, 4.0),
        unsteered=steered[0],
        steered=steered,
        random=torch.tensor([0.0, 0.15 if beyond else 0.65])[:, None, None].expand(2, 3, 6),
        text_unsteered=losses,
        text_steered=losses + torch.tensor([[0.0], [1.0], [30.0]]),
        text_random=losses + torch.zeros(2, 3, 7),
        text_tokens=torch.full((7,), 10),
        prompts=(
            ShownTokens(strings=("<script>", " two"), steered=(True, False), read=(False, True)),
        ),
        seed=0,
    )


def tips_of(picture):
    return [each.text for each in ElementTree.fromstring(picture).iter(f"{_SVG}title")]


def test_every_cell_of_a_heat_map_says_its_share_and_interval():
    tips = tips_of(effect_picture(effect_map(effects())))
    assert len(tips) == 1 + 6
    assert tips[3] == "resid_pre.0 at 2 *: −0.500 [−0.500, −0.500]"
    assert any("1 </svg>" in tip for tip in tips)


def test_shares_for_and_against_have_different_colours():
    picture = ElementTree.fromstring(effect_picture(effect_map(effects())))
    fills = [each.get("fill") for each in picture.iter(f"{_SVG}rect")][1:]
    assert len(fills) == 6
    amber, nothing, blue = (int(fill[1:3], 16) - int(fill[5:7], 16) for fill in fills[:3])
    assert amber > nothing > blue


def test_runs_that_may_not_differ_are_warned_of():
    provenance = Provenance.collect(seed=0)
    warning = "does not exclude 0"
    sure = patching_report("m", effects(), provenance, measure="logit difference")
    few = patching_report("m", effects(n_pairs=3), provenance, measure="logit difference")
    assert warning not in sure.html()
    assert warning in few.html()


def test_the_page_of_patching_shows_estimates_and_what_does_not_add_up():
    check = Completeness(
        site=Site("resid_pre", 0), nodes=128, attributed=torch.tensor([1.0, 2.0]),
        actual=torch.tensor([1.0, 3.0]), complete=torch.tensor([True, False]),
    )  # fmt: skip
    page = patching_report(
        "m", effects(), Provenance.collect(seed=0), measure="logit difference",
        estimates=[effects(method="integrated gradients")], checks=[check], left_out=4,
    )  # fmt: skip
    html = page.html()
    assert "could not be made" not in html
    assert "4 pairs were left out" in html
    assert "<td>50%</td>" in html
    assert "</svg>" in html
    assert "1&#8194;&lt;/svg&gt;" in html or "&lt;/svg&gt;" in html


def test_curves_hold_every_strength_and_every_random_direction():
    picture = curves_picture(steering_curves(swept()))
    tips = tips_of(picture)
    assert sum(tip.startswith("strength 4") for tip in tips) == 2
    grey = [
        p
        for p in ElementTree.fromstring(picture).iter(f"{_SVG}path")
        if p.get("stroke") == "#8f8c84"
    ]
    assert len(grey) == 2 * 2 + 1  # two panels of two directions, and the legend


@pytest.mark.parametrize("beyond", [True, False])
def test_the_page_of_steering_says_whether_it_is_more_than_chance(beyond):
    report = steering_report(
        "m", swept(beyond=beyond), Provenance.collect(seed=0), continuations=[("4", "a <i> b")]
    )
    html = report.html()
    assert ("no more than chance" in html) is not beyond
    assert "<script> two" not in html
    assert "&lt;script&gt;" in html
    assert "a &lt;i&gt; b" in html
    assert 'class="token top" style="--a:0"' in html
    assert 'class="token" style="--a:.35"' in html
