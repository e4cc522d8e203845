import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from modelassay.core.errors import ModelassayError, UnknownNameError, near_misses
from modelassay.core.progress import SILENT, BarProgress
from modelassay.core.provenance import Provenance, hash_tensors
from modelassay.core.randomness import derived, generator
from modelassay.core.references import REFERENCES, bibliography


def test_provenance_round_trip():
    made = Provenance.collect(seed=3, subject="tiny", tokens=10)
    assert Provenance.from_json(made.as_json()) == made
    assert made.versions["torch"] == torch.__version__.split("+")[0] or made.versions["torch"]
    assert made.facts == {"subject": "tiny", "tokens": 10}


@given(st.integers(0, 4), st.integers(0, 2))
def test_hash_changes_with_any_value_and_ignores_order(row, column):
    tensors = {"b": torch.zeros(5, 3), "a": torch.ones(2)}
    base = hash_tensors(tensors)
    assert hash_tensors(dict(reversed(tensors.items()))) == base
    tensors["b"][row, column] = 1e-30
    assert hash_tensors(tensors) != base


def test_hash_tells_shapes_and_dtypes_apart():
    zeros = torch.zeros(6)
    hashes = {hash_tensors({"a": t}) for t in (zeros, zeros.view(2, 3), zeros.view(torch.int32))}
    assert len(hashes) == 3


def test_hash_sees_views_as_their_values():
    base = torch.arange(6.0).view(2, 3)
    assert hash_tensors({"a": base.T}) == hash_tensors({"a": base.T.contiguous()})


def test_derived_generators_differ_by_word_and_repeat_by_seed():
    def draw(*words):
        return torch.rand(4, generator=derived(0, *words))

    assert torch.equal(draw("a", 1), draw("a", 1))
    assert not torch.equal(draw("a", 1), draw("a", 2))
    assert not torch.equal(draw("a"), torch.rand(4, generator=derived(1, "a")))
    assert torch.equal(torch.rand(3, generator=generator(5)), torch.rand(3, generator=generator(5)))


def test_bibliography_prints_each_key_once_sorted():
    text = bibliography(["lee2024", "gao2024", "gao2024"])
    assert text.count("@misc{gao2024") == 1
    assert text.index("gao2024") < text.index("lee2024")


def test_unknown_reference_suggests():
    with pytest.raises(UnknownNameError, match="Did you mean 'gao2024'"):
        bibliography(["gao2023"])


def test_every_reference_is_complete():
    for key, reference in REFERENCES.items():
        assert key == reference.key
        assert reference.url.startswith("https://")
        assert 1900 < reference.year <= 2026
        assert reference.bibtex.count("{") == reference.bibtex.count("}")


def test_near_misses_and_the_error_tree():
    assert near_misses("resid_pots", ["resid_post", "mlp_out"]) == ["resid_post"]
    error = UnknownNameError("A site", "resid_pots.1", ["resid_post.1"])
    assert isinstance(error, KeyError)
    assert isinstance(error, ModelassayError)
    assert str(error).startswith("A site must be one of: resid_post.1; got 'resid_pots.1'.")


def test_of_many_names_only_the_closest_are_listed():
    message = str(UnknownNameError("A site", "b17", [f"a{i}" for i in range(100)]))
    assert "a17" in message
    assert "a99" not in message
    assert "…" in message


def test_progress_bars_show_numbers(capsys):
    with BarProgress(Console(width=120)).task("Fitting", total=4, unit="steps") as task:
        task.advance(4, loss=0.25)
    assert "Fitting" in (shown := capsys.readouterr().out)
    assert "loss 0.25" in shown


def test_silent_progress_shows_nothing(capsys):
    with SILENT.task("Fitting", total=4, unit="steps") as task:
        task.advance(1, loss=1.0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
