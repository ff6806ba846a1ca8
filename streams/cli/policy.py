"""`resegment policy check`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segmentation.policy import Policy, PolicyError, Problem, parse_policy
from streams.cli.console import escape, out, print_json
from streams.cli.failures import CHECK_FAILED, CommandFailed


def run_policy_check(file: Path, *, as_json: bool) -> None:
    """Say what a policy means. Raises OSError, and CommandFailed where it has problems."""
    problems = []
    policy = None
    try:
        policy = parse_policy(_text(file), str(file))
    except PolicyError as error:
        problems = error.problems
    if as_json:
        print_json(_check_document(policy, problems))
    elif policy is not None:
        for line in _in_words(policy):
            out.print(line)
    for problem in problems if not as_json else ():
        out.print(escape(str(problem)))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise CommandFailed(f"{file}: {count}, no worker would start with this policy", CHECK_FAILED)


def _text(file: Path) -> str:
    """Raises OSError; bytes that are no text are a problem of the policy, which was read."""
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        problem = Problem("", "bytes that are not UTF-8", "a TOML document")
        raise PolicyError(str(file), [problem]) from None


def _check_document(policy: Policy | None, problems: Iterable[Problem]) -> dict[str, Any]:
    found = [problem._asdict() for problem in problems]
    if policy is None:
        return {"valid": False, "problems": found}
    return {"valid": True, "version": policy.version, "hash": policy.hash, "policy": policy.document(), "problems": []}


def _in_words(policy: Policy) -> Iterator[str]:
    document = policy.document()
    weight = "of the revenue" if policy.basis == "revenue" else "of the accounts"
    whose = "bring" if policy.basis == "revenue" else "are"
    shares = document["tiers"]
    yield f"valid: policy {policy.version}, hash {policy.hash}"
    window = _count(policy.window_days, "day")
    yield f"  revenue       what came in the last {window} (UTC), today included, in {policy.base_currency}"
    if policy.new_start_days:
        yield f"  new_start     for {_count(policy.new_start_days, 'day')} from the first purchase; a prospect has none"
    else:
        yield "  new_start     never: with its first purchase an account is ranked; a prospect has none"
    yield f"  key           the best accounts, that together {whose} {shares['key']} % {weight}"
    yield f"  enterprise    the next {shares['enterprise']} %"
    yield f"  commercial    the last {shares['commercial']} %, and whoever has no revenue left"
    if policy.band_bp:
        yield f"  band          an account changes its tier once it is {document['band']} points past the boundary"
    else:
        yield "  band          none: an account changes its tier as soon as it is past the boundary"
    rates = ", ".join(f"1 {code} = {rate} {policy.base_currency}" for code, rate in document["rates"].items())
    yield f"  currencies    {rates or f'only {policy.base_currency}'}; an amount in another one is a dead letter"
    weights = ", ".join(f"{kind} {weight}" for kind, weight in document["engagement_weights"].items())
    yield f"  engagements   kept for {_count(policy.engagement_days, 'day')}; they count: {weights}, any other 1"
    yield f"  future        an event may be dated {_count(policy.future_days, 'day')} ahead"
    if policy.model is None:
        yield "  model         none: no forecasts; `resegment fit` estimates one"
    else:
        yield f"  model         of {policy.model.fitted_at}, from {_count(policy.model.accounts, 'account')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
