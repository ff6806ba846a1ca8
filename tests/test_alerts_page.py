"""The examples of docs/alerts.md are what the program takes and says."""

import json
import re
from importlib.resources import files
from pathlib import Path

from segmentation.alerts import AlertRules, alert_for
from segmentation.policy import Policy, parse_policy
from streams.alerting.news import Facts, read_change
from streams.alerting.texts import Texts
from streams.settings import Settings
from streams.topics import Topic
from tests.alerting import change

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")


def policy_of_the_page() -> Policy:
    """The default one with the tables of the page."""
    [tables] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    return parse_policy(files("segmentation").joinpath("default_policy.toml").read_text() + tables, "docs/alerts.md")


def test_the_tables_are_a_policy() -> None:
    """And what it says of defaults is so."""
    policy = policy_of_the_page()
    assert [rule.name for rule in policy.alerts] == ["key-lost", "at-stake"]
    default = Policy.default().calm.document()
    said = policy.calm.document()
    assert {name: said[name] for name in default} == default
    assert set(said) - set(default) == {"quiet_from", "quiet_until"}


def test_the_message_is_what_is_sent() -> None:
    """Word by word."""
    policy = policy_of_the_page()
    sent = change("acme", 3, "key", "enterprise")
    document = json.loads(sent.value or b"") | {"effective_at": "2026-11-22T10:15:00Z"}
    news, data = read_change(Topic.SEGMENT_CHANGES, json.dumps(document).encode())
    facts = Facts("The acme", {"owner": "Kim", "region": "EMEA"})
    rules = AlertRules.of(policy)
    [rule] = rules.wanted(news)
    alert = alert_for(rules, rule, news, facts.attributes)
    text = Texts(policy).one(alert, data, facts)
    assert alert.recipient.address == "kim@example.com"
    assert f"To: {alert.recipient.address}\nSubject: {text.subject}\n\n{text.body}\n```" in PAGE


def test_the_settings_are_as_it_says() -> None:
    """Their defaults."""
    settings = Settings()
    for name, value in {
        "SEND_SECONDS": "30",
        "RETRY_SECONDS": "5",
        "ATTEMPTS_MAX": "12",
        "MESSAGES_MAX": "10,000",
    }.items():
        assert f"ALERTS_{name}` ({value})" in PAGE or f"..._{name}` ({value})" in PAGE
        assert getattr(settings, f"alerts_{name.lower()}") == float(value.replace(",", ""))


def test_the_commented_example_is_a_policy() -> None:
    """Without its comment signs."""
    text = (ROOT / "examples" / "policy.toml").read_text()
    example = text[text.index("# [people.kim]") :]
    plain = "\n".join(line.removeprefix("# ") for line in example.splitlines())
    assert [rule.name for rule in parse_policy(text + plain, "examples/policy.toml").alerts] == ["key-lost"]
