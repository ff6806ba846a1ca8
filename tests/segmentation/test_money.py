from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.money import MINOR_DIGITS, Converter, UnknownCurrency, format_minor

currencies = st.sampled_from(sorted(MINOR_DIGITS))
rates = st.decimals(min_value="0.000000001", max_value=10**9, places=9)
amounts = st.integers(-(2**53), 2**53)


@given(base=currencies, other=currencies, rate=rates, amount=amounts)
def test_a_conversion_is_the_exact_product_rounded_half_to_even(
    base: str, other: str, rate: Decimal, amount: int
) -> None:
    """Whatever the currencies' minor digits, the result is the integer nearest to the exact amount."""
    converter = Converter(base, {other: rate})

    exact = Fraction(amount) * Fraction(rate) * Fraction(10) ** (MINOR_DIGITS[base] - MINOR_DIGITS[other])
    expected = amount if base == other else round(exact)
    assert converter.to_base_minor(amount, other) == expected


@given(base=currencies, other=currencies, rate=rates, amount=amounts)
def test_the_ratio_says_the_same_as_the_conversion(base: str, other: str, rate: Decimal, amount: int) -> None:
    """Whoever computes with the published fraction comes to the same amount."""
    converter = Converter(base, {other: rate})

    numerator, denominator = converter.ratio(other)
    assert round(Fraction(amount * numerator, denominator)) == converter.to_base_minor(amount, other)


@pytest.mark.parametrize(
    ("currency", "rate", "amount", "in_cents"),
    [
        ("USD", None, 12_345, 12_345),
        ("EUR", "1.08", 10_000, 10_800),
        ("JPY", "0.0067", 1_500, 1_005),  # no minor unit: 1,500 yen are 10.05 dollars
        ("KWD", "3.25", 1_000, 325),  # three digits: 1,000 fils are one dinar
        ("CLF", "40", 10_000, 4_000),  # four digits
        ("EUR", "0.5", 1, 0),  # halves go to the even neighbour ...
        ("EUR", "0.5", 3, 2),
        ("EUR", "0.5", 5, 2),
        ("EUR", "0.5", -1, 0),  # ... below zero too
        ("EUR", "0.5", -3, -2),
        ("EUR", "0.500000001", 1, 1),
        # what floating point would make 1507, 3152519739159346 and 1080000000000006
        ("EUR", "1.005", 1_500, 1_508),
        ("EUR", "0.35", 2**53 - 1, 3_152_519_739_159_347),
        ("EUR", "1.08", 10**15 + 5, 1_080_000_000_000_005),
    ],
)
def test_known_conversions_into_dollars(currency: str, rate: str | None, amount: int, in_cents: int) -> None:
    """Each currency counts by its own minor digits."""
    converter = Converter("USD", {currency: Decimal(rate)} if rate else {})

    assert converter.to_base_minor(amount, currency) == in_cents


def test_a_currency_without_a_rate_is_refused() -> None:
    """No rate is ever assumed, not even 1."""
    converter = Converter("USD", {"EUR": Decimal("1.08")})

    with pytest.raises(UnknownCurrency, match="GBP"):
        converter.to_base_minor(1, "GBP")
    with pytest.raises(UnknownCurrency, match="GBP"):
        converter.ratio("GBP")
    assert converter.ratio("USD") == (1, 1)
    assert converter.currencies == ("EUR", "USD")


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_a_rate_must_be_above_zero(rate: str) -> None:
    """Money that turns into nothing, or into debt, is a mistake in the rate."""
    with pytest.raises(ValueError, match="rate"):
        Converter("USD", {"EUR": Decimal(rate)})


def test_a_code_without_minor_digits_is_no_currency() -> None:
    """Gold has a code, but nothing to count its amounts in."""
    assert "XAU" not in MINOR_DIGITS
    with pytest.raises(UnknownCurrency):
        Converter("XAU", {})
    with pytest.raises(UnknownCurrency):
        Converter("USD", {"XAU": Decimal(2000)})


def test_the_table_has_the_currencies_of_the_standard() -> None:
    """165 codes, three letters each, and the digits that are easy to get wrong."""
    assert len(MINOR_DIGITS) == 165
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in MINOR_DIGITS)
    digits = {"USD": 2, "JPY": 0, "KRW": 0, "CLP": 0, "ISK": 0, "KWD": 3, "TND": 3, "CLF": 4, "UYW": 4}
    assert {code: MINOR_DIGITS[code] for code in digits} == digits


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (123_450, "USD", "1,234.50 USD"),
        (-5, "USD", "-0.05 USD"),
        (-123_450, "EUR", "-1,234.50 EUR"),
        (1_234, "JPY", "1,234 JPY"),
        (1_234, "KWD", "1.234 KWD"),
        (12_345, "CLF", "1.2345 CLF"),
        (0, "USD", "0.00 USD"),
        (2**80, "USD", "12,089,258,196,146,291,747,061.76 USD"),
    ],
)
def test_amounts_for_people(amount: int, currency: str, text: str) -> None:
    """Thousands are parted, and every minor digit is there, at any size."""
    assert format_minor(amount, currency) == text
