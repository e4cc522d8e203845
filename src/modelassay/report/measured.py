"""A measured value in words: with its interval, where there is one."""

import math

from modelassay.observe.probes.scores import Measured
from modelassay.report.axes import number


def measured(value: Measured) -> str:
    """Three significant digits; without an interval where there were too few groups for one."""
    if math.isnan(value.low) or math.isnan(value.high):
        return number(value.value)
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"
