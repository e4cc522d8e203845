"""One name for dictionaries of all formats, and every way from one to another."""

import pytest
import torch

from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError
from modelassay.decompositions.formats.registry import (
    READERS,
    WRITERS,
    read_dictionary,
    write_dictionary,
)
from modelassay.decompositions.linear import PCA
from tests.decompositions.formats.peers import D, F, dictionary_of, draw_activations

KINDS = {
    "modelassay": ["relu", "topk", "batchtopk", "jumprelu"],
    "saelens": ["relu", "topk", "batchtopk", "jumprelu"],
    "dictionary_learning": ["relu", "topk", "batchtopk", "jumprelu"],
    "sparsify": ["topk"],
}


def test_the_formats_of_this_table_are_all_that_are_written():
    assert tuple(KINDS) == WRITERS
    assert set(WRITERS) <= set(READERS)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (first, second, kind)
        for first, kinds in KINDS.items()
        for second in KINDS
        for kind in kinds
        if kind in KINDS[second]
    ],
)
def test_the_forward_pass_survives_two_conversions(first, second, kind, tmp_path):
    before = dictionary_of(kind)
    write_dictionary(before, tmp_path / "layers.3", to=first)
    middle = read_dictionary(f"{first}:{tmp_path / 'layers.3'}")
    if kind == "batchtopk" and first == "saelens":
        assert middle.activation.kind == "jumprelu"  # as SAELens itself exports it
    write_dictionary(middle, tmp_path / "second" / "layers.3", to=second)
    after = read_dictionary(f"{second}:{tmp_path / 'second' / 'layers.3'}")
    x = draw_activations()
    torch.testing.assert_close(after(x), before(x), atol=1e-4, rtol=1e-4)
    assert after.reads == before.reads


def test_without_a_prefix_it_is_one_of_our_own_folders(tmp_path):
    folder = tmp_path / "odd:name"
    dictionary_of("topk").save(folder)
    assert read_dictionary(str(folder)).width == F
    with pytest.raises(CorruptFileError, match=r"must hold config\.json"):
        read_dictionary(str(tmp_path / "nothing"))


def test_an_unknown_prefix_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"got 'saelense'\. Did you mean 'saelens'"):
        read_dictionary("saelense:somewhere")


def test_an_unknown_format_to_write_suggests_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'sparsify'"):
        write_dictionary(dictionary_of("topk"), tmp_path, to="sparsfy")


def test_what_is_no_dictionary_has_only_our_own_form(tmp_path):
    pca = PCA(torch.zeros(D), torch.eye(D), torch.ones(D), k=2, site=None)
    with pytest.raises(ValueRangeError, match=r"Only dictionaries have a form in saelens"):
        write_dictionary(pca, tmp_path, to="saelens")
    write_dictionary(pca, tmp_path, to="modelassay")
    assert read_dictionary(f"modelassay:{tmp_path}").d_in == D
