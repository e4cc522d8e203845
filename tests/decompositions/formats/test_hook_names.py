"""Hook names and sites."""

import pytest

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.formats.hook_names import hook_of_site, site_of_hook
from modelassay.subjects.site import Site

PAIRS = {
    "blocks.3.hook_resid_pre": "resid_pre.3",
    "blocks.3.hook_resid_mid": "resid_mid.3",
    "blocks.11.hook_resid_post": "resid_post.11",
    "blocks.0.hook_attn_out": "attn_out.0",
    "blocks.0.hook_mlp_out": "mlp_out.0",
    "blocks.7.mlp.hook_post": "mlp_hidden.7",
}


@pytest.mark.parametrize(("hook", "site"), PAIRS.items())
def test_names_translate_both_ways(hook, site):
    assert site_of_hook(hook) == Site.parse(site)
    assert hook_of_site(Site.parse(site)) == hook


@pytest.mark.parametrize(
    "name",
    ["", "blocks.3", "blocks.x.hook_mlp_out", "block.3.hook_mlp_out", "blocks.3.hook_mlp_in",
     "blocks.3.attn.hook_z", "blocks.-1.hook_mlp_out", "hook_embed", "model.layers.3"],
)  # fmt: skip
def test_other_names_are_refused_with_a_way_out(name):
    with pytest.raises(ValueRangeError, match=r"Pass site= to say where"):
        site_of_hook(name)


@pytest.mark.parametrize("site", ["mlp_in.3", "head_out.3", "features.4:out"])
def test_sites_without_a_hook_are_refused(site):
    with pytest.raises(ValueRangeError, match=f"got '{site}'"):
        hook_of_site(Site.parse(site))
