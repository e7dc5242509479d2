"""Candidates for mirrors and twists, matrices on the flattened coordinates."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Array

from .._internal._errors import ArgumentError

# Up to so many coordinates every signed permutation that is its own inverse is tried: 1384 of them for six.
_EXHAUSTIVE = 6


def candidates(n: int, supplied: Sequence[Array]) -> Iterator[np.ndarray]:
    """Yield matrices to try on n coordinates: the supplied ones, then signed permutations, the simplest first."""
    for matrix in itertools.chain(map(np.asarray, supplied), _signed_involutions(n)):
        if matrix.shape != (n, n):
            raise ArgumentError(f"diagnose: a mirror has shape {matrix.shape}; on {n} coordinates it is ({n}, {n}).")
        yield matrix


def _signed_involutions(n: int) -> Iterator[np.ndarray]:
    """Yield signed permutations that are their own inverse: all of them if n is small, otherwise the common ones."""
    eye = np.eye(n)
    if n > _EXHAUSTIVE:
        signs = np.diag((-1.0) ** np.arange(n)), np.diag(np.sign(np.arange(n) - n / 2 + 0.25))
        # A ring has n reflections. The first one is also that of a line.
        turned = [np.roll(eye[::-1], k, 0) for k in range(n)]
        halves = [np.roll(eye, n // 2, 0)] if n % 2 == 0 else []
        for p in (eye, *turned, *halves):
            for signed in (p, *(x @ p for x in signs)):
                if np.array_equal(signed @ signed, eye):
                    yield from (signed, -signed)
        return
    order = [p for p in itertools.permutations(range(n)) if all(p[p[i]] == i for i in range(n))]
    order.sort(key=lambda p: sum(p[i] != i for i in range(n)))
    for p in order:
        cycles = [i for i in range(n) if p[i] >= i]
        for signs in itertools.product((1.0, -1.0), repeat=len(cycles)):
            matrix = np.zeros((n, n))
            for i, s in zip(cycles, signs, strict=True):
                matrix[i, p[i]] = matrix[p[i], i] = s
            yield matrix


def symmetrising_twist(matrices: Sequence[np.ndarray], tolerance: float) -> np.ndarray | None:
    """Return an invertible S of norm one with X S = S Xᵀ for all X, diagonal if possible; `None` if there is none."""
    n = len(matrices[0])
    eye = np.eye(n)
    scaled = [x / np.linalg.norm(x) for x in matrices if np.any(x)]
    equations = np.concatenate([np.kron(x, eye) - np.kron(eye, x) for x in scaled])
    for places in (np.arange(n) * (n + 1), np.arange(n * n)):
        _, values, rows = np.linalg.svd(equations[:, places], full_matrices=False)
        solutions = np.zeros((np.sum(values <= tolerance), n * n))
        solutions[:, places] = rows[values <= tolerance]
        # Try the solution closest to the identity and random ones. Almost all have as high a rank as any solution.
        draws = np.random.default_rng(0).normal(size=(32, len(solutions)))
        trials = [x.reshape(n, n) for x in (solutions @ eye.ravel() @ solutions, *(draws @ solutions))]
        conditions = [np.linalg.cond(x) if np.any(x) else np.inf for x in trials]
        if min(conditions) < tolerance**-0.5:
            best = trials[int(np.argmin(conditions))]
            return best / np.linalg.norm(best, 2)
    return None


def asymmetry(x: np.ndarray, twist: np.ndarray) -> float:
    """Return the violation of X S = S Xᵀ relative to X; zero for a zero matrix."""
    size = np.linalg.norm(x) * np.linalg.norm(twist, 2)
    return float(np.linalg.norm(x @ twist - twist @ x.T) / size) if size else 0.0


def as_permutation(matrix: np.ndarray) -> list[int] | None:
    """Return the permutation that a matrix is, as indices, or `None`."""
    moved = np.argmax(matrix, 1)
    return moved.tolist() if np.array_equal(matrix, np.eye(len(matrix))[moved]) else None


def describe(matrix: np.ndarray) -> str:
    """Return a mirror in words."""
    matrix = np.asarray(matrix)
    n = len(matrix)
    if np.array_equal(matrix, np.diag(np.diag(matrix))) and n <= 12:
        return "diag(" + ", ".join(f"{x:g}" for x in np.diag(matrix)) + ")"
    if np.array_equal(np.abs(matrix), np.eye(n)[::-1]) and abs(matrix.sum()) == n:
        return "the reversal of the coordinates" if matrix.sum() > 0 else "minus the reversal of the coordinates"
    moved = as_permutation(matrix)
    return f"the permutation {moved}" if moved is not None and n <= 12 else "the matrix in `mirror`"
