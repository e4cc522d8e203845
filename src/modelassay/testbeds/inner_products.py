"""Products of tall matrices in double precision, quick where a matrix is nearly empty."""

import torch
from jaxtyping import Shaped
from scipy.sparse import csr_matrix
from torch import Tensor

_SPARSE = 0.05  # below this share of non-zero entries the sparse product is the quicker one (ours)
_ROWS = 8192  # of a chunk that is converted to double precision at a time (ours)


def cross(
    left: Shaped[Tensor, "row first"], right: Shaped[Tensor, "row second"]
) -> Shaped[Tensor, "first second"]:
    """``left.T @ right``."""
    left, right = left.cpu(), right.cpu()
    sparse_left, sparse_right = _sparse(left), _sparse(right)
    if sparse_left is not None and sparse_right is not None:
        return torch.from_numpy((sparse_left.T @ sparse_right).toarray())
    if sparse_left is not None:
        return _sparse_times_dense(sparse_left, right)
    if sparse_right is not None:
        return _sparse_times_dense(sparse_right, left).T
    chunks = zip(left.split(_ROWS), right.split(_ROWS), strict=True)
    total = torch.zeros(left.shape[1], right.shape[1], dtype=torch.double)
    for one, other in chunks:
        total += one.double().T @ other.double()
    return total


def column_sums(
    matrix: Shaped[Tensor, "row column"],
) -> tuple[Shaped[Tensor, " column"], Shaped[Tensor, " column"]]:
    """Sums of the entries of every column, and of their squares."""
    sums = torch.zeros(matrix.shape[1], dtype=torch.double)
    squares = torch.zeros_like(sums)
    for chunk in matrix.cpu().split(_ROWS):
        if (few := _sparse(chunk)) is not None:
            sums += torch.from_numpy(few.sum(0)).reshape(-1)
            squares += torch.from_numpy(few.multiply(few).sum(0)).reshape(-1)
        else:
            sums += chunk.double().sum(0)
            squares += chunk.double().square().sum(0)
    return sums, squares


def _sparse(matrix: Tensor) -> csr_matrix | None:
    """The matrix without its zeros, if few entries are anything else."""
    if int(matrix.count_nonzero()) > _SPARSE * matrix.numel():
        return None
    return csr_matrix(matrix.detach().numpy()).astype("float64")


def _sparse_times_dense(matrix: csr_matrix, dense: Tensor) -> Tensor:
    return torch.from_numpy(matrix.T @ dense.detach().double().numpy())
