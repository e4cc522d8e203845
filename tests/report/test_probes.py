"""The page of probes: every number of a report has its place, and nothing is drawn broken."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.provenance import Provenance
from modelassay.core.randomness import generator
from modelassay.observe.probes.causal import CausalEffect, CausalTest
from modelassay.observe.probes.data import train_test
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.report import ProbeReport
from modelassay.observe.probes.scores import Measured
from modelassay.observe.probes.study import Study, probe_report
from modelassay.report.parts import Broken
from modelassay.report.probes import probes_report
from tests.observe.probes.planted import planted


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    data, _ = planted(n=400, n_groups=40)
    return probe_report(
        Logistic(l2=0.01), train_test(data, generator(0)),
        subject="a model", site="resid_post.0", concept="<planted>", study=Study(),
    )  # fmt: skip


def with_causal_test(report: ProbeReport, *, low: float) -> ProbeReport:
    null = torch.rand(20, generator=generator(0), dtype=torch.float64) / 4
    effects = tuple(
        CausalEffect(name=name, value=Measured(value=0.75, low=0.5, high=1.0), null=null)
        for name in ("push", "ablate", "erase")
    )
    separation = Measured(value=1.5, low=low, high=2.0)
    causal = CausalTest(
        site=report.site, separation=separation, effects=effects, n_items=9, n_groups=9
    )
    return replace(report, causal=causal)


def test_no_part_is_broken_and_names_are_escaped(report: ProbeReport):
    page = probes_report((report, with_causal_test(report, low=1.0)), Provenance.collect(seed=0))
    parts = [part for section in page.page.sections for part in section.parts]
    assert not [part for part in parts if isinstance(part, Broken)]
    html = page.html()
    assert "&lt;planted&gt;" in html
    assert "<planted>" not in html
    assert "hewitt2019" in html
    assert "0.750 [0.50, 1.00]" in html


def test_the_headline_tells_encoded_from_used(report: ProbeReport):
    provenance = Provenance.collect(seed=0)
    untested = probes_report((report,), provenance).html()
    used = probes_report((with_causal_test(report, low=1.0),), provenance).html()
    silent = probes_report((with_causal_test(report, low=-1.0),), provenance).html()
    assert "At 1 of 1 sites the label can be decoded beyond every control" in untested
    assert "was not tested" in untested
    assert "at 1 of 1 behaviour follows its direction" in used
    assert "does not depend on it, so that no use can be tested" in silent
