"""SciPy's values: at tails of 1e-9 and more, the thresholds that a file may hold."""

import numpy as np
import pytest
from scipy import special, stats

from handful.ops.student_t import upper_quantile, upper_tail

FREEDOMS = [12, 13, 20, 111, 1000, 100_000]
RATES = [1e-6, 1e-4, 0.003, 0.03, 0.2, 0.4999]


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("t", [-40, -3, -0.2, 0, 0.7, 2.5, 6])
def test_the_tail_is_scipys(t, freedom):
    assert upper_tail(t, freedom) == pytest.approx(special.stdtr(freedom, -t), rel=1e-11)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("rate", RATES)
def test_the_quantile_is_scipys(rate, freedom):
    assert upper_quantile(rate, freedom) == pytest.approx(-special.stdtrit(freedom, rate), abs=1e-11)
    assert upper_quantile(1 - rate, freedom) == pytest.approx(special.stdtrit(freedom, rate), abs=1e-9)


@pytest.mark.parametrize("pictures", [1, 2, 8, 100, 5000])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("chance", [0.05, 0.5, 0.95])
def test_the_non_central_quantile_is_scipys(chance, rate, pictures):
    freedom, delta = 11 + pictures, special.ndtri(1 - rate) * np.sqrt(pictures)
    expected = special.nctdtrit(freedom, delta, 1 - chance)
    assert upper_quantile(chance, freedom, delta=delta) == pytest.approx(expected, rel=1e-9)


def test_the_non_central_tail_is_scipys():
    found = [upper_tail(t, 15, delta=4.0) for t in (1.0, 4.0, 9.0)]
    np.testing.assert_allclose(found, stats.nct.sf([1.0, 4.0, 9.0], 15, 4.0), rtol=1e-9)


def test_far_tails_vanish_in_order():
    tails = [upper_tail(t, 12) for t in (10, 100, 1e3, 1e6)]
    assert tails == sorted(tails, reverse=True) and 0 <= tails[-1] < 1e-20 < tails[0]
