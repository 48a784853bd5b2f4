"""Numbers as text, the same in every report. A missing number is an en dash."""

MISSING = "–"


def size(value: float | None) -> str:
    """Bytes in decimal units, three significant digits: 8.93 MB."""
    if value is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale * 0.9995:
            return f"{significant(value / scale)} {unit}"
    return f"{value:.0f} B"


def megabytes(value: float | None) -> str:
    """The number of a column headed MB."""
    return MISSING if value is None else _aligned(value / 1e6)


def kilobytes(value: float | None) -> str:
    """The number of a column headed kB."""
    return MISSING if value is None else _aligned(value / 1e3)


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits without an exponent, never fewer than the whole part has."""
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}") if abs(value) < 10**digits else value
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole:
        return f"{value:,.{max(0, digits - whole)}f}"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{digits + _zeros(value)}f}"


def ratio(value: float | None) -> str:
    """How many times better than float: 3.63x."""
    return MISSING if value is None else f"{_aligned(value)}×"


def smaller(value: float) -> str:
    """How a size compares with another that is `value` times as large: 1.80x smaller, 1.04x larger."""
    return f"{value:.2f}x smaller" if value >= 1 else f"{1 / value:.2f}x larger"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as the number of a column headed %."""
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends of an interval of fractions, in percent."""
    return MISSING if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return MISSING if value is None else f"{value:,.0f}"


def amount(value: float | None) -> str:
    """A large count in words: 97.8 M."""
    if value is None:
        return MISSING
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale * 0.9995:
            return f"{significant(value / scale)} {unit}"
    return f"{value:.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A plain number with a fixed number of decimals."""
    return MISSING if value is None else f"{value:.{digits}f}"


def small(value: float | None) -> str:
    """A quantity that spans decades: two significant digits."""
    return MISSING if value is None else significant(value, 2) if value < 1 else f"{value:.2f}"


def figure(value: float | None) -> str:
    """A metric of any size: four significant digits."""
    return MISSING if value is None else significant(value, 4)


def divergence(value: float | None) -> str:
    """A KL; below 1e-9 float32 outputs cannot tell it from zero."""
    return "<1e-9" if value is not None and 0 < value < 1e-9 else small(value)


def p_value(value: float | None) -> str:
    """A p: two decimals, or a bound where it is tiny."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def milliseconds(value: float | None) -> str:
    """The number of a column headed ms."""
    return MISSING if value is None else _aligned(value)


def _aligned(value: float) -> str:
    """Two decimals where numbers of a column share a scale, so that their points stand below each other."""
    return f"{value:.2f}" if 0.0995 <= abs(value) < 9.995 else significant(value)


def _zeros(value: float) -> int:
    """Zeros after the decimal point before the first digit of a number below 1."""
    text = f"{abs(value):.6f}".split(".")[1]
    return len(text) - len(text.lstrip("0"))
