"""Epsilon against what dp-accounting 0.6.0 says, which is not in the lock, and against the formula of whole orders."""

import math

import pytest
from scipy.special import comb

from model.training.accountant import epsilon, renyi

# rate, noise, steps, delta; epsilon by `rdp.RdpAccountant` with its orders, and by `pld.PLDAccountant` with
# `value_discretization_interval=1e-3`. The first is the same bound, where it leaves out no order for want of
# convergence; the second is nearly the truth, which no bound may fall below.
KNOWN = [
    pytest.param(0.01, 4.0, 10_000, 1e-5, 1.0354900660362436, 0.9600452104972911, id="as in Abadi et al."),
    pytest.param(256 / 60_000, 1.1, 60 * 234, 1e-5, 2.5943633557853634, 2.3884794055755476, id="as for MNIST"),
    pytest.param(0.03, 1.0, 400, 1e-5, 4.326181816292603, 3.851600254737447, id="a small log"),
    pytest.param(0.13, 5.0, 200, 1e-4, 1.3760231780750234, 1.2331983370201602, id="much noise"),
    pytest.param(0.5, 10.0, 50, 1e-6, 1.6911198001840888, 1.5695820039549764, id="half of all"),
    pytest.param(0.9, 3.0, 5, 1e-3, 2.24401820999405, 1.9671919887655231, id="nearly all"),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "bound", "truth"), KNOWN)
def test_epsilon_is_that_of_dp_accounting(rate, noise, steps, delta, bound, truth):
    said = epsilon(rate, noise, steps, delta)
    assert said == pytest.approx(bound, rel=1e-4)
    assert said > truth


def test_little_noise_is_bounded_where_few_orders_converge_elsewhere():
    # dp-accounting leaves out orders below 1.7 here, and says 42.37; the truth is 36.86.
    assert 36.855 < epsilon(0.1, 0.6, 300, 1e-5) < 42.366


def test_without_sampling_it_is_the_gaussian_mechanism():
    # The divergence of N(0, 4) and N(1, 4) is a / 8 a step; dp-accounting says 8.84687435850794 after 10 steps.
    assert renyi(1.0, 2.0, 3.0) == pytest.approx(3 / 8)
    assert epsilon(1.0, 2.0, 10, 1e-6) == pytest.approx(8.84687435850794, rel=1e-9)


@pytest.mark.parametrize(("rate", "noise", "order"), [(0.01, 1.0, 2), (0.2, 0.5, 7), (0.6, 3.0, 32), (0.05, 8.0, 63)])
def test_the_integral_is_the_binomial_sum_of_the_paper(rate, noise, order):
    terms = (
        comb(order, k, exact=True) * (1 - rate) ** (order - k) * rate**k * math.exp((k * k - k) / (2 * noise**2))
        for k in range(order + 1)
    )
    assert renyi(rate, noise, float(order)) == pytest.approx(math.log(math.fsum(terms)) / (order - 1), rel=1e-9)


def test_what_is_not_bounded_is_infinite_and_nothing_costs_nothing():
    assert epsilon(0.1, 0.0, 10, 1e-5) == epsilon(0.1, 1e-200, 10, 1e-5) == math.inf
    assert 1000 < epsilon(0.1, 0.05, 10, 1e-5) < math.inf
    assert epsilon(0.1, math.inf, 10, 1e-5) == math.inf
    assert epsilon(0.1, 1.0, 0, 1e-5) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0.0, 1.0, 1, 1e-5), "rate must be above 0 and at most 1, got 0.0"),
        ((1.5, 1.0, 1, 1e-5), "rate must be above 0 and at most 1, got 1.5"),
        ((0.1, -1.0, 1, 1e-5), "noise must be 0 or more, got -1.0"),
        ((0.1, math.nan, 1, 1e-5), "noise must be 0 or more, got nan"),
        ((0.1, 1.0, -1, 1e-5), "steps must be 0 or more, got -1"),
        ((0.1, 1.0, 1, 0.0), "delta must be above 0 and below 1, got 0.0"),
        ((0.1, 1.0, 1, 1.0), "delta must be above 0 and below 1, got 1.0"),
    ],
)
def test_arguments_outside_of_their_range_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        epsilon(*arguments)
