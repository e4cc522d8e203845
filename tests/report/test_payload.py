import base64
import json
import zlib
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.audit.result import Audit
from modelassay.report.pack import Pack
from modelassay.report.payload import catalogue_payload, embeddable, scatter_payload
from modelassay.report.sections.latents import catalogue
from modelassay.report.sections.variance import scatter


@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=()))))
def test_json_cannot_leave_its_element_and_comes_back(content: dict[str, str]) -> None:
    text = embeddable(content)
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert json.loads(text) == content


def unpacked(content: Any, raw: bytes) -> Any:
    """The payload as the page's script sees it, in numpy."""
    if isinstance(content, dict):
        return {key: unpacked(value, raw) for key, value in content.items()}
    if isinstance(content, list | tuple):
        if len(content) == 3 and isinstance(content[2], str) and isinstance(content[0], int):
            offset, length, kind = content
            return np.frombuffer(raw, dtype=f"<{kind}", count=length, offset=offset)
        return [unpacked(value, raw) for value in content]
    return content


def payload_of(audit: Audit) -> dict[str, Any]:
    pack = Pack()
    content = catalogue_payload(catalogue(audit), pack)
    return unpacked(content, zlib.decompress(base64.b64decode(pack.base64())))


def test_verdicts_answers_and_reasons_come_back(audit: Audit) -> None:
    payload = payload_of(audit)
    keys = [c["key"] for c in payload["classes"]]
    assert tuple(keys[v] for v in payload["verdicts"]) == audit.verdicts
    assert tuple(payload["reasons"][r] for r in payload["reason"]) == audit.reasons
    for question in payload["questions"]:
        answers = tuple(payload["answerKeys"][a] for a in question["answers"])
        assert answers == audit.answers[question["key"]]


def test_every_question_knows_its_evidence_the_deciding_one_first(audit: Audit) -> None:
    names = {q["key"]: q["evidence"] for q in payload_of(audit)["questions"]}
    assert names == {
        "written": ["written"],
        "read": ["read", "read_next_layer"],
        "learned": ["null_twin_match"],
        "stable": ["stable"],
    }


def test_numbers_come_back_in_single_precision(audit: Audit) -> None:
    columns = {c["name"]: c for c in payload_of(audit)["columns"]}
    for source in audit.latent_evidence:
        column = columns[source.name]
        for key in ("value", "low", "high", "null", "n"):
            np.testing.assert_array_equal(column[key], getattr(source, key).numpy())
    np.testing.assert_array_equal(columns["read"]["q"], audit.evidence("read").q_value.numpy())
    assert columns["written"]["p"] is None


def shown_examples(audit: Audit, latent: int) -> list[tuple[Any, ...]]:
    """By the definition in `Examples`: group, document, strings, dense values, peak."""
    source = audit.details.examples
    found = []
    for e in range(len(source.latents)):
        if int(source.latents[e]) != latent:
            continue
        context, start, length = (
            int(t[e]) for t in (source.contexts, source.starts, source.lengths)
        )
        strings = [
            audit.vocabulary[i] for i in source.tokens[context, start : start + length].tolist()
        ]
        values = torch.zeros(length)
        for v in range(int(source.value_starts[e]), int(source.value_starts[e + 1])):
            values[source.offsets[v]] = source.values[v]
        found.append(
            (
                int(source.groups[e]),
                source.documents[context],
                strings,
                values,
                int(source.peaks[e]),
            )
        )
    return sorted(found, key=lambda example: example[0])


def test_examples_come_back_by_latent_with_their_tokens_and_values(audit: Audit) -> None:
    payload = payload_of(audit)
    stored = payload["details"]["examples"]
    first_example = np.concatenate([[0], np.cumsum(stored["perLatent"].astype(int))])
    first_value = np.concatenate([[0], np.cumsum(stored["perExample"].astype(int))])
    for latent in range(audit.width):
        expected = shown_examples(audit, latent)
        mine = range(first_example[latent], first_example[latent + 1])
        assert len(mine) == len(expected)
        for e, (group, document, strings, values, peak) in zip(mine, expected, strict=True):
            context = int(stored["contexts"][e])
            begin = context * stored["contextTokens"] + int(stored["starts"][e])
            tokens = stored["tokens"][begin : begin + int(stored["lengths"][e])]
            dense = np.zeros(len(tokens))
            span = slice(first_value[e], first_value[e + 1])
            dense[stored["offsets"][span]] = stored["values"][span]
            assert int(stored["groups"][e]) == group
            assert stored["documents"][stored["document"][context]] == document
            assert [payload["vocabulary"][t] for t in tokens] == strings
            np.testing.assert_allclose(dense, values.numpy(), rtol=1e-3)
            assert int(stored["peaks"][e]) == peak


def test_only_tokens_that_are_shown_are_shipped(make_audit: Any) -> None:
    vocabulary = tuple(f"token {i}" for i in range(5000))
    audit = make_audit(8, vocabulary=vocabulary, tokens=(torch.arange(256) % 40).view(4, 64))
    shipped = payload_of(audit)["vocabulary"]
    details = audit.details
    ids = torch.cat([details.promoted.ravel(), details.suppressed.ravel(), torch.arange(40)])
    assert set(shipped) == {vocabulary[i] for i in ids.unique().tolist()}


def test_the_scatter_ships_its_points(audit: Audit) -> None:
    pack = Pack()
    content = scatter_payload(scatter(audit), pack)
    points = unpacked(content, zlib.decompress(base64.b64decode(pack.base64())))
    np.testing.assert_array_equal(points["y"], audit.variance.fisher.numpy())
    nulls = np.concatenate([series["x"] for series in points["nulls"]])
    np.testing.assert_array_equal(nulls, audit.variance.null_euclidean.numpy())
