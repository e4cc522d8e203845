"""Published solutions, found again by short training."""

import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.superposition.measures import norms, polytopes
from modelassay.observe.superposition.models import random_models
from modelassay.observe.superposition.phase import phase_diagram
from modelassay.observe.superposition.quadrature import quadrature
from modelassay.observe.superposition.setup import Runs, Setup, run
from modelassay.observe.superposition.theory import boundary
from modelassay.observe.superposition.training import Training, train

SHORT = Training(steps=1500, batch=128, learning_rate=2e-2, schedule="falling")


@pytest.fixture(scope="module")
def five() -> Runs:
    setup = Setup(
        n_features=5, n_hidden=2, importance=0.9, densities=(0.189, 0.05), runs=8,
        training=SHORT,
    )  # fmt: skip
    return run(setup, seed=0, purpose="test")


def test_dense_features_leave_the_two_most_important_of_five():
    # Importances further apart than the published 0.9^i, which takes longer to settle.
    setup = Setup(n_features=5, n_hidden=2, importance=0.5, densities=(1.0,), training=SHORT)
    models = run(setup, seed=0, purpose="dense").models
    found = norms(models.encoder[0])
    torch.testing.assert_close(found[:2], torch.ones(2), atol=0.03, rtol=0)
    assert (found[2:] < 0.1).all()
    torch.testing.assert_close(models.bias[0, 2:], torch.full((3,), 0.5), atol=0.03, rtol=0)


def test_sparser_features_form_two_digons(five: Runs):
    parts = polytopes(five.models.encoder[0])
    assert [part.name for part in parts] == ["digon", "digon"]
    assert parts[0].dimensionality == pytest.approx(0.5, abs=0.02)


def test_sparse_features_form_a_pentagon(five: Runs):
    (part,) = polytopes(five.models.encoder[1])
    assert part.name == "pentagon"
    assert part.dimensionality == pytest.approx(0.4, abs=0.015)
    # Published code, full length: norms 1.12 to 1.14, biases -0.23 to -0.26, loss 0.0014.
    assert float(norms(five.models.encoder[1]).mean()) == pytest.approx(1.13, abs=0.03)
    assert float(five.models.bias[1].mean()) == pytest.approx(-0.245, abs=0.03)
    assert float(five.loss[1]) / 5 == pytest.approx(0.0014, abs=0.0003)


def test_training_is_determined_by_the_seed(five: Runs):
    setup = Setup(n_features=3, n_hidden=2, densities=(0.1,), training=Training(steps=5, batch=8))
    first, second, other = (run(setup, seed=s, purpose="same") for s in (1, 1, 2))
    assert torch.equal(first.models.encoder, second.models.encoder)
    assert not torch.equal(first.models.encoder, other.models.encoder)


def test_trained_models_do_what_the_theory_of_one_dimension_says():
    density = torch.tensor([0.9, boundary(1.0) - 0.1, 0.1])
    found = phase_diagram(2, 1, density, torch.tensor([0.2, 1.0, 5.0]), models=4)
    # At equal importance it is chance which of two dense features is kept.
    assert found.found[0, 0] == 0
    assert found.found[0, 2] == 1
    assert found.found[0, 1] != 2
    assert found.found[1, 1] == 2
    assert (found.found[2] == 2).all()
    assert (found.loss <= found.predicted_loss * 1.005).all()


def test_superposition_reaches_beyond_the_boundary_of_the_candidates():
    # Shorter columns and positive biases make antipodal features cheaper than any candidate.
    density = torch.tensor([boundary(1.0) + 0.05])
    found = phase_diagram(2, 1, density, torch.ones(1), models=6)
    assert found.predicted[0, 0] != 2
    assert found.found[0, 0] == 2
    assert float(found.loss) < 0.95 * float(found.predicted_loss)


def test_exact_absolute_values_are_found():
    setup = Setup(
        n_features=2, n_hidden=4, densities=(0.5,), runs=6, signed=True, tied=False,
        hidden_relu=True, task="absolute", training=SHORT,
    )  # fmt: skip
    runs = run(setup, seed=0, purpose="absolute")
    assert float(runs.loss[0]) < 1e-3  # ignoring both would cost 0.208


def test_snapshots_are_taken_before_their_steps():
    generator = derived(0, "snapshots")
    models = random_models(2, 2, 1, generator)
    trained = train(
        models, quadrature(torch.tensor([0.1, 0.2]), 2), torch.ones(2), generator,
        training=Training(steps=4), snapshots=(0, 3),
    )  # fmt: skip
    assert trained.snapshot_steps.tolist() == [0, 3]
    assert torch.equal(trained.encoders[0], models.encoder)
    assert not torch.equal(trained.encoders[1], models.encoder)


def test_wrong_settings_are_refused():
    generator = derived(0, "wrong")
    with pytest.raises(ShapeError, match=r"importance must be \[2\] or \[1, 2\]"):
        train(
            random_models(1, 2, 1, generator), quadrature(torch.ones(1), 2), torch.ones(3),
            generator,
        )  # fmt: skip
    with pytest.raises(ValueRangeError, match="at least one step"):
        Training(steps=0)
    with pytest.raises(ValueRangeError, match="at least one of each"):
        Setup(n_features=2, n_hidden=1, densities=())
