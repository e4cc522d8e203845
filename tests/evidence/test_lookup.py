import numpy as np
import pytest
import torch
from scipy import sparse

from modelassay.core.randomness import generator
from modelassay.evidence.lookup import LookupTables


def histories(n: int, seed: int) -> torch.Tensor:
    """Position (of 6), token, the token before, and the one before that (of 4), at random."""
    rng = generator(seed)
    position = torch.randint(6, (n, 1), generator=rng)
    return torch.cat([position, torch.randint(4, (n, 3), generator=rng)], dim=1)


def credible(values: np.ndarray, groups: list, prior: dict, target: dict) -> dict:
    """The definition, one latent, with loops: group -> shrunk mean of values.

    Args:
        values: residual of each fit token.
        groups: group of each fit token.
        prior: group -> prior, for every held-out group.
        target: as prior; the result has its keys.
    """
    members = {g: [v for v, own in zip(values, groups, strict=True) if own == g] for g in target}
    known = {g: m for g, m in members.items() if m}
    within = sum(np.sum((np.array(m) - np.mean(m)) ** 2) for m in known.values())
    within /= max(1, sum(len(m) - 1 for m in known.values()))
    n_tokens = max(1, sum(len(m) for m in known.values()))
    between = sum(len(m) * (np.mean(m) - prior[g]) ** 2 for g, m in known.items())
    between = max(0.0, (between - len(known) * within) / n_tokens)
    result = {}
    for g in target:
        result[g] = prior[g]
        if g in known and between > 0:
            n = len(known[g])
            weight = n * between / (n * between + within)
            result[g] = prior[g] + weight * (np.mean(known[g]) - prior[g])
    return result


def slow_prediction(values: np.ndarray, fit: np.ndarray, heldout: np.ndarray) -> np.ndarray:
    positions = set(fit[:, 0]) | set(heldout[:, 0])
    flat = dict.fromkeys(positions, values.mean())
    by_position = credible(values, list(fit[:, 0]), flat, flat)
    residual = values - np.array([by_position[p] for p in fit[:, 0]])
    prediction = {(): 0.0}
    for order in (1, 2, 3):
        keys = {tuple(row[1 : 1 + order]) for row in heldout}
        prior = {key: prediction[key[:-1]] for key in keys}
        own = [tuple(row[1 : 1 + order]) for row in fit]
        prediction = credible(residual, own, prior, prior)
    return np.array([by_position[row[0]] + prediction[tuple(row[1:4])] for row in heldout])


@pytest.mark.parametrize("seed", range(3))
def test_predictions_match_the_definition(seed: int):
    fit, heldout = histories(150, seed), histories(80, seed + 100)
    rng = generator(seed)
    values = torch.randn(150, 3, generator=rng) * (torch.rand(150, 3, generator=rng) < 0.6)
    values[:, 0] += fit[:, 1] * (fit[:, 2] == 1) + (fit[:, 0] == 0)
    truth = torch.randn(80, 3, generator=rng)
    tables = LookupTables.build(fit, heldout)
    errors = np.concatenate(
        list(tables.errors(sparse.csc_matrix(values), sparse.csc_matrix(truth))), axis=1
    )
    for latent in range(3):
        expected = slow_prediction(values[:, latent].double().numpy(), fit.numpy(), heldout.numpy())
        np.testing.assert_allclose(
            truth[:, latent].numpy() - errors[:, latent], expected, rtol=1e-4, atol=1e-5
        )


def test_unseen_histories_fall_back_and_certain_ones_are_believed_at_once():
    fit = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0]])
    heldout = torch.tensor([[0, 1, 3, 3], [0, 2, 0, 0], [0, 3, 0, 0]])
    values = sparse.csc_matrix(np.array([[1.0], [1.0], [5.0], [5.0]]))
    tables = LookupTables.build(fit, heldout)
    (errors,) = tables.errors(values, sparse.csc_matrix(np.zeros((3, 1))))
    # Token 1 with an unknown past: its own mean. Token 3 was never seen: the mean of all.
    np.testing.assert_allclose(-errors[:, 0], [1, 5, 3], atol=1e-9)
