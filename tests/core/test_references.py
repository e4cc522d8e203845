"""References: whole, unique, and known wherever they are cited."""

import re

import pytest

from modelassay.core.errors import UnknownNameError
from modelassay.core.papers.dictionaries import DICTIONARIES
from modelassay.core.papers.features import FEATURES
from modelassay.core.papers.interventions import INTERVENTIONS
from modelassay.core.papers.lenses import LENSES
from modelassay.core.papers.probing import PROBING
from modelassay.core.papers.reference import Reference, arxiv, distill
from modelassay.core.papers.statistics import STATISTICS
from modelassay.core.papers.vision import VISION
from modelassay.core.references import REFERENCES, bibliography

TOPICS = (FEATURES, DICTIONARIES, STATISTICS, PROBING, LENSES, INTERVENTIONS, VISION)


def test_no_key_and_no_address_is_given_twice():
    every = [reference for topic in TOPICS for reference in topic]
    assert len({reference.key for reference in every}) == len(every) == len(REFERENCES)
    assert len({reference.url for reference in every}) == len(every)


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_a_reference_is_whole(reference: Reference):
    assert re.fullmatch(r"[a-z]+(19|20)\d\d[a-z]*", reference.key)
    assert str(reference.year) in reference.key
    assert reference.url.startswith("https://")
    assert reference.authors
    assert not reference.title.endswith(".")
    preprint = re.fullmatch(r"https://arxiv.org/abs/(\d\d)\d\d\.\d{4,5}", reference.url)
    assert preprint or "arxiv" not in reference.url


def test_a_preprint_has_the_year_of_its_identifier_unless_another_is_given():
    assert arxiv("a2024", "A", "T", "2401.00001").year == 2024
    assert arxiv("a2001", "A", "T", "1301.2300", year=2001).year == 2001
    assert distill("b2017", "B", "T", "00007", 2017).url.endswith("/10.23915/distill.00007")


def test_a_bibliography_is_sorted_and_names_what_it_does_not_know():
    text = bibliography(["olsson2022", "belrose2023", "olsson2022"])
    assert re.findall(r"@misc{(\w+),", text) == ["belrose2023", "olsson2022"]
    with pytest.raises(UnknownNameError, match="nobody1900"):
        bibliography(["nobody1900"])
