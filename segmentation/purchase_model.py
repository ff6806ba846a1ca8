"""Will an account buy again, how often, and for how much: MBG/NBD and Gamma-Gamma, in closed form.

What is assumed of an account: while it is alive it buys at random with a rate of its own; after each transaction, the
first included, it may leave for good, with a chance of its own; what it spends at a time varies around a mean of its
own, whatever its rate is. Rates, chances and means differ between accounts as the parameters say.

Probabilities and expectations are floats; money is floats within the formulas and integers where it leaves them.

Sources:
- BG/NBD: Fader, Hardie & Lee (2005), "Counting your customers" the easy way, Marketing Science 24(2).
- MBG/NBD: Batislam, Denizel & Filiztekin (2007), Empirical validation and comparison of models for customer base
  analysis, International Journal of Research in Marketing 24(3).
- Gamma-Gamma: Fader & Hardie (2013), The Gamma-Gamma model of monetary value, brucehardie.com/notes/025.
"""

from collections.abc import Callable
from math import exp, inf, lgamma, log, log1p
from typing import NamedTuple

from segmentation.buying import BuyingHistory

SERIES_ERROR = 1e-12
"""Relative; what `expected_purchases` leaves out of its series is less, where nobody says how much is enough."""
EPSILON = 2.0**-52
SUM_TERMS_MAX = 20_000
CLOSED_FORM_TERMS_MAX = 500
CLOSED_FORM_MIN = 0.001
"""|a - 1|: nearer to its pole the closed form is not used."""


class BuyingModel(NamedTuple):
    """Parameters of MBG/NBD, each above 0."""

    r: float
    """Shape of the gamma distribution of rates: the smaller, the more accounts differ."""
    alpha_days: float
    """Its other parameter, in days: the mean rate is r / alpha_days purchases a day."""
    a: float
    b: float
    """Of the beta distribution of the chance to leave after a transaction, whose mean is a / (a + b)."""


class SpendModel(NamedTuple):
    """Parameters of Gamma-Gamma, each above 0, and q above 1: below that no mean spend exists."""

    p: float
    """Shape of what one account spends at a time: the greater, the more alike its transactions."""
    q: float
    gamma_minor: float
    """With q, how the accounts' means differ; in minor units of the currency. The mean is p·gamma / (q - 1)."""


def log_likelihood(model: BuyingModel, history: BuyingHistory) -> float:
    """The logarithm of MBG/NBD's density at a history, with days as the unit of time.

    With another unit it differs by repeats · log(days in it). O(1). Batislam et al. (2007).
    """
    r, alpha, a, b = model
    x, recency, age, _ = history
    buying = lgamma(r + x) - lgamma(r) + r * log(alpha)
    alive = _log_beta(a, b + x + 1) - (r + x) * log(alpha + age)
    gone = _log_beta(a + 1, b + x) - (r + x) * log(alpha + recency)
    return buying - _log_beta(a, b) + _log_sum(alive, gone)


def bg_nbd_log_likelihood(model: BuyingModel, history: BuyingHistory) -> float:
    """The same for BG/NBD, in which nobody leaves before the first repeat. It is here to be compared with.

    O(1). Fader, Hardie & Lee (2005).
    """
    r, alpha, a, b = model
    x, recency, age, _ = history
    buying = lgamma(r + x) - lgamma(r) + r * log(alpha)
    alive = _log_beta(a, b + x) - (r + x) * log(alpha + age)
    gone = _log_beta(a + 1, b + x - 1) - (r + x) * log(alpha + recency) if x else -inf
    return buying - _log_beta(a, b) + _log_sum(alive, gone)


def probability_alive(model: BuyingModel, history: BuyingHistory) -> float:
    """The probability, 0 to 1, that an account has not left for good after its last transaction.

    1 / (1 + a / (b + x) · ((alpha + T) / (alpha + t_x))^(r + x)). O(1). Batislam et al. (2007).
    """
    return _probability(-_log_odds_gone(model, history))


def probability_no_purchase(model: BuyingModel, history: BuyingHistory, horizon_days: float) -> float:
    """The probability, 0 to 1, that an account buys nothing in the days that follow: `horizon_days`, 0 or more.

    1 - P(alive) · (1 - ((alpha + T) / (alpha + T + H))^(r + x)): it has left, or is alive and does not buy. It only
    rises while an account is silent, and falls as the horizon grows. O(1). Follows from Batislam et al. (2007). Raises
    ValueError for a horizon below 0 or without end.
    """
    _require_horizon(horizon_days)
    repeats, recency_days, age_days, _ = history
    return probability_of(odds_no_purchase(model, repeats, recency_days, horizon_days)(age_days))


def odds_no_purchase(
    model: BuyingModel, repeats: int, recency_days: int, horizon_days: float, factor: float = 1.0
) -> Callable[[int], float]:
    """`probability_no_purchase` as odds, p / (1 - p), from 0 to infinity, times a factor: by the age in days.

    With the odds of having left, o, and the chance of staying silent, s, they are (o + s) / (1 - s). O(1), 0.3 us an
    age: this is asked several times for each event.
    """
    r, alpha, a, b = model
    shape, left, last = r + repeats, a / (b + repeats), alpha + recency_days

    def odds(age_days: int) -> float:
        time = alpha + age_days
        try:
            silent = (time / (time + horizon_days)) ** shape
            gone = left * (time / last) ** shape
        except OverflowError:
            return inf
        return (gone + silent) / (1 - silent) * factor if silent < 1 else inf

    return odds


def probability_of(odds: float) -> float:
    """0 to 1, of odds from 0 to infinity."""
    return 1.0 if odds == inf else odds / (1 + odds)


def expected_purchases(
    model: BuyingModel, history: BuyingHistory, horizon_days: float, series_error: float = SERIES_ERROR
) -> float:
    """How many transactions to expect of an account in the days that follow: `horizon_days`, 0 or more.

    What is left out is less than series_error times the result. O(n) in some ten terms, where the closed form would
    lose digits in some times the number to expect if the account stays. Raises ValueError for a horizon below 0 or
    without end.
    """
    _require_horizon(horizon_days)
    time = model.alpha_days + history.age_days
    share = horizon_days / (time + horizon_days)
    if not share:
        return 0.0
    if_alive = _expected_closed(model, history.repeats, share, series_error)
    if if_alive is None:
        if_alive = _expected_sum(model, history.repeats, time, horizon_days, series_error)
    return probability_alive(model, history) * if_alive


def _expected_closed(model: BuyingModel, repeats: int, share: float, series_error: float) -> float | None:
    """Of an account that is alive: Batislam et al. (2007), None where that divides by nearly zero or loses digits.

    (a+b+x) / (a-1) · (1 - (1-z)^(a-1) · F(a+b-r, a-1; a+b+x; z)), z = H / (alpha + T + H), by Euler's transformation of
    Gauss's hypergeometric function F, whose series then needs few terms.
    """
    r, _, a, b = model
    first, second, third = a + b - r, a - 1, a + b + repeats
    if first <= 0 or abs(second) < CLOSED_FORM_MIN:
        return None
    term = gauss = 1.0
    for n in range(CLOSED_FORM_TERMS_MAX):
        ratio = (first + n) * (second + n) / ((third + n) * (n + 1)) * share
        term *= ratio
        gauss += term
        bound = max(abs(ratio), share)  # of each ratio that follows: they go towards `share`
        if n and bound < 1 and abs(term) * bound <= EPSILON * abs(gauss) * (1 - bound):
            break
    else:
        return None
    part = exp(second * log1p(-share)) * gauss
    found = third / second * (1 - part)
    lost = third / abs(second) * (1 + abs(part)) * n * EPSILON
    return found if lost <= series_error * found else None


def _expected_sum(model: BuyingModel, repeats: int, time: float, horizon_days: float, series_error: float) -> float:
    """The same for any parameters: sum over n of P(N = n) · (1 + s_1 + ... + s_(n-1)).

    N, negative binomial, is what the account would buy if nobody left; s_j is the chance that it stays through j
    transactions.
    """
    r, _, a, b = model
    shape, share = r + repeats, horizon_days / (time + horizon_days)
    # in logarithms: the chance of no transaction at all may be too small for a float, that of many is not
    chance_log = -shape * log1p(horizon_days / time)
    stays, reached, total, n = 1.0, 0.0, 0.0, 0
    while True:
        chance_log += log(share * (shape + n) / (n + 1))
        n += 1
        reached += stays
        term = exp(chance_log) * reached
        total += term
        stays *= (b + repeats + n) / (a + b + repeats + n)
        # Each following term is at most this times the one before it, and that factor falls: a geometric bound.
        ratio = share * (shape + n) / n
        if ratio < 1 and term * ratio <= series_error * total * (1 - ratio):
            return total
        if n == SUM_TERMS_MAX:
            return reached  # so many at least: more than anybody has


def expected_spend_minor(model: SpendModel, history: BuyingHistory) -> float:
    """What an account is expected to spend in a transaction, in minor units: its own mean, drawn to that of all.

    p · (gamma + x·m) / (p·x + q - 1), with x·m the revenue of its repeats; less than nothing counts as nothing. The
    more repeats, the more its own mean counts. O(1). Fader & Hardie (2013).
    """
    p, q, gamma_minor = model
    return p * (gamma_minor + max(0, history.repeat_revenue_minor)) / (p * history.repeats + q - 1)


def expected_revenue_minor(buying: BuyingModel, spend: SpendModel, history: BuyingHistory, horizon_days: float) -> int:
    """The revenue to expect of an account in the days that follow, in minor units, halves to even.

    Expected transactions times expected spend. Complexity and errors: `expected_purchases`.
    """
    return round(expected_purchases(buying, history, horizon_days) * expected_spend_minor(spend, history))


def planned_revenue_minor(
    expected_minor: int, history: BuyingHistory, recent_repeats_minor: int, *, horizon_days: int, new_start_days: int
) -> int:
    """The revenue to plan with: halfway between what the model expects and what the last horizon brought.

    `expected_minor`: `expected_revenue_minor`. `recent_repeats_minor`: net revenue of the repeats in the `horizon_days`
    up to the day of the question. A new start has no last horizon: of it the model's expectation is taken. An
    established account without a repeat in the last horizon counts as nothing: the little that is to be expected of
    each of these many accounts only hides whom to plan with. Never below 0. O(1). A rule of ours, tried on CDNOW: see
    docs/model.md.
    """
    if history.age_days < new_start_days:
        return expected_minor
    if not history.repeats or history.silent_days >= horizon_days:
        return 0
    return max(0, expected_minor + recent_repeats_minor) // 2


def _log_odds_gone(model: BuyingModel, history: BuyingHistory) -> float:
    """The logarithm of P(gone) / P(alive)."""
    r, alpha, a, b = model
    x, recency, age, _ = history
    return log(a / (b + x)) + (r + x) * log1p((age - recency) / (alpha + recency))


def _probability(odds_log: float) -> float:
    """Of these odds, whatever they are: e^odds / (1 + e^odds)."""
    if odds_log < 0:
        return exp(odds_log) / (1 + exp(odds_log))
    return 1 / (1 + exp(-odds_log))


def _log_beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)


def _log_sum(first: float, second: float) -> float:
    """log(e^first + e^second)."""
    low, high = sorted((first, second))
    return high + log1p(exp(low - high))


def _require_horizon(horizon_days: float) -> None:
    if not 0 <= horizon_days < inf:
        raise ValueError(f"a horizon is 0 or more days, not {horizon_days}")
