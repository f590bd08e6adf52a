"""Channel arithmetic of the mobile networks."""


def make_divisible(value: float, divisor: int, minimum: int | None = None) -> int:
    """Rounds a channel count to a multiple of `divisor`, never below 90 % of `value`."""
    minimum = divisor if minimum is None else minimum
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
