import logging

import pytest

from modelassay.report.degrade import or_broken
from modelassay.report.parts import Broken


def test_what_works_passes_through() -> None:
    assert or_broken("Title", lambda: 17) == 17


def test_an_error_becomes_a_part_that_names_it_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        part = or_broken("Scatter", lambda: 1 / 0)
    assert part == Broken(title="Scatter", error="ZeroDivisionError: division by zero")
    assert "Scatter" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        or_broken("Title", interrupted)
