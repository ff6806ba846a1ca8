"""`resegment fit`."""

from pathlib import Path

from segmentation.money import format_minor
from segmentation.policy import Model, Policy
from streams.cli.console import err, escape, out, print_json
from streams.cli.failures import CommandFailed
from streams.cli.running import (
    open_lines,
    parse_day_option,
    partition_count,
    read_policy,
    read_settings,
    run,
)
from streams.instants import format_day
from streams.log import LogReader
from streams.model.fitting import Fit, fit
from streams.model.purchases import PurchaseLog, histories_at, read_file, read_topic
from streams.settings import Settings


def run_fit(file: Path | None, *, from_log: bool, at: str | None, policy: Path | None, as_json: bool) -> None:
    """Print the estimates as TOML, ready for a policy. Raises CommandFailed, CannotFit."""
    if (file is None) != from_log:
        raise CommandFailed("name a FILE.jsonl or give --from-log, one of the two (see `resegment fit --help`)")
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    asked_day = parse_day_option(at, "--at") if at is not None else None
    log = read_log_file(file, rules) if file is not None else run(_read_topic(settings, rules))
    day = asked_day if asked_day is not None else log.last_purchase_day()
    if day is None:
        raise CommandFailed("there is no purchase in the log")
    found = fit(histories_at(log.known_at(day), day).values())
    model = _model_of(found, day, rules)
    for name in found.at_the_edge:
        err.print(f"warning: {name} went as far as it may: this log does not tell it")
    if as_json:
        statistics = {name: value for name, value in found._asdict().items() if name not in ("buying", "spend")}
        print_json({"model": model.model_dump(), "statistics": statistics})
    else:
        out.print(_toml(model))
        out.print(f"\n{_remarks(found, rules.base_currency)}")


def _model_of(found: Fit, day: int, rules: Policy) -> Model:
    """As a policy takes it: what is printed can be used. Raises PolicyError."""
    parameters = {**found.buying._asdict(), **found.spend._asdict()}
    model = rules.with_changes(model={**parameters, "fitted_at": format_day(day), "accounts": found.accounts}).model
    assert model is not None
    return model


def _toml(model: Model) -> str:
    lines = ["[model]"]
    for name, value in model:
        lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines)


def _remarks(found: Fit, currency: str) -> str:
    """How sure it is, as comments, so that all of the output may become part of a policy."""
    return (
        f"# {found.repeat_buyers:,} of {found.accounts:,} accounts bought again "
        f"({found.repeat_buyers / found.accounts:.1%}), {found.transactions:,} times, "
        f"for {format_minor(found.mean_repeat_minor, currency)} on average\n"
        f"# log-likelihood of MBG/NBD {found.log_likelihood:.2f} (in days), "
        f"of Gamma-Gamma {found.spend_log_likelihood:.2f} (in minor units, {found.spend_accounts:,} accounts)"
    )


def read_log_file(file: Path, rules: Policy, *, with_engagements: bool = False) -> PurchaseLog:
    """The purchases of a file; what is wrong with it is said. Raises OSError."""
    with open_lines(file) as lines:
        log = read_file(lines, rules, with_engagements=with_engagements)
    _say_what_is_left_out(log)
    return log


async def _read_topic(settings: Settings, rules: Policy) -> PurchaseLog:
    async with LogReader(settings.kafka_arguments(), settings.topic_prefix) as reader:
        await reader.refresh()
        partition_count(reader, settings)
        log, cut = await read_topic(reader, rules)
    if cut:
        err.print(
            f"warning: the log no longer has its beginning in partitions {', '.join(map(str, cut))}: "
            "accounts that bought before look newer than they are"
        )
    _say_what_is_left_out(log)
    return log


def _say_what_is_left_out(log: PurchaseLog) -> None:
    if log.refused:
        reasons = ", ".join(f"{escape(reason)} {count:,}" for reason, count in sorted(log.refused.items()))
        err.print(f"warning: {log.refused.total():,} records that no worker would apply are left out: {reasons}")
