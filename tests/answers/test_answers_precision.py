"""Fixed-point functions against identities and the machine's floats."""

import cmath
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.answers import precision as fixed
from selftrain.answers.evaluate import rational
from selftrain.answers.precision import BITS, ONE

REALS = st.integers(-3 * 10**6, 3 * 10**6).map(lambda n: n * ONE // 10**6 + n)
ERROR = 1 << (BITS - 340)


def shown(z):
    return complex(z[0] / ONE, z[1] / ONE)


@given(REALS, REALS)
def test_complex_functions_agree_with_floats(x, y):
    z = (x, y)
    if abs(shown(z)) < 1e-3 or abs(abs(shown(z)) - 1) < 1e-3 or abs(shown(z) ** 2 + 1) < 1e-3 or abs(y) < ONE >> 8:
        return
    pairs = [(fixed.exp, cmath.exp), (fixed.log, cmath.log), (fixed.sqrt, cmath.sqrt), (fixed.arcsin, cmath.asin), (fixed.arctan, cmath.atan)]
    for ours, theirs in pairs:
        assert shown(ours(z)) == pytest.approx(theirs(shown(z)), rel=1e-9, abs=1e-9)
    sine, cosine = fixed.sin_cos(z)
    assert shown(sine) == pytest.approx(cmath.sin(shown(z)), rel=1e-9, abs=1e-9)
    assert shown(cosine) == pytest.approx(cmath.cos(shown(z)), rel=1e-9, abs=1e-9)


@given(REALS)
def test_identities_hold_to_a_hundred_digits(x):
    sine, cosine = fixed.real_sin_cos(x)
    assert abs((sine * sine + cosine * cosine >> BITS) - ONE) < ERROR
    assert abs(fixed.real_log(fixed.real_exp(x)) - x) < ERROR
    assert abs((fixed.real_exp(x) * fixed.real_exp(-x) >> BITS) - ONE) < ERROR * 1000
    tangent = fixed.real_arctan(x)
    sine, cosine = fixed.real_sin_cos(tangent)
    assert abs((sine << BITS) // cosine - x) < ERROR


def test_pi_and_the_logarithm_of_two():
    assert str(fixed.PI * 10**50 >> BITS) == "314159265358979323846264338327950288419716939937510"
    assert str(fixed.LN2 * 10**50 >> BITS) == "69314718055994530941723212145817656807550013436025"


@given(st.fractions(max_denominator=10**9))
def test_rationals_are_recognised(value):
    fixed_value = (value.numerator << BITS) // value.denominator
    assert rational((fixed_value, 0)) == value


def test_irrationals_are_not_taken_for_rationals():
    for n in range(2, 200):
        root = fixed.real_sqrt(n * ONE)
        found = rational((root, 0))
        assert (found is None) == (round(n**0.5) ** 2 != n)
        assert found is None or found == Fraction(round(n**0.5))


def test_out_of_range_is_said():
    with pytest.raises(fixed.OutOfRange):
        fixed.real_exp(1000 * ONE)
    with pytest.raises(fixed.OutOfRange):
        fixed.invert(fixed.ZERO)
    with pytest.raises(fixed.OutOfRange):
        fixed.from_fraction(Fraction(1, 10**100))
