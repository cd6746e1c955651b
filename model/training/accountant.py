"""How much a training with noise tells about one user: the accountant of the subsampled Gaussian mechanism.

In each step every user takes part with probability q, one user changes the sum by C at most, and the sum gets Gaussian
noise of standard deviation z C. After T such steps, whether one user was among the others changes the probability of
any outcome by a factor of e^epsilon at most, but for a probability of delta:

    epsilon = min over orders a of   T R(a) + log(1 - 1/a) - log(delta a) / (a - 1)

R(a) is the Renyi divergence of order a of one step: Mironov, Talwar and Zhang, "Renyi differential privacy of the
sampled Gaussian mechanism", 2019, arXiv:1908.10530, section 3.3. The conversion is proposition 12 of Canonne, Kamath
and Steinke, 2020, arXiv:2004.00010. Each order gives a valid bound; the orders are those of Google's dp-accounting.

Written anew since `dp-accounting` does not resolve beside Airflow (attrs below 24). Tests compare both.
"""

import math

import numpy as np
from scipy.special import logsumexp

ORDERS = (*(1 + n / 10 for n in range(1, 100)), *map(float, range(11, 64)), 128.0, 256.0, 512.0, 1024.0)
LEAST_NOISE = 0.05
REACH, GRID = 12.0, 0.02  # of the integral, in standard deviations of the noise


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """Return the smallest epsilon that holds for `delta`; infinite where there is none.

    Args:
        rate: q, the probability of a user in a step, above 0 and at most 1.
        noise: z, standard deviation of the noise as a multiple of the greatest contribution of a user. Of less than
            `LEAST_NOISE` no bound is computed, since none would be of use.
        steps: T, 0 or more.
        delta: above 0 and below 1.

    Raises:
        ValueError: an argument is outside of its range.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, got {rate}")
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or more, got {noise}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be above 0 and below 1, got {delta}")
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if steps == 0:
        return 0.0
    if noise < LEAST_NOISE or not math.isfinite(noise):
        return math.inf
    bounds = (
        steps * renyi(rate, noise, order) + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order in ORDERS
    )
    return max(0.0, min(bound for bound in bounds if not math.isnan(bound)))


def renyi(rate: float, noise: float, order: float) -> float:
    """Return R(a): the Renyi divergence of one step, in nats, for an order above 1.

    By definition the log of a moment, divided by a - 1: that of the ratio of both densities of the sum, with the user
    and without, in units of C. The trapezoidal rule is exact to the last digits for a smooth function that vanishes at
    both ends.
    """
    if rate == 1:
        return order / (2 * noise**2)
    # The ratio draws the weight of the moment from 0, where the noise has its own, towards the order.
    sums = np.arange(-REACH * noise, order + REACH * noise, GRID * noise)
    density = -0.5 * (sums / noise) ** 2 - math.log(noise * math.sqrt(2 * math.pi))
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * sums - 1) / (2 * noise**2))
    return float(logsumexp(density + order * ratio) + math.log(GRID * noise)) / (order - 1)
