"""A Gaussian process over labels and numbers: one product kernel with a learned weight for each column.

k(x, y) = s / √(1 + 2 d), d = Σ w [x ≠ y] + Σ v (x − y)², plus a part of each candidate's own (g), plus the noise of
measuring. It is the mean of exp(−t d) over a gamma distribution of t (a rational quadratic kernel): near candidates
tell much, far ones still something. Constant mean by generalised least squares. Everything is in units of the
standard deviation of what is learned.
Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), 5.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
WEIGHT, SPREAD = math.log(0.1), 0.8
"""Prior of a weight's logarithm: mean and standard deviation."""
OWN = math.log(0.05)
JITTER = 1e-6


@dataclass(frozen=True)
class Inputs:
    """Rows to compare: labels (n × a), numbers (n × b)."""

    labels: Array
    numbers: Array

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Array | slice | list[int]) -> Inputs:
        return Inputs(self.labels[index], self.numbers[index])


@dataclass(frozen=True)
class Weights:
    """What was learned: logarithms of s, g and of each column's weight, labels first."""

    theta: Array
    labels: int

    @property
    def signal(self) -> float:
        """Variance that candidates share."""
        return float(np.exp(self.theta[0]))

    @property
    def own(self) -> float:
        """Variance of a candidate's own."""
        return float(np.exp(self.theta[1]))


def fit(inputs: Inputs, y: Array, noise: Array, steps: int = 15) -> Weights:
    """The weights of highest posterior density.

    Args:
        inputs: n rows.
        y: n values, of mean about 0 and variance about 1.
        noise: n variances of measuring.
        steps: of the optimiser at most.
    """
    a, b = inputs.labels.shape[1], inputs.numbers.shape[1]
    distances = _distances(inputs).reshape(a + b, -1)
    prior = np.concatenate([[0.0, OWN], np.full(a + b, WEIGHT)])
    bounds = [(-4.0, 3.0), (-9.0, 1.0), *[(-8.0, 3.0)] * (a + b)]
    start = np.clip(prior, *np.array(bounds).T)

    def loss(theta: Array) -> tuple[float, Array]:
        return _loss(theta, distances, y, noise, prior)

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return Weights(found.x, a)


def _distances(inputs: Inputs) -> Array:
    labels = [x[:, None] != x[None] for x in inputs.labels.T]
    return np.array([*labels, *[(x[:, None] - x[None]) ** 2 for x in inputs.numbers.T]], float)


def _loss(theta: Array, distances: Array, y: Array, noise: Array, prior: Array) -> tuple[float, Array]:
    """Negative log posterior and its gradient."""
    n, w = len(y), np.exp(theta[2:])
    stretch = 1 + 2 * (w @ distances).reshape(n, n)
    shared = math.exp(theta[0]) / np.sqrt(stretch)
    lower = cholesky(shared + np.diag(math.exp(theta[1]) + noise + JITTER), lower=True, check_finite=False)
    inverse = cho_solve((lower, True), np.eye(n), check_finite=False)
    ones = inverse.sum(axis=0)
    residual = y - ones @ y / ones.sum()
    alpha = inverse @ residual
    slope = 0.5 * (inverse - np.outer(alpha, alpha))
    weighted = slope * shared
    gradient = np.concatenate(
        [[weighted.sum(), math.exp(theta[1]) * np.trace(slope)], -(distances @ (weighted / stretch).ravel()) * w]
    )
    scale = np.array([2.0, 2.0, *[SPREAD] * len(w)])
    off = (theta - prior) / scale
    loss = 0.5 * residual @ alpha + np.log(np.diag(lower)).sum() + 0.5 * off @ off
    return float(loss), gradient + off / scale


class Process:
    """Values predicted from n told ones.

    Args:
        weights: of the kernel.
        inputs: n rows.
        y: n values.
        noise: n variances of measuring.
    """

    def __init__(self, weights: Weights, inputs: Inputs, y: Array, noise: Array) -> None:
        self._weights = weights
        w = np.exp(0.5 * weights.theta[2:])
        self._label_scale, self._number_scale = w[: weights.labels], w[weights.labels :]
        self._levels = [np.unique(x) for x in inputs.labels.T]
        self._features = self._embed(inputs)
        shared = self._shared(self._features)
        self._lower = cholesky(shared + np.diag(weights.own + noise + JITTER), lower=True, check_finite=False)
        solved = cho_solve((self._lower, True), np.stack([np.ones(len(y)), y], axis=1), check_finite=False)
        self._mean = float(solved[:, 1].sum() / solved[:, 0].sum())
        self._alpha = solved[:, 1] - self._mean * solved[:, 0]
        self.fitted = y - noise * self._alpha
        """The n values without the noise of measuring, as far as can be told."""

    def _embed(self, inputs: Inputs) -> tuple[Array, Array]:
        """Rows of which half the squared distance is d; and halves of their squares."""
        parts = [
            scale * (x[:, None] == levels[None])
            for x, levels, scale in zip(inputs.labels.T, self._levels, self._label_scale, strict=True)
        ]
        numbers = inputs.numbers * self._number_scale * math.sqrt(2)
        halves = 0.5 * (numbers**2).sum(axis=1) + 0.5 * float((self._label_scale**2).sum())
        return np.concatenate([*parts, numbers], axis=1), halves

    def _shared(self, other: tuple[Array, Array]) -> Array:
        (mine, half), (theirs, other_half) = self._features, other
        stretch = mine @ theirs.T
        stretch *= -2
        stretch += (1 + 2 * half)[:, None]
        stretch += (2 * other_half)[None]
        np.sqrt(np.maximum(stretch, 1, out=stretch), out=stretch)
        return np.asarray(np.divide(self._weights.signal, stretch, out=stretch))

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation of each row's true value (m,)."""
        shared = self._shared(self._embed(inputs))
        mean = self._mean + self._alpha @ shared
        part = solve_triangular(self._lower, shared, lower=True, check_finite=False, overwrite_b=True)
        variance = self._weights.signal + self._weights.own - np.einsum("ij,ij->j", part, part)
        return mean, np.sqrt(np.maximum(variance, 1e-8))
