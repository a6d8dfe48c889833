"""Expression tree -> its value at a point.

A value is an exact `Fraction` as long as the arithmetic stays rational, else a fixed-point `Complex`. Free variables take the fixed values of `points`; two
expressions are one function if their values agree at all points. Everything is bounded: size of numbers, number of operations; beyond the bounds
`Unreadable` is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import factorial, gcd, isqrt, lcm

from selftrain.answers import precision as fixed
from selftrain.answers.grammar import Node
from selftrain.answers.lexer import Unreadable
from selftrain.answers.points import place
from selftrain.answers.precision import BITS, ONE, PI, Complex

Value = Fraction | Complex
MAX_BITS = 13000
MAX_COST = 4000
_COST_OF_CALL = 25
_MAX_DENOMINATOR = 10**20
_E: Complex = (fixed.real_exp(ONE), 0)
_TRIGONOMETRIC = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))


class Evaluator:
    """Evaluates trees at one point; `sign` is what ± stands for."""

    def __init__(self, point: int, sign: int = 1) -> None:
        self._point = point
        self._sign = sign
        self._cost = 0
        self._in_angle = False

    def value(self, tree: Node) -> Value:
        """The value of a tree; `Unreadable` where it is undefined, too large or too costly."""
        try:
            return self._value(tree)
        except (fixed.OutOfRange, ZeroDivisionError, OverflowError):
            raise Unreadable from None

    def _value(self, tree: Node) -> Value:
        self._cost += 1
        if self._cost > MAX_COST:
            raise Unreadable
        kind = tree[0]
        if kind == "num":
            return tree[1]  # type: ignore[no-any-return]
        if kind == "var":
            return place(tree[1], self._point)
        if kind == "const":
            return _constant(tree[1])
        if kind == "-":
            return _negated(self._value(tree[1]))
        if kind == "^":
            return self._power(tree[1], tree[2])
        if kind == "call":
            return self._call(tree[1], tree[2])
        if kind == "°":
            inner = self._value(tree[1])
            return _product(inner, (PI // 180, 0)) if self._in_angle else inner
        left, right = self._value(tree[1]), self._value(tree[2])
        if kind == "+":
            return _sum(left, right)
        if kind == "*":
            return _product(left, right)
        if kind == "/":
            return _product(left, _inverse(right))
        return _sum(left, right if (kind == "±") == (self._sign > 0) else _negated(right))

    def _power(self, base: Node, exponent: Node) -> Value:
        power = self._value(exponent)
        if base == ("const", "e"):
            self._cost += _COST_OF_CALL
            return Fraction(1) if power == 0 else fixed.exp(as_complex(power))
        root = self._value(base)
        if not isinstance(power, Fraction):
            near = rational(power)
            power = power if near is None else near
        self._cost += _COST_OF_CALL
        return _raised(root, power)

    def _call(self, name: str, arguments: tuple[Node, ...]) -> Value:
        self._cost += _COST_OF_CALL
        if name[0] == "?":
            return self._unknown(name, arguments)
        outer, self._in_angle = self._in_angle, name in _TRIGONOMETRIC
        values = [self._value(argument) for argument in arguments]
        self._in_angle = outer
        if name in ("max", "min", "gcd", "lcm", "mod", "binomial", "log") and len(values) >= 2:
            return _several(name, values)
        if len(values) != 1:
            raise Unreadable
        (value,) = values
        if name == "abs":
            return abs(value) if isinstance(value, Fraction) else (fixed.modulus(value), 0)
        if name in ("factorial", "factorial2"):
            return _factorial(value, 1 if name == "factorial" else 2)
        if name in ("floor", "ceil", "sgn", "re", "im"):
            return _stepped(name, value)
        if name == "sqrt" or name == "cbrt":
            return _raised(value, Fraction(1, 2 if name == "sqrt" else 3))
        function = _FUNCTIONS.get(name)
        if function is None:
            raise Unreadable
        return function(as_complex(value))

    def _unknown(self, name: str, arguments: tuple[Node, ...]) -> Value:
        """The value of a function nobody knows: a hash of its name and of 40 digits of its arguments."""
        seen = "|".join(f"{part >> 270}" for argument in arguments for part in as_complex(self._value(argument)))
        return place(f"{name}({seen})", 0)


def as_complex(value: Value) -> Complex:
    return fixed.from_fraction(value) if isinstance(value, Fraction) else value


def rational(value: Complex) -> Fraction | None:
    """The rational with a denominator up to 10**20 that `value` is to within 2**-280, or None.

    A continued fraction on the leading digits finds the candidate: the convergent before the first huge quotient.
    """
    if value[1]:
        return None
    shift = max(0, BITS - 220)
    rest, over = value[0] >> shift, ONE >> shift
    before, top, under, bottom = 0, 1, 1, 0
    while bottom <= _MAX_DENOMINATOR:
        digit, remainder = divmod(rest, over)
        if bottom and digit >> 70:
            break
        before, top, under, bottom = top, digit * top + before, bottom, digit * bottom + under
        if not remainder:
            break
        rest, over = over, remainder
    if bottom <= _MAX_DENOMINATOR and abs(value[0] * bottom - (top << BITS)) <= (max(abs(value[0]), ONE) >> 280) * bottom:
        return Fraction(top, bottom)
    return None


def _constant(name: str) -> Value:
    if name == "pi":
        return PI, 0
    return _E if name == "e" else (0, ONE)


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise Unreadable
    return value


def _negated(value: Value) -> Value:
    return -value if isinstance(value, Fraction) else fixed.negate(value)


def _sum(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a + b)
    return fixed.add(as_complex(a), as_complex(b))


def _product(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a * b)
    if a == 0 or b == 0:
        return Fraction(0)
    return fixed.multiply(as_complex(a), as_complex(b))


def _inverse(value: Value) -> Value:
    return 1 / value if isinstance(value, Fraction) else fixed.invert(value)


def _raised(base: Value, power: Value) -> Value:
    """base ** power; odd roots of negative reals are real, everything else takes the principal value."""
    if isinstance(power, Fraction):
        if power.denominator == 1:
            return _whole_power(base, power.numerator)
        if isinstance(base, Fraction):
            exact = _exact_root(base, power)
            if exact is not None:
                return exact
        z = as_complex(base)
        if z == fixed.ZERO:
            if power > 0:
                return Fraction(0)
            raise Unreadable
        if power.denominator == 2 and abs(power.numerator) < 64:
            return _whole_power(fixed.sqrt(z), power.numerator)
        if not z[1] and z[0] < 0 and power.denominator % 2:
            size = fixed.exp(fixed.multiply(as_complex(power), fixed.log((-z[0], 0))))
            return size if power.numerator % 2 == 0 else fixed.negate(size)
    z = as_complex(base)
    if z == fixed.ZERO:
        raise Unreadable
    return fixed.exp(fixed.multiply_small(as_complex(power), fixed.log(z)))


def _whole_power(base: Value, power: int) -> Value:
    if isinstance(base, Fraction):
        if abs(power) * max(base.numerator.bit_length() - 1, base.denominator.bit_length() - 1) > MAX_BITS:
            raise Unreadable
        if abs(base) in (0, 1):
            power = (1 if power > 0 else -1) * (2 - power % 2) if power else 0
        return base**power
    if abs(power) > 5000:
        raise Unreadable
    if power < 0:
        return fixed.invert(as_complex(_whole_power(base, -power)))
    result = fixed.UNIT
    while power:
        if power & 1:
            result = fixed.multiply(result, base)
        power >>= 1
        if power:
            base = fixed.multiply(base, base)
    return result


def _exact_root(base: Fraction, power: Fraction) -> Fraction | None:
    degree = power.denominator
    if degree > 64 or (base < 0 and degree % 2 == 0):
        return None
    top, bottom = _integer_root(abs(base.numerator), degree), _integer_root(base.denominator, degree)
    if top is None or bottom is None or (not top and power < 0):
        return None
    root = Fraction(-top if base < 0 else top, bottom)
    result = _whole_power(root, power.numerator)
    return result if isinstance(result, Fraction) else None


def _integer_root(n: int, degree: int) -> int | None:
    """The exact root of n >= 0, or None where it is not whole."""
    if n < 2:
        return n
    if degree == 2:
        root = isqrt(n)
        return root if root * root == n else None
    low, high = 1, 1 << (n.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) >> 1
        if middle**degree <= n:
            low = middle
        else:
            high = middle - 1
    return low if low**degree == n else None


def _factorial(value: Value, step: int) -> Value:
    """n! (step 1) or n!! (step 2); of a non-integer x the product down to (1, 2), times a fixed unknown: (x+1)! = (x+1) x! holds."""
    if isinstance(value, Fraction):
        if value.denominator != 1 or not 0 <= value <= 1200:
            raise Unreadable
        n = int(value)
        if step == 1:
            return _bounded(Fraction(factorial(n)))
        product = 1
        for k in range(n, 1, -2):
            product *= k
        return _bounded(Fraction(product))
    x = value[0]
    if value[1] or step == 2 or abs(x) > 60 * ONE:
        raise Unreadable
    product_x = fixed.UNIT
    while x > 2 * ONE:
        product_x = fixed.multiply(product_x, (x, 0))
        x -= ONE
    while x < ONE:
        x += ONE
        product_x = fixed.multiply(product_x, fixed.invert((x, 0)))
    return fixed.multiply(product_x, place(f"!{x >> 270}", 0))


def _several(name: str, values: list[Value]) -> Value:
    if name == "binomial":
        return _binomial(values[0], values[1])
    if name == "log":
        raise Unreadable
    exact = [value if isinstance(value, Fraction) else rational(value) for value in values]
    numbers = [value for value in exact if value is not None]
    if name in ("max", "min"):
        if any(value[1] for value in map(as_complex, values)):
            raise Unreadable
        return (max if name == "max" else min)(values, key=lambda value: as_complex(value)[0])
    if len(numbers) != len(values):
        raise Unreadable
    if name == "mod":
        return numbers[0] % numbers[1]
    if any(number.denominator != 1 for number in numbers):
        raise Unreadable
    return _bounded(Fraction((gcd if name == "gcd" else lcm)(*(int(number) for number in numbers))))


def _binomial(n: Value, k: Value) -> Value:
    if isinstance(k, Fraction) and k.denominator == 1:
        if isinstance(n, Fraction) and n.denominator == 1 and 0 <= n < k:
            return Fraction(0)
        if isinstance(n, Fraction) and n.denominator == 1 and n - k < k:
            k = n - k
        if not 0 <= k <= 600:
            raise Unreadable
        product: Value = Fraction(1)
        for i in range(int(k)):
            product = _product(_product(product, _sum(n, Fraction(-i))), Fraction(1, i + 1))
        return product
    return _product(_factorial(n, 1), _inverse(_product(_factorial(k, 1), _factorial(_sum(n, _negated(k)), 1))))


def _stepped(name: str, value: Value) -> Value:
    if name in ("re", "im"):
        z = as_complex(value)
        return (z[0] if name == "re" else z[1]), 0
    near = value if isinstance(value, Fraction) else rational(value)
    if near is not None:
        return Fraction({"floor": near.__floor__, "ceil": near.__ceil__}[name]()) if name != "sgn" else Fraction((near > 0) - (near < 0))
    x, y = as_complex(value)
    if y:
        raise Unreadable
    if name == "sgn":
        return Fraction(1 if x > 0 else -1)
    return Fraction((x >> BITS) + (name == "ceil"))


def _ratio(a: Complex, b: Complex) -> Complex:
    return fixed.multiply_small(a, fixed.invert(b))


def _half(a: Complex, b: Complex) -> Complex:
    return (a[0] + b[0]) >> 1, (a[1] + b[1]) >> 1


def _cosh(z: Complex) -> Complex:
    return _half(fixed.exp(z), fixed.exp(fixed.negate(z)))


def _sinh(z: Complex) -> Complex:
    return _half(fixed.exp(z), fixed.negate(fixed.exp(fixed.negate(z))))


def _arccos(z: Complex) -> Complex:
    return fixed.add((PI >> 1, 0), fixed.negate(fixed.arcsin(z)))


def _arsinh(z: Complex) -> Complex:
    return fixed.log(fixed.add(z, fixed.sqrt(fixed.add(fixed.multiply_small(z, z), fixed.UNIT))))


def _arcosh(z: Complex) -> Complex:
    return fixed.log(fixed.add(z, fixed.sqrt(fixed.add(fixed.multiply_small(z, z), (-ONE, 0)))))


def _artanh(z: Complex) -> Complex:
    x, y = fixed.add(fixed.log(fixed.add(fixed.UNIT, z)), fixed.negate(fixed.log(fixed.add(fixed.UNIT, fixed.negate(z)))))
    return x >> 1, y >> 1


_LOG_OF_TEN = fixed.log((10 * ONE, 0))
_FUNCTIONS: dict[str, Callable[[Complex], Complex]] = {
    "sin": lambda z: fixed.sin_cos(z)[0],
    "cos": lambda z: fixed.sin_cos(z)[1],
    "tan": lambda z: _ratio(*fixed.sin_cos(z)),
    "cot": lambda z: _ratio(*reversed(fixed.sin_cos(z))),
    "sec": lambda z: fixed.invert(fixed.sin_cos(z)[1]),
    "csc": lambda z: fixed.invert(fixed.sin_cos(z)[0]),
    "asin": fixed.arcsin,
    "acos": _arccos,
    "atan": fixed.arctan,
    "arccot": lambda z: fixed.add((PI >> 1, 0), fixed.negate(fixed.arctan(z))),
    "exp": fixed.exp,
    "ln": fixed.log,
    "log": lambda z: _ratio(fixed.log(z), _LOG_OF_TEN),
    "lg": lambda z: _ratio(fixed.log(z), _LOG_OF_TEN),
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": lambda z: _ratio(_sinh(z), _cosh(z)),
    "coth": lambda z: _ratio(_cosh(z), _sinh(z)),
    "sech": lambda z: fixed.invert(_cosh(z)),
    "csch": lambda z: fixed.invert(_sinh(z)),
    "asinh": _arsinh,
    "acosh": _arcosh,
    "atanh": _artanh,
}
