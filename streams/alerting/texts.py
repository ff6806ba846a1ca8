"""What a message says: by the templates that the program brings, or the rule's own.

Templates run in a sandbox. What is in a change or said by an account is shown without anything that could take a
reader's screen, or a mail's header, over.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from segmentation.alerts import Alert
from segmentation.money import format_minor
from segmentation.policy import Policy
from streams.alerting.news import Facts, shown_attributes
from streams.cli.console import escape

SUBJECT_CHARACTERS_MAX = 200
TEXT_CHARACTERS_MAX = 20_000
DIGEST_SHOWN = 50
"""Alerts that a digest shows; the others are counted."""

_CAUSES = {
    "first_signup": "it signed up",
    "first_purchase": "its first purchase",
    "first_engagement": "it was heard of for the first time",
    "purchase": "it bought for {own}",
    "refund": "{own} were paid back",
    "population_changed": "it is ranked against others than before",
    "window_expiry": "{own} left the window of its revenue: it was bought too long ago",
    "revenue_due": "revenue of {own} that had been dated ahead is due",
    "graduated": "it is no longer new",
    "lapsed": "all that it bought is too long ago",
    "boundary_moved": "it did nothing itself: others moved the cutoff{cutoff}",
    "combined": "its revenue changed by {own}, and others moved the cutoff{cutoff}",
    "backfill": "it happened before the first tick",
    "recovered": "it was found to differ from what had been told",
    "policy_changed": "another policy was applied",
}


class Text(NamedTuple):
    """A message's words."""

    subject: str
    body: str


class BadTemplate(Exception):
    """A rule's template cannot be used. The message says which, and what is wrong with it."""


class Texts:
    """Writes messages, by one policy."""

    def __init__(self, policy: Policy) -> None:
        """Raises BadTemplate."""
        self._currency = policy.base_currency
        self._environment = ImmutableSandboxedEnvironment(
            autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters["money"] = self.money
        self._defaults = {
            kind: (
                self._environment.from_string(_template(f"{kind}_subject")),
                self._environment.from_string(_template(kind)),
            )
            for kind in ("move", "risk")
        }
        self._own = {}
        for rule in policy.alerts:
            subject, text = self._defaults[rule.on]
            try:
                self._own[rule.name] = (
                    subject if rule.subject is None else self._environment.from_string(rule.subject),
                    text if rule.text is None else self._environment.from_string(rule.text),
                )
            except TemplateError as error:
                raise BadTemplate(f"alert {rule.name}: its template is none: {error}") from None

    def money(self, amount_minor: int) -> str:
        """Minor units of the base currency, for people: `1,250.00 USD`."""
        return format_minor(amount_minor, self._currency)

    def one(self, alert: Alert, change: Mapping[str, Any], facts: Facts) -> Text:
        """The words of an alert of its own.

        A template that fails on this change gives way to the program's own, which says so: an alert must not get lost
        for it.
        """
        context = self._context(alert, change, facts)
        default = self._defaults[alert.kind]
        templates = self._own.get(alert.rule, default)
        try:
            subject, body = (template.render(context) for template in templates)
        except Exception as error:  # whatever a template does
            subject, body = (template.render(context) for template in default)
            body += f"\n\n(The rule's own template failed: {escape(str(error))[:200]})"
        return Text(_one_line(subject), _lines(body))

    def digest(self, alerts: Sequence[tuple[Alert, Mapping[str, Any], Facts]]) -> Text:
        """The words of several alerts together, the oldest first."""
        shown = alerts[:DIGEST_SHOWN]
        parts = []
        for alert, change, facts in shown:
            context = self._context(alert, change, facts)
            playbook = context["playbook"]
            lines = [
                self.one(alert, change, facts).subject,
                f"  {context['why']}; {self.money(change['rolling_revenue_minor'])} in the window",
            ]
            if playbook:
                lines.append(f"  Next: {playbook['next_step']}")
            parts.append("\n".join(lines))
        if len(alerts) > len(shown):
            parts.append(f"and {len(alerts) - len(shown):,} more: `resegment alerts log` has all of them")
        count = len({alert.account_id for alert, _, _ in alerts})
        subject = f"{count:,} accounts changed" if count > 1 else self.one(*alerts[-1]).subject
        return Text(subject, _lines("\n\n".join(parts)))

    def _context(self, alert: Alert, change: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
        change, name = _shown(change), escape(facts.name)
        attributes = _shown(shown_attributes(facts.attributes))
        is_move = alert.kind == "move"
        return {
            "rule": alert.rule,
            "kind": alert.kind,
            "account": change["account_id"],
            "name": name,
            "title": f"{name} ({change['account_id']})" if name else change["account_id"],
            "attributes": attributes,
            "owner": attributes.get("owner", ""),
            "person": escape(alert.recipient.person),
            "population": change["population"],
            "previous": change["previous_segment" if is_move else "previous_level"],
            "current": change["current_segment" if is_move else "current_level"],
            "lapsed": bool(change.get("lapsed")),
            "arrow": "→",
            "why": self._why(change) if is_move else "; ".join(change["reasons"]),
            "playbook": change.get("playbook"),
            "change": change,
            "currency": self._currency,
        }

    def _why(self, change: Mapping[str, Any]) -> str:
        cause = change["cause"]
        own, by = cause["own_change_minor"], cause["cutoff_change_minor"]
        cutoff = "" if not by else f", by {self.money(by)}"
        known = _CAUSES.get(cause["kind"], str(cause["kind"]))
        return known.format(own=self.money(own if cause["kind"] == "combined" else abs(own)), cutoff=cutoff)


def _template(name: str) -> str:
    return files("streams.alerting").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """The same with each text as it may be shown."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Mapping):
        return {name: _shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    return value


def _one_line(text: str) -> str:
    return escape(" ".join(text.split()))[:SUBJECT_CHARACTERS_MAX]


def _lines(text: str) -> str:
    return "\n".join(escape(line) for line in text.strip().split("\n"))[:TEXT_CHARACTERS_MAX]
