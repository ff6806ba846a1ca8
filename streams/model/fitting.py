"""Estimating the purchase model: the parameters under which what happened was most likely."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln

from segmentation.buying import BuyingHistory
from segmentation.policy import PARAMETER_MAX, PARAMETER_MIN
from segmentation.purchase_model import BuyingModel, SpendModel

ACCOUNTS_MIN = 50
REPEAT_BUYERS_MIN = 20
"""Of fewer, seven parameters say more about chance than about accounts."""

EVALUATIONS_MAX = 2_000
"""Of a likelihood, in each of two searches. Some hundreds do where the log tells the parameters."""
MEAN_SPEND_MAX = 1.5
"""So many times what accounts spent the model's mean may be. A good fit has it close to 1: of CDNOW 1.00."""
FIRST_STEP = 0.05
DIGITS = 6
"""Significant ones that a parameter is kept with: no log is long enough to tell more."""

Numbers = NDArray[np.float64]


class CannotFit(Exception):
    """There is too little to estimate from, or nothing that the model fits; the message says which."""


class Fit(NamedTuple):
    """The estimates, and how well what happened agrees with them."""

    buying: BuyingModel
    spend: SpendModel
    accounts: int
    repeat_buyers: int
    transactions: int
    """Repeats of all accounts."""
    mean_repeat_minor: int
    """Mean revenue of a repeat transaction."""
    log_likelihood: float
    """Of MBG/NBD, with days as the unit of time."""
    spend_accounts: int
    """Repeat buyers whose repeats brought more than nothing: Gamma-Gamma knows no others."""
    spend_log_likelihood: float
    """Of Gamma-Gamma, with minor units as the unit of money."""
    is_mean_spend_at_the_edge: bool = False
    """Whether the model's mean spend went as far as MEAN_SPEND_MAX: amounts vary more than Gamma-Gamma knows of."""

    @property
    def at_the_edge(self) -> list[str]:
        """Parameters that went as far as they may: the log does not tell them."""
        found = {**self.buying._asdict(), **self.spend._asdict()}
        found["the mean spend"] = PARAMETER_MAX if self.is_mean_spend_at_the_edge else 1.0
        return [name for name, value in found.items() if not PARAMETER_MIN * 2 < value < PARAMETER_MAX / 2]


def fit(histories: Collection[BuyingHistory]) -> Fit:
    """Estimate all parameters by maximum likelihood. A second for some 25,000 accounts. Raises CannotFit."""
    repeat_buyers = [history for history in histories if history.repeats]
    paying = [history for history in repeat_buyers if history.repeat_revenue_minor > 0]
    if len(histories) < ACCOUNTS_MIN or len(paying) < REPEAT_BUYERS_MIN:
        raise CannotFit(
            f"{len(histories)} accounts with a purchase, {len(paying)} of which bought again for more than nothing: "
            f"too few to estimate from, {ACCOUNTS_MIN} and {REPEAT_BUYERS_MIN} are needed"
        )
    buying, log_likelihood = fit_buying(histories)
    spend, spend_log_likelihood = fit_spend(paying)
    transactions = sum(history.repeats for history in repeat_buyers)
    revenue_minor = sum(history.repeat_revenue_minor for history in repeat_buyers)
    return Fit(
        buying=buying,
        spend=spend,
        accounts=len(histories),
        repeat_buyers=len(repeat_buyers),
        transactions=transactions,
        mean_repeat_minor=round(revenue_minor / transactions),
        log_likelihood=log_likelihood,
        spend_accounts=len(paying),
        spend_log_likelihood=spend_log_likelihood,
        is_mean_spend_at_the_edge=_mean_spend(spend) > 0.99 * MEAN_SPEND_MAX * _mean_spend_of(paying),
    )


def _mean_spend(spend: SpendModel) -> float:
    """The mean over accounts of what a transaction brings, by the model."""
    return spend.p * spend.gamma_minor / (spend.q - 1)


def _mean_spend_of(histories: Collection[BuyingHistory]) -> float:
    """The same of these accounts, by their repeats."""
    return float(np.mean([history.repeat_revenue_minor / history.repeats for history in histories]))


def fit_buying(histories: Collection[BuyingHistory]) -> tuple[BuyingModel, float]:
    """The parameters of MBG/NBD, and the logarithm of their likelihood. Raises CannotFit."""
    # Many accounts of a large log are alike: each kind is worked out once.
    kinds, counts = np.unique([history[:3] for history in histories], axis=0, return_counts=True)
    repeats, recency, age = (column.astype(np.float64) for column in kinds.T)

    def log_likelihood(parameters: Numbers) -> float:
        r, alpha, a, b = parameters
        # `purchase_model.log_likelihood`, of all at once
        buying = gammaln(r + repeats) - gammaln(r) + r * np.log(alpha)
        alive = betaln(a, b + repeats + 1) - (r + repeats) * np.log(alpha + age)
        gone = betaln(a + 1, b + repeats) - (r + repeats) * np.log(alpha + recency)
        return float(counts @ (buying - betaln(a, b) + np.logaddexp(alive, gone)))

    found, best = maximise(log_likelihood, [1.0, float(np.median(age)) + 1, 1.0, 1.0])
    return BuyingModel(*found), best


def fit_spend(histories: Collection[BuyingHistory]) -> tuple[SpendModel, float]:
    """The parameters of Gamma-Gamma, and the logarithm of their likelihood, from repeat buyers. Raises CannotFit.

    The mean spend of the model, p gamma / (q - 1), is kept below MEAN_SPEND_MAX times that of the accounts. Where
    amounts vary more than Gamma-Gamma knows of, q would come so close to 1 that the mean had no bound, nor had what is
    expected of accounts that have not bought again.
    """
    repeats = np.array([history.repeats for history in histories], dtype=np.float64)
    revenue = np.array([history.repeat_revenue_minor for history in histories], dtype=np.float64)
    mean = revenue / repeats
    mean_spend = _mean_spend_of(histories)

    def log_likelihood(parameters: Numbers) -> float:
        p, model_mean, gamma = parameters
        q = 1 + p * gamma / model_mean
        # Fader & Hardie (2013); x times the mean is the revenue
        of_account = gammaln(p * repeats + q) - gammaln(p * repeats) - gammaln(q)
        of_account += q * np.log(gamma) + (p * repeats - 1) * np.log(mean) + p * repeats * np.log(repeats)
        return float(np.sum(of_account - (p * repeats + q) * np.log(gamma + revenue)))

    (p, model_mean, gamma), best = maximise(
        log_likelihood, [1.0, mean_spend, mean_spend], [PARAMETER_MAX, MEAN_SPEND_MAX * mean_spend, PARAMETER_MAX]
    )
    above_one = float(f"{p * gamma / model_mean:.{DIGITS}g}")
    # rounded: the sum has digits that none of its parts has
    return SpendModel(p, min(PARAMETER_MAX, round(1 + above_one, 9)), gamma), best


def maximise(
    log_likelihood: Callable[[Numbers], float], start: Sequence[float], most: Sequence[float] | None = None
) -> tuple[list[float], float]:
    """The parameters, each above 0, at which this is greatest, in DIGITS digits, and how great. Raises CannotFit.

    most: of each parameter; PARAMETER_MAX where it is not given.
    """
    # In logarithms, so that a step is a ratio. The first search goes far, but ends early on ridges, which these
    # functions have; the second one goes on from there, and needs no derivatives.
    bounds = [(np.log(PARAMETER_MIN), np.log(value)) for value in most or [PARAMETER_MAX] * len(start)]

    def loss(logarithms: Numbers) -> float:
        return -log_likelihood(np.exp(logarithms))

    far: Any = minimize(loss, np.log(start), method="L-BFGS-B", bounds=bounds, options={"maxfun": EVALUATIONS_MAX})
    simplex = np.vstack([far.x, far.x + FIRST_STEP * np.eye(len(start))])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS_MAX, "xatol": 1e-7, "fatol": 1e-7}
    near: Any = minimize(loss, far.x, method="Nelder-Mead", bounds=bounds, options=options)
    best = min((far, near), key=lambda result: float(result.fun))
    if not np.isfinite(best.fun):
        raise CannotFit("no parameters fit: what happened is impossible under all of them")
    return [float(f"{value:.{DIGITS}g}") for value in np.exp(best.x)], -float(best.fun)
