"""`resegment alerts`."""

import asyncio
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.text import Text

from segmentation.alerts import AlertRules, News, alert_for, end_of_quiet
from segmentation.classification import holds
from segmentation.policy import AlertRule, Policy
from state import founding
from state.keys import LedgerName
from state.shard_store import ShardStore
from streams.alerting.channels import Channel, Outgoing, variable_of
from streams.alerting.figures import AlertsFigures
from streams.alerting.ledger import DISCARD, RETRY, Message, message_id
from streams.alerting.news import Facts, read_change
from streams.alerting.reading import read_log, read_messages
from streams.alerting.role import AlertsRole, facts_reader
from streams.alerting.texts import BadTemplate, Texts
from streams.cli.console import err, escape, escape_lines, out, print_json, shortened
from streams.cli.failures import CHECK_FAILED, CommandFailed
from streams.cli.running import connected, partition_count, read_policy, read_settings, store
from streams.cli.worker import run_role
from streams.instants import format_instant
from streams.log import LogReader
from streams.monitoring import listening
from streams.partitions import partition_of
from streams.settings import Settings
from streams.topics import Topic
from streams.worker import wall_clock_us

STYLES = {"sent": "green", "handed_over": "green", "undelivered": "bold red", "dropped": "dim", "digest": "cyan"}


def run_alerts(*, policy: Path | None) -> None:
    """Tell people of changes until a signal says to leave."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)

    async def work(redis: Redis, stop: asyncio.Event) -> None:
        role = AlertsRole(settings, rules, redis)
        async with listening(settings.monitoring_address, AlertsFigures(role)):
            await role.run(stop)

    run_role(settings, work)


async def run_alerts_test(rule: str, account: str, *, send: bool, policy: Path | None, as_json: bool) -> None:
    """Show what a rule makes of an account's last change. Raises CommandFailed."""
    settings = read_settings(policy=policy)
    rules = read_policy(settings)
    wanted = next((known for known in rules.alerts if known.name == rule), None)
    if wanted is None:
        names = ", ".join(known.name for known in rules.alerts) or "none"
        raise CommandFailed(f"the policy has no alert {escape(rule)}; it has: {names}")
    async with connected(settings) as (redis, reader):
        partitions = partition_count(reader, settings)
        news, change = await _last_change(reader, wanted, account, partitions)
        known = await facts_reader(redis, settings.redis_prefix, partitions)([account])
    try:
        texts = Texts(rules)
    except BadTemplate as error:
        raise CommandFailed(str(error)) from None
    document = _message(settings, rules, texts, wanted, news, change, known[account])
    if send:
        document["sent"], document["error"] = await _send(settings, document)
    if as_json:
        print_json(document)
    else:
        _print_message(document)
    if send and not document["sent"]:
        raise CommandFailed(f"not sent: {document['error']}", CHECK_FAILED)


async def _last_change(
    reader: LogReader, rule: AlertRule, account: str, partitions: int
) -> tuple[News, dict[str, Any]]:
    latest, of = (Topic.SEGMENTS, Topic.SEGMENT_CHANGES) if rule.on == "move" else (Topic.RISKS, Topic.CHURN_RISK)
    found = None
    async for _, record in reader.read({(latest, partition_of(account.encode(), reader.partition_count(latest))): 0}):
        if record.key == account.encode() and record.value is not None:
            found = record.value
    if found is None:
        what = "moved" if rule.on == "move" else "changed its churn risk"
        raise CommandFailed(f"{escape(account)} has never {what}: there is nothing to show")
    return read_change(of, found)


def _message(
    settings: Settings,
    policy: Policy,
    texts: Texts,
    rule: AlertRule,
    news: News,
    change: dict[str, Any],
    facts: Facts,
) -> dict[str, Any]:
    rules = AlertRules.of(policy)
    alert = alert_for(rules, rule, news, facts.attributes)
    text = texts.one(alert, change, facts)
    remarks = []
    if rule not in rules.wanted(news):
        remarks.append("the rule is not for this change")
    elif not all(holds(condition, facts.attributes) for condition in rule.where):
        remarks.append("the account's attributes are not as the rule wants them")
    if news.mode != "live":
        remarks.append(f"the change has the mode {news.mode}, of which nobody is told")
    if not alert.recipient.address:
        remarks.append(f"nobody to tell: {rule.to} is not in [people], and the rule has no address")
    if end_of_quiet(rules.calm, wall_clock_us(), alert.recipient.timezone) is not None:
        remarks.append("it would wait: these are quiet hours")
    return {
        "alert": alert.id,
        "message_id": message_id(settings.redis_prefix, f"test/{alert.id}"),
        "person": alert.recipient.person,
        "channel": alert.recipient.channel,
        "address": alert.recipient.address,
        "grace_minutes": rules.grace_us(rule) // 60_000_000,
        "remarks": remarks,
        "subject": text.subject,
        "body": text.body,
    }


async def _send(settings: Settings, document: dict[str, Any]) -> tuple[bool, str | None]:
    name = document["channel"]
    if not document["address"]:
        return False, "nobody to tell"
    if name not in settings.alerts_url:
        return False, f"{variable_of(name)} is not set"
    channel = Channel(name, settings.alerts_url[name], timeout_seconds=settings.alerts_send_seconds)
    try:
        message = Outgoing(
            document["message_id"], document["address"], f"[test] {document['subject']}", document["body"]
        )
        error = await channel.send(message)
    finally:
        await channel.close()
    return error is None, error


def _print_message(document: dict[str, Any]) -> None:
    to = document["person"] or "nobody"
    err.print(f"to {escape(to)} by {document['channel']} ({escape(document['address']) or '-'})")
    err.print(f"after {document['grace_minutes']} minutes, if it is not undone")
    for remark in document["remarks"]:
        err.print(f"but: {escape(remark)}")
    out.print(Text(f"\n{document['subject']}\n", "bold"))
    out.print(escape_lines(document["body"]))
    if document.get("sent"):
        err.print(f"\nsent, as message {document['message_id']}")


async def run_alerts_log(*, account: str | None, rule: str | None, limit: int, as_json: bool) -> None:
    """Say what became of alerts, and why."""
    settings = read_settings()
    async with store(settings) as redis:
        ledger = await _ledger(redis, settings)
        entries = [
            entry
            async for entry in read_log(ledger)
            if account in (None, entry["account"]) and rule in (None, entry["rule"])
        ]
        claim = await ledger.peek()
    for entry in entries[-limit:]:
        if as_json:
            print_json(entry)
            continue
        line = Text(f"{entry['at']:<20.20}  ")
        line.append(f"{entry['status']:<12}", STYLES.get(entry["status"], ""))
        line.append(f"{escape(entry['account']):<20} ", "bold").append(f"{escape(entry['rule'])} ")
        line.append(f"→ {escape(entry['person']) or 'nobody'}: ").append(shortened(escape(entry["why"])), "dim")
        out.print(line)
    if as_json:
        return
    if len(entries) > limit:
        err.print(f"and {len(entries) - limit:,} older ones (--limit)")
    skipped = claim.state.get("skipped", {}) if claim else {}
    if skipped:
        err.print("nobody is told of: " + ", ".join(f"{count:,} {mode}" for mode, count in sorted(skipped.items())))


async def run_alerts_undelivered(*, retry: bool, discard: bool, as_json: bool) -> None:
    """List the messages that were given up, or ask the role to try them again, or to forget them."""
    if retry and discard:
        raise CommandFailed("--retry and --discard: one of them")
    settings = read_settings()
    async with store(settings) as redis:
        ledger = await _ledger(redis, settings)
        messages = await read_messages(ledger, "undelivered")
        waiting = await ledger.count("messages")
        if (retry or discard) and messages:
            wanted = RETRY if retry else DISCARD
            await redis.hset(ledger.keys.requests, mapping={message.id: wanted for message in messages})
    if retry or discard:
        if as_json:
            print_json({"retried" if retry else "discarded": len(messages)})
        else:
            what = "tried again" if retry else "discarded"
            out.print(f"{len(messages):,} will be {what}, by the running `resegment alerts` or the next one")
        return
    for message in messages:
        if as_json:
            print_json(_undelivered(message))
            continue
        line = Text(f"{format_instant(message.handed_over_us):<20.20}  ")
        line.append(f"{message.recipient.channel} → {escape(message.recipient.person)}: ", "bold")
        line.append(shortened(escape(message.subject)))
        out.print(line)
        out.print(Text(f"    {message.attempts} attempts: {shortened(escape(message.error))}", "dim"))
    if not as_json:
        err.print(f"{len(messages):,} undelivered, {waiting:,} wait for their channels")


def _undelivered(message: Message) -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "handed_over_at": format_instant(message.handed_over_us),
        "person": message.recipient.person,
        "channel": message.recipient.channel,
        "address": message.recipient.address,
        "subject": message.subject,
        "alerts": [id_ for id_, _, _ in message.alerts],
        "attempts": message.attempts,
        "error": message.error,
    }


async def _ledger(redis: Redis, settings: Settings) -> ShardStore:
    """Raises CommandFailed where there is none."""
    ledger = ShardStore(redis, settings.redis_prefix, LedgerName.ALERTS, 0)
    if await ledger.peek() is None:
        known = await founding.read_founding(redis, settings.redis_prefix)
        raise CommandFailed(
            "no `resegment alerts` has begun with this store yet"
            if known
            else "the store holds no installation: look at RESEGMENT_REDIS_URL and RESEGMENT_REDIS_PREFIX"
        )
    return ledger
