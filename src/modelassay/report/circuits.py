"""Pages of circuits: weights into units, tuning to stimuli, units matched across networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.provenance import Provenance
from modelassay.observe.circuits.connections import Fidelity
from modelassay.observe.circuits.expansion import ExpandedWeights
from modelassay.observe.circuits.families import LARGEST_Q, LEAST_INDEX, Family
from modelassay.observe.circuits.tuning import Tuning
from modelassay.observe.circuits.unit import UnitCircuit
from modelassay.observe.circuits.universality import Matching
from modelassay.observe.visualize.png import to_png
from modelassay.report.axes import number, percent
from modelassay.report.circuit_pictures import GRAPH_WIDTH, enlarged, graph, kernel_png, polar
from modelassay.report.parts import Page, Paragraph, Part, Section, Table
from modelassay.report.picture_parts import Picture, PictureWall
from modelassay.report.report import Report
from modelassay.report.superposition import VectorPicture

_SHOWN_KERNELS = 24
_SHOWN_CURVES = 24
_SHOWN_UNITS = 40
_WEIGHTS = (
    "Weights say what would excite or inhibit a unit, not what does: an input that is hardly ever "
    "active does little whatever its weights. Through several layers they are those of the network "
    "without its nonlinearities, in which every rectifier is open."
)
_TUNING = (
    "Responses to synthetic images, less those to uniform grey. A unit that responds to a stimulus "
    "is not thereby a detector of it: the index compares with stimuli that share everything else, "
    "and the twins, whose weights are the same numbers in another order, say what chance gives."
)
_UNIVERSALITY = (
    "The best of many units always matches somewhat. Compare with both nulls: the other network's "
    "units on other images, and directions of its space turned at random, which keep everything "
    "but the choice of units."
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WeightsStudy:
    """Units of a layer, and what their weights were found to be worth."""

    title: str
    weights: ExpandedWeights
    units: tuple[UnitCircuit, ...]
    fidelity: Fidelity | None
    provenance: Provenance


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TuningStudy:
    """A layer's channels on all families of stimuli."""

    title: str
    layer: str
    families: tuple[Family, ...]
    curves: Tuning | None
    """Tuning to the orientation of gratings, if it was measured."""
    channels: tuple[int, ...]
    """Those whose curves are drawn."""
    provenance: Provenance


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UniversalityStudy:
    """Two layers matched."""

    title: str
    names: tuple[str, str]
    matching: Matching
    n_images: int
    provenance: Provenance


def weights_report(study: WeightsStudy) -> Report:
    """The page of some units' weights."""
    weights = study.weights
    sections = [
        Section(anchor=f"channel-{unit.channel}", title=f"Channel {unit.channel}", parts=parts)
        for unit, parts in ((unit, _unit(study, unit)) for unit in study.units)
    ]
    rows, columns = weights.size
    what = f"{weights.layers} convolutions" if weights.layers > 1 else "joined directly"
    return _report(
        study.title,
        f"{weights.source} → {weights.target}: {what}, kernels of {rows} × {columns}",
        [Section(anchor="about", title="What is shown", parts=(Paragraph(text=_WEIGHTS),)),
         *sections],
        study.provenance,
    )  # fmt: skip


def _unit(study: WeightsStudy, unit: UnitCircuit) -> tuple[Part, ...]:
    parts: list[Part] = []
    if study.fidelity is not None:
        parts.append(Paragraph(text=_believed(study, study.fidelity, unit.channel)))
    if unit.icons:
        drawn = VectorPicture(title="", svg=graph(unit))
        parts.append(
            PictureWall(title="Circuit", pictures=(drawn,), caption="", width=int(GRAPH_WIDTH))
        )
    if study.weights.source == "input" and len(unit.ranked) == 3:
        seen = Picture(
            title="", png=to_png(enlarged(unit.icon, 160)), lines=("grey is 0, scaled to fit",)
        )
        parts.append(
            PictureWall(title="As colours", pictures=(seen,), caption="Weights to red, green and "
                        "blue, after the model's normalisation.", width=160)
        )  # fmt: skip
    largest = max(float(each.kernel.abs().max()) for each in unit.ranked)
    pictures = tuple(
        Picture(
            title=f"{each.channel}",
            png=kernel_png(each.kernel, largest),
            lines=(f"{'excites' if each.excitatory else 'inhibits'} · {percent(each.share)}",),
        )
        for each in unit.ranked[:_SHOWN_KERNELS]
        if each.strength > 0
    )
    caption = (
        f"Amber excites, blue inhibits, full colour is ±{number(largest)}; sorted by norm, with "
        "the share of all squared weights."
    )
    if left_out := len(unit.ranked) - len(pictures):
        caption += f" {left_out} weaker inputs are not shown."
    parts.append(PictureWall(title="All inputs", pictures=pictures, caption=caption, width=64))
    return tuple(parts)


def _believed(study: WeightsStudy, found: Fidelity, channel: int) -> str:
    place = study.weights.channels.index(channel)
    own, other = float(found.correlation[place]), float(found.other[place])
    if own != own:
        return "The unit never changed on these images: it is dead on them."
    beside = f" (weights of another unit: {number(other)})" if other == other else ""
    return (
        f"Predicted and real changes between images correlate by {number(own)}{beside}, over "
        f"{found.n_changes:,} changes."
    )


def tuning_report(study: TuningStudy) -> Report:
    """The page of a layer's tuning."""
    sections = [
        Section(
            anchor="families",
            title="Families",
            parts=(Paragraph(text=_TUNING), _families(study.families)),
        )
    ]
    if study.curves is not None and study.channels:
        channels = list(study.channels)[:_SHOWN_CURVES]
        drawn = VectorPicture(title="", svg=polar(study.curves, channels, "Orientation tuning"))
        wall = PictureWall(
            title="",
            pictures=(drawn,),
            caption="Mean response to gratings by their orientation, the direction across the "
            "stripes. Below: selectivity, and what it is for shuffled gratings.",
            width=132 * min(6, len(channels)),
        )
        sections.append(Section(anchor="curves", title="Tuning curves", parts=(wall,)))
    for found in study.families:
        if found.members:
            title = found.name.capitalize()
            anchor = found.name.replace(" ", "-")
            sections.append(Section(anchor=anchor, title=title, parts=(_members(found),)))
    subtitle = f"{len(study.families)} families of synthetic stimuli"
    return _report(study.title, subtitle, sections, study.provenance)


def _families(found: Sequence[Family]) -> Part:
    rows = tuple(
        (
            each.name,
            f"{int(each.measured.index.isfinite().sum())} of {len(each.p_value)}",
            str(int((each.measured.index >= LEAST_INDEX).sum())),
            percent(each.null_share),
            str(len(each.members)),
            number(float(each.measured.index.nan_to_num(-1.0).max())),
            number(float(each.null.max()) if len(each.null) else float("nan")),
        )
        for each in found
    )
    return Table(
        title="",
        columns=(
            "family", "channels that respond", f"index ≥ {LEAST_INDEX:.2f}", "of twins' channels",
            "supported", "largest index", "twins' largest",
        ),
        rows=rows,
        caption=f"Supported: an index of {LEAST_INDEX:.2f} or more, and a false discovery rate of "
        f"{LARGEST_Q:.2f} against the twins. Where no channel is supported, none was found.",
    )  # fmt: skip


def _members(found: Family) -> Part:
    rows = tuple(
        (
            str(channel),
            number(float(found.measured.index[channel])),
            f"{float(torch.rad2deg(found.measured.preferred[channel])):.0f}°",
            number(float(found.measured.response[channel])),
            number(float(found.p_value[channel])),
            number(float(found.q_value[channel])),
        )
        for channel in found.members[:_SHOWN_UNITS]
    )
    caption = "Angles are counter-clockwise from rightwards; of hues, from red to blue and on."
    if len(found.members) > _SHOWN_UNITS:
        caption += f" {len(found.members) - _SHOWN_UNITS} more are not shown."
    columns = ("channel", "index", "preferred", "response", "p", "q")
    return Table(title="", columns=columns, rows=rows, caption=caption)


def universality_report(study: UniversalityStudy) -> Report:
    """The page of two networks' matched units."""
    found = study.matching
    rows = tuple(
        (name, number(_median(values)), number(_quantile(values, 0.95)), number(_most(values)))
        for name, values in (
            ("best partner", found.best),
            ("one to one", found.one_to_one),
            ("null: other images", found.null_permuted),
            ("null: turned space", found.null_rotated),
        )
    )
    order = found.best.nan_to_num(-2.0).argsort(descending=True).tolist()
    units = tuple(
        (str(channel), str(int(found.partner[channel])), number(float(found.best[channel])),
         str(int(found.assigned[channel])), number(float(found.one_to_one[channel])))
        for channel in order[:_SHOWN_UNITS]
        if int(found.partner[channel]) >= 0
    )  # fmt: skip
    verdict = (
        f"{percent(found.shared)} of the channels of {study.names[0]} have a partner in "
        f"{study.names[1]} above the 95th percentile of both nulls. "
        f"Linear CKA {number(found.cka)}, SVCCA {number(found.svcca)}."
    )
    columns = ("correlation", "median", "95th percentile", "largest")
    sections = [
        Section(anchor="result", title="Result", parts=(
            Paragraph(text=_UNIVERSALITY), Paragraph(text=verdict),
            Table(title="", columns=columns, rows=rows, caption="Over the channels of the first."),
        )),
        Section(anchor="units", title="Units", parts=(
            Table(title="", columns=("channel", "best partner", "correlation", "one to one",
                                     "correlation "), rows=units, caption="The best first."),
        )),
    ]  # fmt: skip
    return _report(study.title, f"{study.n_images:,} images", sections, study.provenance)


def _finite(values: Float[Tensor, " channel"]) -> Tensor:
    return values[values.isfinite()]


def _median(values: Tensor) -> float:
    return _quantile(values, 0.5)


def _quantile(values: Tensor, share: float) -> float:
    known = _finite(values)
    return float(known.quantile(share)) if len(known) else float("nan")


def _most(values: Tensor) -> float:
    return _quantile(values, 1.0)


def _report(title: str, subtitle: str, sections: list[Section], provenance: Provenance) -> Report:
    version = provenance.versions.get("modelassay", "")
    footer = f"modelassay {version} · seed {provenance.seed} · {provenance.created}"
    return Report(Page(title=title, subtitle=subtitle, sections=tuple(sections), footer=footer))
