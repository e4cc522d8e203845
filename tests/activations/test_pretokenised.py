import json

import pytest
import torch

from modelassay.activations.corpus import split_of
from modelassay.activations.pretokenised import corpus_from_tokens, read_tokens
from modelassay.core.errors import CorruptFileError, ShapeError, ValueRangeError


def write(path, *lines):
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text))
    return path


def test_lines_become_contexts_with_their_own_split(tmp_path):
    entries = [{"name": f"{a}+1", "tokens": [a, 1, 9], "measured": [2]} for a in range(50)]
    contexts = read_tokens(write(tmp_path / "sums.jsonl", *entries))
    assert contexts.tokens[7].tolist() == [7, 1, 9]
    assert contexts.n_tokens == 50
    assert bool(contexts.measured[:, 2].all())
    splits = [document.split for document in contexts.corpus.documents]
    assert splits == [split_of(f"{a}+1") for a in range(50)]
    assert len(contexts.select("heldout")) == splits.count("heldout") > 0


def test_all_positions_are_measured_by_default(tmp_path):
    contexts = read_tokens(write(tmp_path / "a.jsonl", {"tokens": [1, 2]}, "", {"tokens": [3, 4]}))
    assert contexts.n_tokens == 4


@pytest.mark.parametrize("line", ["[1, 2]", '{"tokens": ["x"]}', '{"token": [1]}', "{"])
def test_a_wrong_line_is_named(tmp_path, line):
    with pytest.raises(CorruptFileError, match="line 2"):
        read_tokens(write(tmp_path / "a.jsonl", {"tokens": [1, 2]}, line))


def test_unequal_lengths_and_positions_outside_are_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"got \[1, 2\]"):
        read_tokens(write(tmp_path / "a.jsonl", {"tokens": [1, 2]}, {"tokens": [1]}))
    with pytest.raises(ValueRangeError, match="0 … 1"):
        read_tokens(write(tmp_path / "b.jsonl", {"tokens": [1, 2], "measured": [2]}))
    with pytest.raises(ShapeError, match="1 names"):
        corpus_from_tokens(torch.zeros(2, 3, dtype=torch.int64), source="x", names=["a"])
