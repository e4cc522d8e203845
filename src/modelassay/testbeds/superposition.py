"""T4b: more circuits than neurons, each computing a function of its own scalar.

D = 400 neurons hold T = 800 circuits. A circuit owns S = 10 neurons at random, and uses them as T4a
does: with signs s = ±1 and knots on both sides of 0, its slot j of the neurons wants
``s_j x_t - knot_j``. On an input z = 2 circuits are active, each with its own x_t uniform on
[-1, 1]; the others are gated off. A neuron gets the sum of what its active circuits want::

    a_n = ReLU( sum over active circuits t that own n of (s x_t - knot) )
    y_t = w_t . a            w_t: the least-squares weights of the arm's target, on t's own slots

An input is the list of its active circuits, ``[input, z, 2]``: (number of the circuit, x). Two
circuits share S²/D = 0.25 neurons on average; read-outs still follow x² at .99, and sin(pi x) at
.93, whose weights have both signs on either side of 0, so that less of the others' load cancels.

- **Model truth**: the T values target(x_t) (0 where t is off) with covectors w_t. Arms: x²,
  sin(pi x).
- **Truth of the activations**: the direction along which each circuit's own activations vary most
  (72% of their variance): T directions whose scores follow x_t, orthogonal to w_t of x² and at a
  cosine of .15 with that of the sine. One ray for either side of 0 would be nearer to what sparse
  dictionaries find, but a ray is non-negative, as w_t of x² is: an oracle of the rays is half an
  oracle of the model (cosine .50), and V could not tell them apart.

Circuits are active independently of each other already, so the interventional inputs are fresh ones
from the same distribution. There is no rotation: the neurons are a row of the known table.

A read covector is no write vector: non-negative codes cannot need directions with mixed signs. So
the own scores compare w_t with directions and with encoders' covectors, and directions with the
patterns Sigma w_t, beside

    model score       mean_t max_i |cos(d_i, w_t)|
    activation score  mean_i max_t ||P_t d_i||        P_t projects onto t's ten neurons
    N_eff             (sum_i C_ti)² / sum_i C_ti²
                      C_ti = E over inputs with t on of |z_i w_t . d_i|

and N_eff, which knows neither gauge nor scale, decides.

Prediction: no method that sees the activations alone finds any w_t; a basis of at most D directions
(PCA, the local interaction basis) cannot hold T of them.

**Larger.** "T4b.large" has D = 4,000 and T = 8,000 at the same load, (z - 1) S²/D = .23 for z = 10,
and as many active inputs a circuit; truths and scores take the first 400 circuits. Its activations
are 0.6 GB, a dictionary of 16,000 latents 0.5 GB (2 GB with gradients and Adam), its encoder
1.3e8 FLOP a token: hours on a CPU, minutes on a GPU (estimated; it has not been run, and its nulls
alone take many minutes of one core). The post's own size, D = 40,000 and
T = 80,000, has z = 101 at this load: 40,000 inputs give 50 active ones a circuit, 6.4 GB; a
dictionary of 160,000 latents is 51 GB in float32, 205 GB with gradients and Adam, so two 141 GB
GPUs, or one with half-precision weights and moments; 4 million tokens at 1.3e10 FLOP forward and
some 2e10 backward are 1.3e17 FLOP, about a quarter of an hour at 150 TFLOP/s. Its reader must
gather the ten weights of a circuit (12.8 GB as a matrix), and scores must take a sample of
circuits. It is planned only, not run.

Source: circuits in superposition, in the post on activation-space interpretability (example 4b).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.hinges import TARGETS, grid
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import cosine
from modelassay.testbeds.superposition_known import known
from modelassay.testbeds.superposition_model import (
    HINGES,
    PackedCircuits,
    Packing,
    activation_score,
    draw_inputs,
    effective_latents,
    main_direction,
    model_score,
    of_circuits,
    packed_circuits,
)
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth, is_active

PACKING = Packing(
    n_neurons=400, n_circuits=800, active=2, scored=800, n_data=20_000, n_interventional=4_000
)
"""The size of the known table."""
LARGE = Packing(
    n_neurons=4_000, n_circuits=8_000, active=10, scored=400, n_data=40_000, n_interventional=8_000
)
"""Ten times as wide at the same load."""
_TARGETS = ("square", "sine")


def build(seed: int) -> Testbed:
    """400 neurons, 800 circuits."""
    size = Size(width=1600, k=4, l1_coefficient=1.0, tokens=150_000, batch_tokens=512)
    return build_packed("T4b", PACKING, size, seed)


def build_large(seed: int) -> Testbed:
    """4,000 neurons, 8,000 circuits."""
    size = Size(width=16_000, k=20, l1_coefficient=1.0, tokens=4_000_000, batch_tokens=4096)
    return build_packed("T4b.large", LARGE, size, seed)


def build_packed(name: str, packing: Packing, size: Size, seed: int) -> Testbed:
    """Any number of neurons and circuits; one arm a target.

    Args:
        name: of the testbed.
        packing: how many.
        size: of the dictionaries that it asks for.
        seed: of the circuits and the inputs.
    """
    trunk = packed_circuits(packing, seed)
    inputs = {
        purpose: draw_inputs(packing, count, derived(seed, "T4b", purpose))
        for purpose, count in (
            ("data", packing.n_data),
            ("interventional", packing.n_interventional),
        )
    }
    swings = Truth(
        names=tuple(f"main direction of circuit {t}" for t in range(packing.scored)),
        scalars=lambda pairs: of_circuits(pairs, pairs[..., 1], packing.scored),
        covectors=trunk.spread(main_direction(HINGES, grid()).float(), packing.scored),
    )
    arms = tuple(_arm(target, trunk, packing, swings, inputs) for target in _TARGETS)
    return Testbed(
        name=name,
        seed=seed,
        arms=arms,
        size=size,
        similarity="directions",
        own_scores=lambda arm, decomposition: own_scores(arm, trunk, decomposition),
        known=(lambda: known(arms[0], trunk, seed)) if packing == PACKING else tuple,
        draw=lambda found: draw(arms[0], trunk, found),
    )


def _arm(
    target: str, trunk: PackedCircuits, packing: Packing, swings: Truth, inputs: dict[str, Tensor]
) -> Arm:
    weights = HINGES.read_out(TARGETS[target]).weights.float()
    reader = nn.Linear(packing.n_neurons, packing.n_circuits, bias=False)
    reader.weight.data = trunk.spread(weights, packing.n_circuits)
    return Arm(
        name=target,
        subject=arm_subject(target, trunk, reader),
        activations_truth=swings,
        model_truth=Truth(
            names=tuple(f"{target} of circuit {t}" for t in range(packing.scored)),
            scalars=lambda pairs: of_circuits(
                pairs, TARGETS[target](pairs[..., 1]), packing.scored
            ),
            covectors=reader.weight.data[: packing.scored],
        ),
        data=inputs["data"],
        interventional=inputs["interventional"],
    )


def own_scores(arm: Arm, trunk: PackedCircuits, decomposition: Decomposition) -> dict[str, float]:
    """The scores of the known table, and what the caveat on covectors asks for."""
    covectors = _covectors(arm)
    directions = decomposition.directions
    values = decomposition.encode(arm.activations).dense()
    patterns = covectors @ arm.rows.moments().covariance.float()
    return {
        "model_cosine": model_score(directions, covectors),
        "model_cosine_of_encoders": model_score(decomposition.covectors, covectors),
        "model_cosine_of_patterns": model_score(directions, patterns),
        "activation_projection": activation_score(directions, trunk),
        "n_eff": effective_latents(
            values, directions, covectors, is_active(arm.model_truth.values(arm.data))
        ),
    }


def _covectors(arm: Arm) -> Float[Tensor, "circuit neuron"]:
    covectors = arm.model_truth.covectors
    assert covectors is not None
    return covectors


def draw(
    arm: Arm, trunk: PackedCircuits, decompositions: Mapping[str, Decomposition]
) -> list[Drawing]:
    """A circuit's read-out under the load of the others, and which read-outs were found."""
    pictures: list[Drawing] = [_loaded_read_out(arm)]
    if decompositions:
        pictures += [_sorted_cosines(arm, decompositions), _table(arm, trunk, decompositions)]
    return pictures


def _loaded_read_out(arm: Arm) -> Picture:
    """What w_0 reads where circuit 0 is active."""
    number, x = arm.data.unbind(2)
    on = number == 0
    rows, x = on.any(1), x[on]
    read = arm.activations[rows] @ _covectors(arm)[0]
    curve = torch.linspace(-1, 1, 101)
    return Picture(
        title="One circuit's read-out while others are active",
        caption="Circuits that share neurons with this one move its read-out off the curve "
        "(which lies lower or higher by the least-squares constant).",
        x_title="x of the circuit",
        y_title="read-out",
        marks=(
            Marks(kind="line", title=arm.name, role="model", x=curve, y=TARGETS[arm.name](curve)),
            Marks(kind="points", title="w . a", role="data", x=x, y=read),
        ),
    )


def _sorted_cosines(arm: Arm, decompositions: Mapping[str, Decomposition]) -> Picture:
    marks = []
    for name, decomposition in decompositions.items():
        best = cosine(decomposition.directions, _covectors(arm)).amax(0).sort(descending=True)[0]
        rank = torch.arange(len(best)).float()
        marks.append(Marks(kind="line", title=name, role="found", x=rank, y=best))
    return Picture(
        title="How near the nearest latent points along each circuit's read-out",
        caption="Circuits sorted by the |cosine| of the nearest direction; 1 would be found.",
        x_title="circuits, best found first",
        y_title="largest |cosine| with w",
        marks=tuple(marks),
    )


def _table(arm: Arm, trunk: PackedCircuits, decompositions: Mapping[str, Decomposition]) -> Grid:
    rows = [own_scores(arm, trunk, each) for each in decompositions.values()]
    names = [name for name in rows[0] if name != "n_eff"]
    return Grid(
        title="What directions are near to",
        caption="A high projection says that latents live in single circuits' neurons; a high "
        "model cosine, that they point along what the model reads there.",
        values=torch.tensor([[row[name] for name in names] for row in rows]),
        row_names=tuple(decompositions),
        column_names=tuple(name.replace("_", " ") for name in names),
    )


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T4b",
        title="Circuits in superposition",
        claim="400 neurons compute x² for 800 sparse scalars. A sparse dictionary finds directions "
        "that live in single circuits, and none of the directions that the model reads.",
        build=build,
        references=("chughtai2025",),
    ),
    TestbedKind(
        name="T4b.large",
        title="Circuits in superposition, 8,000 of them",
        claim="The same in 4,000 neurons at the same load.",
        build=build_large,
        references=("chughtai2025",),
        slow=True,
    ),
)
