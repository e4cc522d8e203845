"""A probe of a real model on real agreement prompts."""

import json
from pathlib import Path

from modelassay.core.randomness import generator
from modelassay.observe.probes.behaviour import Choices
from modelassay.observe.probes.causal import causal_test
from modelassay.observe.probes.data import train_test_items
from modelassay.observe.probes.items import items_from_prompts, read_activations
from modelassay.observe.probes.logistic import Logistic
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site

SITE = Site("resid_post", 3)


def test_number_is_read_at_unseen_nouns_and_its_use_is_not_claimed_without_behaviour(
    shared_data: Path,
):
    subject = load_subject(shared_data / "babyllama105")
    lines = (shared_data / "labelled_sva" / "simple_train.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:150]]
    texts = [(row["clean_prefix"], row["case"].startswith("plural")) for row in rows]
    texts += [(row["patch_prefix"], not row["case"].startswith("plural")) for row in rows]
    nouns = ["/".join(sorted((r["clean_prefix"], r["patch_prefix"]))) for r in rows] * 2
    prompts = [subject.tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in texts]
    items = items_from_prompts(
        prompts, [int(plural) for _, plural in texts], groups=nouns, classes=("one", "many")
    )
    data = read_activations(subject, items, [SITE])[SITE]
    train, test = train_test_items(data, generator(0))
    probe = Logistic(l2=0.01).fit(data.take(train), generator(1))
    assert probe.score(data.take(test)).auroc.low > 0.9
    pair = [subject.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (" is", " are")]
    choices = Choices.of([prompts[i] for i in test.tolist()], [tuple(pair)] * len(test))
    found = causal_test(
        subject, SITE, probe.direction(), data.take(train), data.take(test), choices, n_nulls=2
    )
    # Over so few nouns the model's own preference for the verb that agrees is not certain (0.54
    # nats, -0.52 to 1.51): then the number can be read and its use cannot be tested.
    assert found.separation.value > 0
    assert found.separation.low < 0
    assert found.used == "no behaviour"
