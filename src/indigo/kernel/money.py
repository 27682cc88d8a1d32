"""Money is an integer of micro-dollars (1 USD = 1,000,000). Prices are micro-dollars per million tokens."""

from __future__ import annotations

from decimal import Decimal

MICROS = 1_000_000


def micros(dollars: str | int | float | Decimal) -> int:
    """Micro-dollars of an amount in dollars, exactly; raises ValueError for what is no finite amount >= 0."""
    amount = Decimal(str(dollars))
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{dollars!r} is not an amount of money")
    scaled = amount * MICROS
    if scaled != scaled.to_integral_value() or scaled > 2**53:
        raise ValueError(f"{dollars!r} has more than six decimal places, or is too large")
    return int(scaled)


def cost(tokens: int, price_per_million: int) -> int:
    """Micro-dollars times one million for `tokens`; sum the parts first, then `rounded` once."""
    return tokens * price_per_million


def rounded(micro_millionths: int) -> int:
    """A sum of `cost` parts as whole micro-dollars, half up."""
    return (micro_millionths + 500_000) // 1_000_000
