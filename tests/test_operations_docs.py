"""The pages for whoever operates an installation hold what the program has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from streams.alerting.figures import AlertsFigures
from streams.monitoring import FIGURES
from streams.worker_figures import WorkerFigures

PROJECT = Path(__file__).parents[1]
MONITORING = (PROJECT / "docs" / "monitoring.md").read_text()
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text()

ERRORS = {
    *("CannotApply", "CannotStart", "CannotVerify", "CommandFailed", "CorruptState", "DifferentPolicy"),
    *("NoInstallation", "NoProgress", "NoSuchShard", "StillChanging", "UnfitTopics", "UnknownAccount"),
}
CHOSEN = {"error"}
"""A name under which one of these may be raised."""


def test_every_figure_is_documented_with_its_labels() -> None:
    """And no other is."""
    _, _, rest = MONITORING.partition("<!-- figures -->")
    table = rest.partition("<!-- figures: end -->")[0]
    documented = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(resegment_\w+)` \|([^|]*)\|", table, re.MULTILINE)
    }
    assert documented == {
        figure.name: figure.labels for figure in (*FIGURES, *WorkerFigures.figures, *AlertsFigures.figures)
    }


def test_every_reason_not_to_be_ready_is_documented() -> None:
    """By the word that is in the answer."""
    source = (PROJECT / "streams" / "worker_figures.py").read_text()
    reasons = set(re.findall(r'Unready\("(\w+)"', source))
    assert len(reasons) == 7
    assert all(f"`{reason}`" in MONITORING for reason in reasons)


def lines_of_program() -> Iterator[tuple[str, str]]:
    """Where they are, and what errors and warnings say: with … for what differs from time to time."""
    for package in ("segmentation", "state", "streams"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args:
                    yield from ((f"{path.name}:{node.lineno}", line) for line in _said_by(node))
                if isinstance(node, ast.Return) and node.value is not None and path.name == "failures.py":
                    described = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
                    yield f"{path.name}:{node.lineno}", _template(described)


def _said_by(call: ast.Call) -> Iterator[str]:
    function = call.func
    if isinstance(function, ast.Attribute) and ast.unparse(function) in ("log.error", "log.warning"):
        yield re.sub(r"%\w", "…", _template(call.args[0]))
    elif isinstance(function, ast.Name) and function.id in ERRORS | CHOSEN:
        yield _template(call.args[0])
    elif isinstance(function, ast.Name) and function.id == "OSError" and len(call.args) > 1:
        yield _template(call.args[1])


def _template(text: ast.expr) -> str:
    """The fixed words; nothing where there are none."""
    if isinstance(text, ast.IfExp):
        return _template(text.body)
    if isinstance(text, ast.Constant):
        return " ".join(str(text.value).split())
    if isinstance(text, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in text.values]
        return " ".join("".join(parts).split())
    return ""


def lines_of_page() -> set[str]:
    """The first cell of each row."""
    _, _, rest = OPERATIONS.partition("<!-- lines -->")
    cells = re.findall(r"^\| (`+) ?(.*?) ?\1 \| ", rest.partition("<!-- lines: end -->")[0], re.MULTILINE)
    assert len(cells) == len({line for _, line in cells}), "a line is there twice"
    return {line for _, line in cells}


def test_every_error_line_is_documented_with_what_to_do() -> None:
    """And no other: a line that the program does not say any more is not looked for."""
    said = {line: at for at, line in lines_of_program() if re.search(r"\w", line)}
    assert len(said) > 60
    page = lines_of_page()
    assert not {line: at for line, at in said.items() if line not in page}
    assert not page - said.keys()


def test_links_lead_to_what_there_is() -> None:
    """From these two pages, to files and to headings."""
    for page in (MONITORING, OPERATIONS):
        for target in re.findall(r"\]\(([^)]+)\)", page):
            file, _, heading = target.partition("#")
            path = (PROJECT / "docs" / file) if file else None
            assert path is None or path.resolve().exists(), target
            if heading:
                text = path.read_text() if path else page
                headings = {
                    re.sub(r"[^\w -]", "", found.lower()).replace(" ", "-")
                    for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
                }
                assert heading in headings, target
