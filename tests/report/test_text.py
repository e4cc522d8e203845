from collections.abc import Callable
from dataclasses import replace

from modelassay.audit.result import Audit
from modelassay.report import text
from modelassay.report.build import build
from modelassay.report.parts import Broken, ShareBar, ShareClass, Shares
from modelassay.report.report import report


def test_the_summary_has_verdicts_baselines_and_intervals(audit: Audit) -> None:
    summary = report(audit).text()
    assert f"{audit.verdicts.count('model')} of 48 latents" in summary
    assert "model 10% · activations 40% · undetermined 50% · dead 0% (n = 96)" in summary
    assert "0.900 [0.890, 0.910]" in summary
    assert "share ↑ (n = 1,000)" in summary
    assert summary.endswith(f"{audit.provenance.created}\n")


def test_columns_of_the_table_line_up(audit: Audit) -> None:
    lines = report(audit).text().splitlines()
    head = next(line for line in lines if line.startswith("  topk ") and "random" in line)
    row = next(line for line in lines if "0.900 [0.890" in line)
    assert head.index("random") == row.index("0.350")
    assert head.index("frozen") == row.index("0.600")
    assert lines[lines.index(row) + 1].split() == ["null", "0"] * 4


def test_prose_about_a_figure_that_is_not_there_is_left_out(audit: Audit) -> None:
    assert "dashed line" not in report(audit).text()


def test_bars_are_always_full() -> None:
    classes = tuple(ShareClass(key=k, title=k) for k in "abcd")
    for shares in ([0.301, 0.299, 0.39, 0.01], [1.0, 0.0, 0.0, 0.0], [0.0125, 0.3375, 0.3, 0.35]):
        bar = ShareBar(name="x", shares=dict(zip("abcd", shares, strict=True)), n=None)
        drawn = text._shares(Shares(title="", classes=classes, bars=(bar,), caption=""))
        assert sum(drawn.count(fill) for fill in "█▓▒") + drawn.splitlines()[1].count("·") == 40


def test_a_broken_part_is_named(audit: Audit, make_audit: Callable[..., Audit]) -> None:
    page = build(audit)
    section = replace(page.sections[0], parts=(Broken(title="Scatter", error="KeyError: 'x'"),))
    summary = text.render(replace(page, sections=(section,)))
    assert "Scatter: could not be made (KeyError: 'x')" in summary
