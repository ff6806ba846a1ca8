"""What is in deploy/ asks for figures that a running worker has, and listens nowhere but on this machine."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.alerting.figures import AlertsFigures
from streams.embedded import Embedded
from streams.monitoring import Look, Unready, listening
from streams.server_process import free_port
from streams.worker_figures import WorkerFigures
from tests.pipeline import Installation, moment, purchase, until
from tests.streams.test_monitoring import Looker

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "resegment.json"

OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job"}
WORDS = {
    *("sum", "max", "min", "count", "rate", "increase", "resets", "absent", "time", "deriv"),
    *("by", "on", "and", "or", "unless", "min_over_time", "predict_linear"),
}
"""Of the query language, as far as it is used."""


def rules() -> Iterator[str]:
    """Each rule's query."""
    for rule in RULES.read_text().split("- alert: ")[1:]:
        (query,) = re.findall(r"^ +expr: (?:>-\n)?(.*?)(?=^ +(?:for|labels):)", rule, re.DOTALL | re.MULTILINE)
        yield " ".join(query.split())


def panels() -> Iterator[str]:
    """Each panel's queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


class AtOnce:
    """A worker, with a reason not to be ready besides: what has it, and what has not, in one look."""

    role = "worker"
    figures = WorkerFigures.figures

    def __init__(self, figures: WorkerFigures) -> None:
        self._figures = figures
        self.failure = None

    async def look(self) -> Look:
        """As it is, and a reason."""
        look = await self._figures.look()
        return Look(look.samples, [*look.unready, Unready("starting", "", "")])


async def _all_of(looker: Looker) -> str | None:
    """What is exported once every figure is: a shard that has just gone back says nothing."""
    text = await looker.text()
    return text if all(figure.name in text for figure in WorkerFigures.figures) else None


@pytest.fixture
async def exported(embedded: Embedded) -> dict[str, set[str]]:
    """What a running worker exports: each figure, with the names of its labels."""
    port = free_port()
    live = Installation(embedded, clock="wall", tick_seconds=0.1, monitoring_address=str(port))
    async with live as installation, installation.worker() as running:
        async with listening(str(port), WorkerFigures(running.worker)):
            await Looker(port).until_ready()
        await installation.send(purchase("acme", "1", moment(0), 100))
        async with listening(str(port), AtOnce(WorkerFigures(running.worker))):
            text = await until(partial(_all_of, Looker(port)), "every figure")
    found = {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }
    # that the role exports all of its own is in test_alerts_monitoring
    return found | {figure.name: set(figure.labels) for figure in AlertsFigures.figures if figure.name not in found}


async def test_every_query_asks_for_what_there_is(exported: dict[str, set[str]]) -> None:
    """Figures and their labels, in the rules and in the dashboard; and no figure but the version is forgotten."""
    queries = [*rules(), *panels()]
    assert len(list(rules())) == RULES.read_text().count("- alert: ") > 10 and len(list(panels())) > 20
    asked = set()
    for query in queries:
        names = set(re.findall(r"[a-z_]\w*(?=[^\w]|$)", re.sub(r'"[^"]*"|\[\w+\]|\b\d\w*', "", query)))
        figures = names & set(exported)
        labels = {label for figure in figures for label in exported[figure]} | LABELS_OF_PROMETHEUS
        unknown = names - figures - labels - WORDS - OF_PROMETHEUS
        assert not unknown, (query, unknown)
        asked |= figures
    own = {name for name in exported if name.startswith("resegment_")}
    assert own <= asked, own - asked


def test_every_rule_says_how_bad_it_is_and_is_on_the_page() -> None:
    """With what to do."""
    page = (PROJECT / "docs" / "monitoring.md").read_text()
    for rule in RULES.read_text().split("- alert: ")[1:]:
        name = rule.split()[0]
        assert re.search(r"severity: (page|ticket)}", rule) and "summary:" in rule, name
        assert f"`{name}`" in page, name


def test_panels_are_numbered_and_do_not_overlap() -> None:
    """As Grafana wants it."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    assert [panel["id"] for panel in found] == list(range(1, len(found) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_compose_publishes_to_this_machine_alone() -> None:
    """And the workers answer nobody unless they are told to."""
    text = (PROJECT / "docker-compose.yml").read_text()
    published = re.findall(r'^ +- "([\d.:]+:\d+)"$', text, re.MULTILINE)
    assert len(published) == 4 and all(place.startswith("127.0.0.1:") for place in published)
    assert "RESEGMENT_MONITORING_ADDRESS: ${RESEGMENT_MONITORING_ADDRESS:-}\n" in text
    for service in ("prometheus", "grafana"):
        block = text.partition(f"\n  {service}:\n")[2].partition("\n\n")[0]
        assert 'profiles: ["monitoring"]' in block
    for path in re.findall(r"^ +- \./([\w/.-]+):/", text, re.MULTILINE):
        assert (PROJECT / path).exists(), path
