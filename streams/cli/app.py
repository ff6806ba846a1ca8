"""The commands: their names, options and help. What they do is in the modules beside this one, imported when called."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from segmentation.segments import Segment

app = typer.Typer(
    name="resegment",
    help="Customer segments that are right within a second: events in on Kafka, segment changes out.\n\n"
    "New here? `resegment demo` shows it all in a minute, with nothing to set up.\n\n"
    "Settings are read from the environment (RESEGMENT_...); `resegment doctor` says whether they work. "
    "Exit status: 0 done, 1 a check failed, 2 used wrongly or something cannot be reached.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics = typer.Typer(help="Make the topics, or check them.", no_args_is_help=True, rich_markup_mode="rich")
send = typer.Typer(
    help="Publish one event. What is wrong with it is said here; it is not sent then.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
policies = typer.Typer(
    help="Check a policy, see what another one would change, and apply it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
alerts = typer.Typer(help="Tell account managers of changes; say what was told, and why not.", rich_markup_mode="rich")
app.add_typer(alerts, name="alerts", invoke_without_command=True)
app.add_typer(topics, name="topics")
app.add_typer(policies, name="policy")
app.add_typer(send, name="send")


class Clock(StrEnum):
    """Whose time a worker lives in."""

    WALL = "wall"
    REPLAY = "replay"


# `Optional`: typer reads these at run time, also in Python 3.11
PolicyOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--policy", metavar="FILE", help="The policy (TOML). Default: RESEGMENT_POLICY, else built in."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]
OneJsonOption = Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")]
PolicyArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The policy (TOML).")]
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id.")]
AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 1250.00, in whole units of the currency.")]
CurrencyOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--currency", metavar="CODE", help="ISO 4217. Default: the policy's base currency."),
]
EventIdOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--event-id", metavar="ID", help="The same id twice counts once. Default: a new one."),
]
AtOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--at", metavar="TIME", help="When it happened, like 2026-11-22T10:00:00Z. Default: now."),
]
OrderOption = Annotated[Optional[str], typer.Option("--order-id", metavar="ID", help="The order's id.")]  # noqa: UP045


@app.command()
def demo() -> None:
    """Show it all in a minute: real purchases, accounts that move, and a proof that each one is right.

    Runs its own broker, store and worker, on this machine only, and leaves nothing behind.
    """
    from streams.cli.demo import run_demo
    from streams.cli.running import run

    run(run_demo())


@app.command()
def dev(policy: PolicyOption = None) -> None:
    """Run a broker, a store and a worker until Ctrl-C, to try things out.

    Prints the addresses and what to type next. Everything is in memory and gone afterwards.
    """
    from streams.cli.dev import run_dev
    from streams.cli.running import run

    run(run_dev(policy=policy))


@topics.command("create")
def create(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of each topic. They can't be changed later.")] = 8,
    replication: Annotated[int, typer.Option(min=1, max=100, help="Copies; 3 on a cluster.")] = 1,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Make the topics that are missing, with their settings. Existing ones are left as they are."""
    from streams.cli.running import run
    from streams.cli.topics import run_create

    run(run_create(partitions=partitions, replication=replication, policy=policy, as_json=json))


@topics.command("check")
def check(policy: PolicyOption = None, json: JsonOption = False) -> None:
    """Check that all topics are there: partition counts, compaction, retention."""
    from streams.cli.running import run
    from streams.cli.topics import run_check

    run(run_check(policy=policy, as_json=json))


@app.command()
def worker(
    policy: PolicyOption = None,
    clock: Annotated[
        Optional[Clock],  # noqa: UP045
        typer.Option(
            help="wall: real time. replay: the time of a log that is replayed. Default: RESEGMENT_CLOCK, else wall."
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Work lost state out again, from the log; nothing is announced twice.")
    ] = False,
    until_input_ends: Annotated[bool, typer.Option("--until-input-ends", hidden=True)] = False,
) -> None:
    """Run the stages: take events in, announce segment changes.

    For more workers, run the same command again: they share the partitions. The first SIGTERM or Ctrl-C lets it finish
    what it has decided, the second one ends it at once; nothing is lost either way.
    """
    from streams.cli.worker import run_worker

    run_worker(
        policy=policy,
        clock=clock.value if clock else None,
        rebuild=rebuild,
        until_input_ends=until_input_ends,
    )


@app.command()
def replay(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl",
            help='One event a line: its topic\'s payload and its "type": purchase, signup or engagement. '
            "- is standard input.",
        ),
    ],
    embedded: Annotated[
        bool, typer.Option("--embedded", help="On a broker, store and worker of its own, gone afterwards.")
    ] = False,
    policy: PolicyOption = None,
    until: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TIME",
            help="A day or a date-time: later events are left out, and where the log ends before it, "
            "time goes on to there.",
        ),
    ] = None,
    export: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Then write accounts.csv, risks.csv and changes.jsonl there."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then recompute everything from the log with SQL, and compare.")
    ] = False,
    as_fast_as_possible: Annotated[
        bool, typer.Option("--as-fast-as-possible", help="Publish everything at once, with one tick at the end.")
    ] = False,
) -> None:
    """Publish a log of events in the time they happened in: one tick at each midnight (UTC) passed.

    The worker it needs lives in the log's time (`resegment worker --clock replay`), or is brought by --embedded. Ends
    with one line of key=value fields; with --verify, mismatches make the exit status 1.
    """
    from streams.cli.replay import ReplayOptions, run_replay
    from streams.cli.running import run

    run(run_replay(ReplayOptions(file, embedded, policy, until, export, verify, as_fast_as_possible)))


def _send(
    kind: Any,
    account: str,
    fields: dict[str, Any],
    *,
    event_id: str | None,
    at: str | None,
    policy: Path | None,
    json: bool,
) -> None:
    from streams.cli.running import run
    from streams.cli.send import run_send

    run(run_send(kind, account, fields, event_id=event_id, at=at, policy=policy, as_json=json))


@send.command("purchase")
def send_purchase(
    account: AccountArgument,
    amount: AmountArgument,
    currency: CurrencyOption = None,
    order_id: OrderOption = None,
    at: AtOption = None,
    event_id: EventIdOption = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """An account bought something: `resegment send purchase acme 1250.00`."""
    from streams.cli.send import currency_of, minor_units

    code = currency_of(currency, policy)
    fields = {"amount_minor": minor_units(amount, code), "currency": code, "order_id": order_id}
    _send("purchase", account, fields, event_id=event_id, at=at, policy=policy, json=json)


@send.command("refund")
def send_refund(
    account: AccountArgument,
    amount: AmountArgument,
    currency: CurrencyOption = None,
    order_id: OrderOption = None,
    purchased_at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="When that was bought, whose revenue it takes back. Default: --at."),
    ] = None,
    at: AtOption = None,
    event_id: EventIdOption = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """An account got money back: `resegment send refund acme 250.00`."""
    from streams.cli.send import currency_of, minor_units

    code = currency_of(currency, policy)
    fields = {
        "kind": "refund",
        "amount_minor": minor_units(amount, code),
        "currency": code,
        "order_id": order_id,
        "purchased_at": purchased_at,
    }
    _send("purchase", account, fields, event_id=event_id, at=at, policy=policy, json=json)


@send.command("signup")
def send_signup(
    account: AccountArgument,
    name: Annotated[Optional[str], typer.Option(help="What people call the account.")] = None,  # noqa: UP045
    attribute: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME=VALUE", help="Like region=emea or employees=250; may be given again."),
    ] = None,
    at: AtOption = None,
    event_id: EventIdOption = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """An account signed up, or says something new about itself."""
    from streams.cli.send import attributes_of

    fields = {"name": name, "attributes": attributes_of(attribute or [])}
    _send("signup", account, fields, event_id=event_id, at=at, policy=policy, json=json)


@send.command("engagement")
def send_engagement(
    account: AccountArgument,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Like login, meeting or support_ticket.")],
    weight: Annotated[Optional[int], typer.Option(min=0, help="How much it counts. Default: the policy's.")] = None,  # noqa: UP045
    at: AtOption = None,
    event_id: EventIdOption = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """An account did something else than buying: `resegment send engagement acme login`."""
    _send("engagement", account, {"kind": kind, "weight": weight}, event_id=event_id, at=at, policy=policy, json=json)


@app.command()
def watch(
    risks: Annotated[bool, typer.Option("--risks", help="Changes of churn risk instead of segments.")] = False,
    follow: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--follow",
            metavar="KIND=VALUE",
            help="Only changes of account=ID, to or from segment=NAME, or of the accounts of owner=NAME. May be given "
            "again: of each kind one must fit. Owners are looked up in the store, as they are by now.",
        ),
    ] = None,
    since: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--since",
            metavar="TIME",
            help="First the changes that were announced since this day or date-time (by the broker's clock), like "
            "2026-11-22T10:00:00Z.",
        ),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="First all changes that the log still has.")
    ] = False,
    limit: Annotated[Optional[int], typer.Option(min=0, help="End after this many changes.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="For programs: one CloudEvent a line.")] = False,
) -> None:
    """Follow segment changes, or those of churn risk, as they happen, until Ctrl-C.

    `resegment watch --follow owner=kim --since 2026-11-22`: what became of kim's accounts, and what becomes of them.
    """
    from streams.cli.running import run
    from streams.cli.watch import WatchOptions, run_watch

    run(run_watch(WatchOptions(risks, tuple(follow or ()), since, from_beginning, limit, json)))


@app.command()
def explain(account: AccountArgument, policy: PolicyOption = None, json: JsonOption = False) -> None:
    """Say what an account is, why, how far it is from the next tier, and where time alone takes it."""
    from streams.cli.explain import run_explain
    from streams.cli.running import run

    run(run_explain(account, policy=policy, as_json=json))


@app.command()
def report(
    from_day: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--from", metavar="DAY", help="The first day (UTC), like 2026-06-01. Default: 29 days before --to."
        ),
    ] = None,
    to_day: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", metavar="DAY", help="The last day. Default: the day that the state has come to."),
    ] = None,
    undone_within: Annotated[
        int,
        typer.Option(
            metavar="DAYS",
            min=1,
            max=3650,
            help="A move counts as undone if the account is back after at most this long.",
        ),
    ] = 7,
    account: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="ACCOUNT", help="Also this account's changes one by one; may be given again."),
    ] = None,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", metavar="FILE", help="Write it as one page, for a browser, a phone or a printer."),
    ] = None,
    json: OneJsonOption = False,
) -> None:
    """Say what became of the segments in a period: who came and left, from where to where, why, and what was undone.

    Reads the state and the changes that were announced. What each number means is in docs/report.md.
    """
    from streams.cli.report import ReportOptions, run_report
    from streams.cli.running import run

    run(run_report(ReportOptions(from_day, to_day, undone_within, tuple(account or ()), html, json)))


@policies.command("check")
def policy_check(file: PolicyArgument, json: OneJsonOption = False) -> None:
    """Say whether a policy can be used and what it means, or what is wrong with it, field by field.

    Needs no broker and no store. Problems make the exit status 1, a file that cannot be read 2.
    """
    from streams.cli.policy import run_policy_check

    run_policy_check(file, as_json=json)


@policies.command("diff")
def policy_diff(file: PolicyArgument, json: OneJsonOption = False) -> None:
    """Say what a policy would change now: which accounts would move, with how much revenue, and the new cutoffs.

    The accounts are taken as the state has them; nothing is written. Answered for shares, basis, band and
    new_start_days; of each other field that differs it says why the numbers are without it.
    """
    from streams.cli.policy_diff import run_policy_diff
    from streams.cli.running import run

    run(run_policy_diff(file, as_json=json))


@policies.command("apply")
def policy_apply(
    file: PolicyArgument,
    silent: Annotated[
        bool, typer.Option("--silent", help="Who moves by it is told with the mode silent: nobody is to act upon it.")
    ] = False,
    json: OneJsonOption = False,
) -> None:
    """Let the installation go by another policy: all accounts at one point of the log, without stopping a worker.

    Shares, basis, band, new_start_days and shorter windows can be applied; of what cannot it says why, and nothing is
    changed. A smaller window cannot be taken back: what it leaves out is forgotten. `policy diff` says first who would
    move. Should it be interrupted, the same command completes what was begun.
    """
    from streams.cli.policy_apply import run_policy_apply
    from streams.cli.running import run

    run(run_policy_apply(file, is_silent=silent, as_json=json))


@app.command("capacity")
def capacity_command(policy: PolicyOption = None, json: OneJsonOption = False) -> None:
    """Say how many hours a quarter the accounts ask of each role, whether its people suffice, and who owns too much.

    Hours are accounts x touches a quarter x minutes a touch, as the policy has them for each segment. It also says what
    the moves of the last 30 days did to them. The formula and an example are in docs/strategies.md.
    """
    from streams.cli.capacity import run_capacity
    from streams.cli.running import run

    run(run_capacity(policy=policy, as_json=json))


@app.command("top")
def top_command(
    count: Annotated[int, typer.Argument(metavar="N", min=1, max=1_000, help="So many accounts.")] = 10,
    segment: Annotated[
        Optional[Segment],  # noqa: UP045
        typer.Option(help="Only accounts of this segment."),
    ] = None,
    owner: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only accounts of which this is the attribute `owner`."),
    ] = None,
    population: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only accounts that are ranked in this population."),
    ] = None,
    region: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only accounts of which this is the attribute `region`."),
    ] = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Say whom to work on now: the accounts with most money at stake, each with its reasons and its next step.

    What may be earned, what may be lost, who fits, and who is close to the next tier, each as the policy's \\[priority]
    counts it. Everybody's list comes from the same rules. The formula and an example are in docs/priority.md.
    """
    from streams.cli.running import run
    from streams.cli.top import run_top

    run(
        run_top(
            count, of_segment=segment, owner=owner, population=population, region=region, policy=policy, as_json=json
        )
    )


@app.command("export")
def export_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Is made if it is not there.")],
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Write accounts.csv and risks.csv, every account as it is now, and changes.jsonl, every change as a CloudEvent."""
    from streams.cli.export import run_export
    from streams.cli.running import run

    run(run_export(directory, policy=policy, as_json=json))


@app.command("verify")
def verify_command(policy: PolicyOption = None, json: JsonOption = False) -> None:
    """Recompute everything from the log with SQL and compare it with the state and with what was announced.

    Ends with one line of key=value fields; mismatches make the exit status 1. Workers may go on meanwhile.
    """
    from streams.cli.running import run
    from streams.cli.verify import run_verify

    run(run_verify(policy=policy, as_json=json))


LogArgument = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(metavar="FILE.jsonl", help="A log as `resegment replay` takes it. - is standard input."),
]


@app.command("fit")
def fit_command(
    file: LogArgument = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Take the purchases from the topic instead of a file.")
    ] = False,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--at",
            metavar="DAY",
            help="Only what was known when this day (UTC) ended, like 2026-06-30. "
            "Default: the day of the last purchase.",
        ),
    ] = None,
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Estimate from a log how accounts buy, and print it as the table \\[model] of a policy.

    What the numbers mean and what they are good for is in docs/model.md; `resegment backtest` says how far to trust
    them. Needs the extra: pip install 'resegment\\[model]'.
    """
    from streams.cli.fit import run_fit

    run_fit(file, from_log=from_log, at=at, policy=policy, as_json=json)


@app.command("backtest")
def backtest_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help="A log as `resegment replay` takes it. - is standard input.")
    ],
    at: Annotated[
        str, typer.Option("--at", metavar="DAY", help="Fit on what was known when this day (UTC) ended: 2026-03-31.")
    ],
    horizon: Annotated[
        str, typer.Option("--horizon", metavar="DAYS", help="Who buys nothing in the days after it, like 90d?")
    ] = "90d",
    revenue_horizon: Annotated[
        str, typer.Option("--revenue-horizon", metavar="DAYS", help="How much do accounts bring in the days after it?")
    ] = "180d",
    policy: PolicyOption = None,
    json: JsonOption = False,
) -> None:
    """Say how well the model would have told who buys nothing, and what accounts bring, had it been used that day.

    It is fitted anew on what was known then, whatever \\[model] the policy has, and held against simple rules: days
    since the last purchase, number of purchases, lateness by the account's own gaps, and the chance that it is gone.
    Ends with one line of key=value fields. Needs the extra: pip install 'resegment\\[model]'.
    """
    from streams.cli.backtest import run_backtest

    run_backtest(file, at=at, horizon=horizon, revenue_horizon=revenue_horizon, policy=policy, as_json=json)


@alerts.callback()
def alerts_command(context: typer.Context, policy: PolicyOption = None) -> None:
    """Tell account managers of changes, by mail, chat, whatever Apprise knows; without a command: until Ctrl-C.

    Reads what workers announce, and tells people by the policy's \\[\\[alerts]]. It may stop, restart or lag: no worker
    waits for it. Run it twice, and the second one stands by. Rules, channels and guarantees are in docs/alerts.md.
    Needs the extra: pip install 'resegment\\[alerts]'.
    """
    if context.invoked_subcommand is None:
        from streams.cli.alerts import run_alerts

        run_alerts(policy=policy)


@alerts.command("test")
def alerts_test(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")],
    account: AccountArgument,
    send: Annotated[bool, typer.Option("--send", help="Send it, to whom it would go.")] = False,
    policy: PolicyOption = None,
    json: OneJsonOption = False,
) -> None:
    """Show the message that a rule makes of an account's last change, to whom it goes, and when; or send it.

    Nothing is written into the ledger, so it does not count for what comes.
    """
    from streams.cli.alerts import run_alerts_test
    from streams.cli.running import run

    run(run_alerts_test(rule, account, send=send, policy=policy, as_json=json))


@alerts.command("log")
def alerts_log(
    account: Annotated[Optional[str], typer.Option(metavar="ACCOUNT", help="Only of this account.")] = None,  # noqa: UP045
    rule: Annotated[Optional[str], typer.Option(metavar="RULE", help="Only of this rule.")] = None,  # noqa: UP045
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 100,
    json: JsonOption = False,
) -> None:
    """Say what was sent, held back, merged or dropped, by which rule, and why. The oldest first."""
    from streams.cli.alerts import run_alerts_log
    from streams.cli.running import run

    run(run_alerts_log(account=account, rule=rule, limit=limit, as_json=json))


@alerts.command("undelivered")
def alerts_undelivered(
    retry: Annotated[
        bool, typer.Option("--retry", help="Let all of them be tried again, at the addresses that the policy has now.")
    ] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Let all of them be forgotten; the log says so.")] = False,
    json: JsonOption = False,
) -> None:
    """List the messages that no channel took, and why; or have them tried again once that is mended."""
    from streams.cli.alerts import run_alerts_undelivered
    from streams.cli.running import run

    run(run_alerts_undelivered(retry=retry, discard=discard, as_json=json))


@app.command("dead-letters")
def dead_letters(
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", help="Publish them again, key and payload as they came. What counted is not counted twice."
        ),
    ] = False,
    reason: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="REASON", help="Only those with this reason, like no_rate."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=0, help="At most this many.")] = None,  # noqa: UP045
    json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line, with the whole payload.")
    ] = False,
) -> None:
    """List the records that could not be applied, and why; or send them again once that is mended."""
    from streams.cli.dead_letters import run_dead_letters
    from streams.cli.running import run

    run(run_dead_letters(retry=retry, reason=reason, limit=limit, as_json=json))


@app.command()
def doctor(policy: PolicyOption = None, json: JsonOption = False) -> None:
    """Check that broker, store, topics and policy can be used, and say what to mend."""
    from streams.cli.doctor import run_doctor
    from streams.cli.running import run

    run(run_doctor(policy=policy, as_json=json))
