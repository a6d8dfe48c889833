"""Elementary functions on fixed-point integers: the real x is the integer x * 2**BITS, rounded.

120 decimal digits behind the point; results are right to about 110 of them. Complex numbers are pairs (real, imaginary) of such integers,
functions of them take principal values. Arguments beyond what this size can hold raise `OutOfRange`; nothing else is raised.
"""

from __future__ import annotations

from fractions import Fraction
from math import frexp, isqrt
from math import log as float_log

BITS = 400
ONE = 1 << BITS
MAX_MAGNITUDE = 1 << (BITS + 340)
TINY = 1 << (BITS - 200)
Complex = tuple[int, int]
ZERO: Complex = (0, 0)
UNIT: Complex = (ONE, 0)


class OutOfRange(ValueError):
    """A value that fixed-point numbers of this size cannot hold or compute."""


def _inverse_series(n: int, sign: int) -> int:
    """arctan(1/n) for sign -1, artanh(1/n) for sign 1; n >= 2."""
    term = (ONE << 32) // n
    total, square, k = term, n * n, 1
    while term:
        term //= square
        k += 2
        total += (term // k) * (sign if k % 4 == 3 else 1)
    return total >> 32


PI = 4 * (4 * _inverse_series(5, -1) - _inverse_series(239, -1))
LN2 = 2 * _inverse_series(3, 1)


def from_fraction(value: Fraction) -> Complex:
    """The complex number of a rational; 2**-200 <= |value| < 2**340, or 0."""
    numerator, denominator = value.numerator, value.denominator
    if numerator.bit_length() - denominator.bit_length() > 338:
        raise OutOfRange
    fixed = (numerator << BITS) // denominator
    if numerator and abs(fixed) < TINY:
        raise OutOfRange
    return fixed, 0


def real_sqrt(x: int) -> int:
    """Square root of x >= 0."""
    return isqrt(x << BITS)


def real_exp(x: int) -> int:
    """e**x for -130 < x < 230."""
    if not -130 * ONE < x < 230 * ONE:
        raise OutOfRange
    n, rest = divmod(x, LN2)
    rest >>= 8
    total = term = ONE
    k = 1
    while term:
        term = (term * rest >> BITS) // k
        total += term
        k += 1
    for _ in range(8):
        total = total * total >> BITS
    return total << n if n >= 0 else total >> -n


def real_log(x: int) -> int:
    """Natural logarithm of x > 0, by Newton steps that triple the digits, from the 50 bits of the machine's logarithm."""
    shift = x.bit_length() - BITS
    scaled = x >> shift if shift >= 0 else x << -shift
    mantissa, exponent = frexp(scaled / ONE)
    y = int((float_log(mantissa) + exponent * 0.6931471805599453) * (1 << 60)) << (BITS - 60)
    for _ in range(2):
        e = real_exp(y)
        y += 2 * ((scaled - e) << BITS) // (scaled + e)
    return y + shift * LN2


def real_sin_cos(x: int) -> tuple[int, int]:
    """(sin x, cos x) for |x| < 2**40."""
    if abs(x) >> (BITS + 40):
        raise OutOfRange
    half_pi = PI >> 1
    quarter, rest = divmod(x, half_pi)
    rest >>= 5
    square = rest * rest >> BITS
    sine = term = rest
    k = 1
    while term:
        term = -(term * square >> BITS) // ((k + 1) * (k + 2))
        if term == -1:
            break
        sine += term
        k += 2
    cosine = real_sqrt(max(0, ONE - (sine * sine >> BITS)))
    for _ in range(5):
        sine, cosine = 2 * sine * cosine >> BITS, ONE - 2 * (sine * sine >> BITS)
    return ((sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine))[quarter % 4]


def real_arctan(x: int) -> int:
    """arctan x, in (-pi/2, pi/2)."""
    if x < 0:
        return -real_arctan(-x)
    if x > ONE:
        return (PI >> 1) - real_arctan((ONE << BITS) // x)
    for _ in range(8):
        x = (x << BITS) // (ONE + real_sqrt(ONE + (x * x >> BITS)))
    square = x * x >> BITS
    total = term = x
    k = 1
    while term > 0:
        term = term * square >> BITS
        k += 2
        total += term // k if k % 4 == 1 else -(term // k)
    return total << 8


def multiply(a: Complex, b: Complex) -> Complex:
    """a * b; a product that is lost below 2**-250 is out of range."""
    product = multiply_small(a, b) if a[1] or b[1] else ((a[0] * b[0]) >> BITS, 0)
    size = abs(product[0]) + abs(product[1])
    if size > MAX_MAGNITUDE or (size < TINY and a != ZERO and b != ZERO):
        raise OutOfRange
    return product


def add(a: Complex, b: Complex) -> Complex:
    """a + b; what remains of a cancellation is zero."""
    return _snapped(a[0] + b[0], a[0], b[0]), _snapped(a[1] + b[1], a[1], b[1])


def _snapped(total: int, a: int, b: int) -> int:
    return 0 if total and abs(total) < (max(abs(a), abs(b), ONE) >> 320) else total


def negate(a: Complex) -> Complex:
    return -a[0], -a[1]


def modulus(a: Complex) -> int:
    """|a|, a real."""
    return abs(a[0]) if not a[1] else isqrt(a[0] * a[0] + a[1] * a[1])


def invert(a: Complex) -> Complex:
    """1 / a for |a| >= 2**-200."""
    square = a[0] * a[0] + a[1] * a[1]
    if square < TINY * TINY:
        raise OutOfRange
    return (a[0] << 2 * BITS) // square, -(a[1] << 2 * BITS) // square


def tidy(a: Complex) -> Complex:
    """`a` without a part that is only the rounding of the other: on a branch cut that part's sign would decide."""
    limit = max(abs(a[0]), abs(a[1]), ONE) >> 320
    return (0 if abs(a[0]) < limit else a[0]), (0 if abs(a[1]) < limit else a[1])


def exp(a: Complex) -> Complex:
    size = real_exp(a[0])
    if not a[1]:
        return size, 0
    sine, cosine = real_sin_cos(a[1])
    return tidy((size * cosine >> BITS, size * sine >> BITS))


def log(a: Complex) -> Complex:
    """Principal logarithm of a != 0, imaginary part in (-pi, pi]."""
    a = tidy(a)
    if a == ZERO:
        raise OutOfRange
    return real_log(modulus(a)), argument(a)


def argument(a: Complex) -> int:
    """The angle of a != 0 in (-pi, pi]."""
    x, y = a
    if not y:
        return PI if x < 0 else 0
    if not x:
        return (PI >> 1) if y > 0 else -(PI >> 1)
    angle = real_arctan((y << BITS) // x)
    if x < 0:
        angle += PI if y > 0 else -PI
    return angle


def sqrt(a: Complex) -> Complex:
    """Principal square root."""
    x, y = tidy(a)
    if not y:
        return (real_sqrt(x), 0) if x >= 0 else (0, real_sqrt(-x))
    size = modulus((x, y))
    real, imaginary = real_sqrt((size + x) >> 1), real_sqrt((size - x) >> 1)
    return real, imaginary if y > 0 else -imaginary


def sin_cos(a: Complex) -> tuple[Complex, Complex]:
    """(sin a, cos a)."""
    sine, cosine = real_sin_cos(a[0])
    if not a[1]:
        return tidy((sine, 0)), tidy((cosine, 0))
    up = real_exp(a[1])
    down = (ONE << BITS) // up
    cosh, sinh = (up + down) >> 1, (up - down) >> 1
    return (
        tidy((sine * cosh >> BITS, cosine * sinh >> BITS)),
        tidy((cosine * cosh >> BITS, -sine * sinh >> BITS)),
    )


def arcsin(a: Complex) -> Complex:
    """Principal arcsine: -i log(i a + sqrt(1 - a**2))."""
    root = sqrt(add(UNIT, negate(multiply_small(a, a))))
    x, y = log(add((-a[1], a[0]), root))
    return tidy((y, -x))


def arctan(a: Complex) -> Complex:
    """Principal arctangent; a is not i or -i."""
    if not a[1]:
        return real_arctan(a[0]), 0
    turned = (-a[1], a[0])
    x, y = add(log(add(UNIT, turned)), negate(log(add(UNIT, negate(turned)))))
    return tidy((y >> 1, -x >> 1))


def multiply_small(a: Complex, b: Complex) -> Complex:
    """a * b where a vanishing product is as good as zero."""
    return (a[0] * b[0] - a[1] * b[1]) >> BITS, (a[0] * b[1] + a[1] * b[0]) >> BITS
