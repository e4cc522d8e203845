"""The experiments of Elhage et al. (2022) by name, in full size and in one for a minute or so."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from modelassay.core.errors import UnknownNameError
from modelassay.core.progress import SILENT, Progress
from modelassay.observe.superposition import computing, packing, phases, related, single
from modelassay.observe.superposition.study import Study

Size = Literal["quick", "full"]


@runtime_checkable
class Runner(Protocol):
    """Makes a study."""

    def __call__(self, *, full: bool, seed: int, progress: Progress) -> Study:
        """Run it, in full size or a small one."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One experiment."""

    name: str
    asks: str
    """The question, in a line."""
    runner: Runner


_ALL = (
    Experiment(
        name="pentagon",
        asks="What becomes of five features in two dimensions as they get sparser?",
        runner=single.pentagon,
    ),
    Experiment(
        name="strips",
        asks="Which features does a model represent, and how much do they interfere?",
        runner=single.strips,
    ),
    Experiment(
        name="linear",
        asks="The same of a model without rectifier, which can only do PCA.",
        runner=single.linear,
    ),
    Experiment(
        name="perturbed",
        asks="What becomes of the pentagon if one feature is sparser or denser than the others?",
        runner=single.perturbed,
    ),
    Experiment(
        name="uniform",
        asks="Which fractions of a dimension do equal features take?",
        runner=packing.uniform,
    ),
    Experiment(
        name="energy_levels",
        asks="Do dimensionalities change gradually during training, or in jumps?",
        runner=packing.energy_levels,
    ),
    Experiment(
        name="adversarial",
        asks="Does superposition make a model vulnerable to small changes of its input?",
        runner=packing.adversarial,
    ),
    Experiment(
        name="phase_2_1",
        asks="When is the second of two features in one dimension ignored, kept, or superposed?",
        runner=phases.phase_2_1,
    ),
    Experiment(
        name="phase_3_2",
        asks="The same of a third feature in two dimensions.",
        runner=phases.phase_3_2,
    ),
    Experiment(
        name="correlated",
        asks="Do features that are on together become orthogonal, and share no polytope?",
        runner=related.correlated,
    ),
    Experiment(
        name="anticorrelated",
        asks="Do features that exclude each other become antipodal?",
        runner=related.anticorrelated,
    ),
    Experiment(
        name="collapse",
        asks="When do correlated pairs collapse to their principal component?",
        runner=related.collapse,
    ),
    Experiment(
        name="octahedron",
        asks="Through which shapes do two correlated sets become an octahedron?",
        runner=related.octahedron,
    ),
    Experiment(
        name="privileged",
        asks="Do rectified hidden units become neurons of one feature each?",
        runner=computing.privileged,
    ),
    Experiment(
        name="absolute_3",
        asks="Does a small network find the exact absolute value?",
        runner=computing.absolute_3,
    ),
    Experiment(
        name="absolute_100",
        asks="Can absolute values of a hundred features be computed by forty neurons?",
        runner=computing.absolute_100,
    ),
)

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def run_experiment(
    name: str, *, size: Size = "quick", seed: int = 0, progress: Progress = SILENT
) -> Study:
    """Run an experiment by name.

    Raises:
        UnknownNameError: for a name that is not in `EXPERIMENTS`.
    """
    if name not in EXPERIMENTS:
        raise UnknownNameError("An experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name].runner(full=size == "full", seed=seed, progress=progress)


def known(names: Iterable[str]) -> tuple[str, ...]:
    """The names, or all of them if there are none.

    Raises:
        UnknownNameError: for a name that is not in `EXPERIMENTS`.
    """
    chosen = tuple(dict.fromkeys(names)) or tuple(EXPERIMENTS)
    for name in chosen:
        if name not in EXPERIMENTS:
            raise UnknownNameError("An experiment", name, EXPERIMENTS)
    return chosen
