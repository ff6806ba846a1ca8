"""Money in minor units: which currencies there are, and exact conversion into the base currency.

Amounts are `int`s in a currency's minor units (cents, fils; yen has none). Nothing here is a float.
"""

from collections.abc import Mapping
from decimal import Decimal
from math import gcd

_CODES_BY_MINOR_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
    "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL "
    "MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR "
    "PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP "
    "TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

MINOR_DIGITS: Mapping[str, int] = {
    code: digits for digits, codes in _CODES_BY_MINOR_DIGITS.items() for code in codes.split()
}
"""ISO 4217 as published on 2026-01-01: code -> digits after the point. Codes that ISO gives no minor unit
(gold, special drawing rights, test codes) are not here: no amount in minor units can be in them."""


class UnknownCurrency(KeyError):
    """There is no rate for this currency: add one to the policy's `[rates]`, or mend the sender."""

    def __init__(self, currency: str) -> None:
        super().__init__(currency)
        self.currency = currency

    def __str__(self) -> str:
        return f"no rate for currency {self.currency[:20]!r}"


class Converter:
    """Converts amounts into minor units of the base currency, exactly, rounding halves to even.

    All decimal work happens once, here: each currency becomes one reduced fraction, so that a conversion is
    one integer multiplication and one division.
    """

    def __init__(self, base_currency: str, rates: Mapping[str, Decimal]) -> None:
        """`rates`: units of the base currency for one unit of the other, each above zero.

        Raises UnknownCurrency for a code that is not in MINOR_DIGITS, and ValueError for a rate that is not
        a finite number above zero.
        """
        base_digits = _minor_digits(base_currency)
        self.base_currency = base_currency
        self._ratios = {
            currency: _ratio(rate, base_digits - _minor_digits(currency)) for currency, rate in rates.items()
        }
        self._ratios[base_currency] = (1, 1)

    def to_base_minor(self, amount_minor: int, currency: str) -> int:
        """The amount in minor units of the base currency. O(1). Raises UnknownCurrency without a rate."""
        if currency == self.base_currency:
            return amount_minor
        try:
            numerator, denominator = self._ratios[currency]
        except KeyError:
            raise UnknownCurrency(currency) from None
        quotient, remainder = divmod(amount_minor * numerator, denominator)
        double = remainder * 2
        if double > denominator or (double == denominator and quotient & 1):
            return quotient + 1
        return quotient

    def ratio(self, currency: str) -> tuple[int, int]:
        """Base minor units for one minor unit of `currency`, as (numerator, denominator), reduced.

        Raises UnknownCurrency without a rate.
        """
        try:
            return self._ratios[currency]
        except KeyError:
            raise UnknownCurrency(currency) from None

    @property
    def currencies(self) -> tuple[str, ...]:
        """Every currency that converts, the base currency included, in order of their codes."""
        return tuple(sorted(self._ratios))


def format_minor(amount_minor: int, currency: str) -> str:
    """An amount for people: `format_minor(123450, "USD")` is `1,234.50 USD`. Raises UnknownCurrency."""
    return f"{format_amount(amount_minor, currency)} {currency}"


def format_amount(amount_minor: int, currency: str) -> str:
    """As `format_minor`, without the code: for where the currency is said once for all."""
    digits = _minor_digits(currency)
    units, rest = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    fraction = f".{rest:0{digits}d}" if digits else ""
    return f"{sign}{units:,}{fraction}"


def _minor_digits(currency: str) -> int:
    try:
        return MINOR_DIGITS[currency]
    except KeyError:
        raise UnknownCurrency(currency) from None


def _ratio(rate: Decimal, shift: int) -> tuple[int, int]:
    """rate * 10**shift as a reduced fraction."""
    if not (rate.is_finite() and rate > 0):
        raise ValueError(f"a rate must be above zero, not {rate}")
    numerator, denominator = rate.as_integer_ratio()
    if shift >= 0:
        numerator *= 10**shift
    else:
        denominator *= 10**-shift
    common = gcd(numerator, denominator)
    return numerator // common, denominator // common
