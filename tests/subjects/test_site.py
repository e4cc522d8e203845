import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.subjects.site import ROLES, Site

role_sites = st.builds(Site, st.sampled_from(ROLES), st.integers(0, 200))
names = st.text(st.characters(categories=["L", "N"], include_characters="_-"), min_size=1)
paths = st.lists(names, min_size=1, max_size=4).map(".".join)
port_sites = st.builds(Site, st.just("module"), st.just(-1), paths, st.sampled_from(["in", "out"]))
sites = role_sites | port_sites


@given(sites)
def test_a_printed_site_parses_to_itself(site):
    assert Site.parse(str(site)) == site


def test_the_printed_forms():
    assert str(Site("resid_post", 3)) == "resid_post.3"
    assert str(Site("module", path="features.4.expand1x1")) == "features.4.expand1x1:out"
    assert Site.parse("a.b:in") == Site("module", path="a.b", port="in")


@given(st.lists(sites, unique=True))
def test_sites_sort_by_layer_then_by_computation(some):
    ordered = [site for site in sorted(some) if not site.is_module_port]
    keys = [(site.layer, ROLES.index(site.role)) for site in ordered]
    assert keys == sorted(keys)


def test_a_block_is_sorted_from_its_input_to_its_output():
    block = sorted(Site(role, 1) for role in ROLES)
    assert block[0] == Site("resid_pre", 1)
    assert block[-1] == Site("resid_post", 1)
    assert Site("resid_post", 0) < block[0]


@given(sites)
def test_equal_sites_are_one_key(site):
    assert len({site: 0, Site.parse(str(site)): 1}) == 1


def test_a_misspelt_role_suggests_its_neighbours():
    with pytest.raises(UnknownNameError, match=r"got 'resid_pots'. Did you mean 'resid_post'"):
        Site.parse("resid_pots.3")


@pytest.mark.parametrize("text", ["resid_post", "resid_post.", "resid_post.-1", "resid_post.²", ""])
def test_a_site_without_a_layer_is_refused_with_the_form_to_write(text):
    with pytest.raises(ValueRangeError, match=r"must read 'role.layer' or 'path.of.module:port'"):
        Site.parse(text)


def test_an_unknown_port_is_refused():
    with pytest.raises(UnknownNameError, match=r"got 'output'\. Did you mean 'out'"):
        Site.parse("features.4:output")


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "resid_post"},
        {"role": "resid_post", "layer": 1, "path": "x"},
        {"role": "resid_post", "layer": 1, "port": "in"},
        {"role": "module"},
        {"role": "module", "path": "x", "layer": 0},
    ],
)
def test_a_site_is_a_role_or_a_port_and_never_both(fields):
    with pytest.raises(ValueRangeError, match="must have"):
        Site(**fields)
