"""`[people]`, `[calm]` and `[[alerts]]` of a policy: what they may say, and what is said of mistakes."""

import json

import pytest

from segmentation.policy import Policy, PolicyError, parse_policy

DEFAULT = Policy.default()

DOCUMENT = """
version = "1"
base_currency = "USD"
window_days = 365
new_start_days = 90
basis = "revenue"
band = 2

[tiers]
key = 30
enterprise = 50
commercial = 20
"""

ALERTS = """
[people.kim]
address = "kim@example.com"

[people."dedicated account team"]
address = "#key-accounts"
channel = "slack"
timezone = "America/New_York"

[calm]
grace_minutes = 30
an_hour_max = 3
digest_at = "07:45"
quiet_from = "19:00"
quiet_until = "07:00"
timezone = "Europe/Berlin"

[[alerts]]
name = "key-lost"
on = "move"
from = ["key"]
direction = ["down"]
cause = ["boundary_moved", "window_expiry"]
where = [{ attribute = "region", any_of = ["EMEA"] }, { attribute = "employees", at_least = 0.5 }]
revenue_over_minor = 1_000_000
to = "owner"
address = "desk@example.com"
subject = "{{ account }} is lost"

[[alerts]]
name = "alarm"
on = "risk"
level = ["high"]
segment = ["key", "enterprise"]
at_risk_over_minor = 0
to = "team"
channel = "teams"
grace_minutes = 0
"""


def policy_with(text: str) -> Policy:
    """A policy that says this, too."""
    return parse_policy(DOCUMENT + text, "policy.toml")


def test_what_the_tables_say() -> None:
    """Times are minutes, names are as they are written."""
    policy = policy_with(ALERTS)
    assert (policy.calm.digest_at, policy.calm.quiet_from, policy.calm.quiet_until) == (465, 1140, 420)
    assert policy.people["kim"].address == "kim@example.com"
    first, second = policy.alerts
    assert (first.name, first.from_segments, first.channel, first.to) == ("key-lost", ("key",), "mail", "owner")
    assert (second.channel, second.grace_minutes, second.revenue_over_minor) == ("teams", 0, None)


def test_they_decide_no_segment() -> None:
    """They may be edited from one start to the next, and each difference has a line."""
    policy, other = policy_with(ALERTS), policy_with(ALERTS.replace("= 30\n", "= 20\n", 1))
    assert policy.hash == policy_with("").hash
    assert policy.rest_differences(other.canonical_rest()) == ["calm.grace_minutes: 20 -> 30"]
    added = policy.rest_differences(policy_with("").canonical_rest())
    assert "alerts.0.name: nothing -> key-lost" in added
    assert "people.kim.address: nothing -> kim@example.com" in added
    assert policy_with("").rest_differences(policy_with("").canonical_rest()) == []


def test_a_document_makes_the_same_policy_again() -> None:
    """Also through JSON, and where something else is changed."""
    policy = policy_with(ALERTS)
    assert Policy.model_validate(policy.document()) == policy
    assert Policy.of(policy.canonical(), policy.canonical_rest()) == policy
    assert Policy.model_validate(json.loads(json.dumps(policy.document()))) == policy
    assert policy.with_changes(band=0).alerts == policy.alerts
    assert policy.with_changes(alerts=[]).alerts == ()


def test_a_policy_without_them_is_as_before() -> None:
    """Nobody is told of anything, and older states are read."""
    assert (DEFAULT.alerts, dict(DEFAULT.people), DEFAULT.calm.grace_minutes) == ((), {}, 15)
    rest = {
        name: value for name, value in json.loads(DEFAULT.canonical_rest()).items() if name not in ("people", "calm")
    }
    assert Policy.of(DEFAULT.canonical(), json.dumps(rest)) == DEFAULT


RULE = '[[alerts]]\nname = "a"\non = "move"\nto = "owner"\n'
KIM = '[people.kim]\naddress = "kim"\n'


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        (f"{RULE}form = ['key']", "alerts.0.form", "from, perhaps"),
        (f"{RULE}from = ['gold']", "alerts.0.from.0", "a list of segments: key"),
        (f"{RULE}level = ['high']", "alerts.0.level", 'with another "on"'),
        (RULE.replace("move", "risk") + "into = ['key']", "alerts.0.into", 'with another "on"'),
        (f"{RULE}{RULE}", "alerts.1.name", "each name once"),
        (RULE.replace('"owner"', '"kin"') + KIM, "alerts.0.to", "a name of [people]"),
        (RULE.replace('to = "owner"\n', ""), "alerts.0", "to or address"),
        (RULE.replace('"move"', '"moves"'), "alerts.0.on", '"move" or "risk"'),
        (RULE.replace('name = "a"', 'name = "A"'), "alerts.0.name", "in lower case"),
        (f"{RULE}where = [{{ attribute = 'region' }}]", "alerts.0.where.0", "any_of, at_least or at_most"),
        (f"{RULE}where = [{{ any_of = [1] }}]", "alerts.0.where.0.attribute", "an attribute's name"),
        (f"{RULE}where = [{{ attribute = 'likeness', any_of = [1] }}]", "alerts.0.where.0.attribute", "no input"),
        (f"{RULE}revenue_over_minor = 1.5", "alerts.0.revenue_over_minor", "minor units"),
        (f"{RULE}grace_minutes = 1441", "alerts.0.grace_minutes", "from 0 to 1440"),
        (f"{RULE}channel = 'Mail'", "alerts.0.channel", "a channel's name"),
        (f"{RULE}subject = ''", "alerts.0.subject", "text in quotes"),
        ("alerts = 3", "alerts", "tables [[alerts]]"),
        ("[people]\nkim = 3", "people.kim", "a table [people.kim] with address"),
        ("[people.kim]\nchannel = 'mail'", "people.kim.address", "text in quotes"),
        ("[people.kim]\naddress = 'a'\nadress = 'b'", "people.kim.adress", "address, perhaps"),
        ("[people.owner]\naddress = 'a'", "people.owner", "another name"),
        (f"{KIM}[people.' Kim']\naddress = 'a'", "people. Kim", "that can be seen"),
        (f"{KIM}[people.Kim]\naddress = 'a'", "people.Kim", "each name once"),
        ("[people.kim]\naddress = 'a'\ntimezone = 'Europe/Bonn'", "people.kim.timezone", "a time zone"),
        ("[calm]\ntimezone = '../../etc/passwd'", "calm.timezone", "a time zone"),
        ("[calm]\ngrace_minutes = -1", "calm.grace_minutes", "from 0 to 1440"),
        ("[calm]\ndigest_at = '24:00'", "calm.digest_at", "a local time"),
        ("[calm]\ndigest_at = 8", "calm.digest_at", "a local time"),
        ("[calm]\nquiet_from = '19:00'", "calm.quiet_until", "the other end"),
        ("[calm]\nquiet_from = '19:00'\nquiet_until = '19:00'", "calm.quiet_until", "another time"),
        ("[calm]\nquite_from = '19:00'", "calm.quite_from", "quiet_from, perhaps"),
        ("calm = 1", "calm", "a table [calm]"),
    ],
)
def test_mistakes_say_where_and_what_would_be_right(text: str, field: str, expected: str) -> None:
    """As all other mistakes do."""
    top_level = text.startswith(("alerts =", "calm ="))
    with pytest.raises(PolicyError) as caught:
        parse_policy(text + DOCUMENT if top_level else DOCUMENT + text, "policy.toml")
    (problem,) = caught.value.problems
    assert problem.field == field
    assert expected in problem.expected
