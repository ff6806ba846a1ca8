"""The direction of imports, which keeps the rules free of machinery: streams -> state -> segmentation."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("segmentation", "state", "streams")


def test_imports_point_one_way() -> None:
    """The contracts in pyproject.toml hold."""
    checked = _lint_imports(PROJECT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("segmentation", "import state"),
        ("segmentation", "import streams"),
        ("segmentation", "import time"),
        ("segmentation", "import numpy"),
        ("segmentation", "from scipy.special import hyp2f1"),
        ("segmentation", "from redis.asyncio import Redis"),
        ("state", "from streams import embedded"),
        ("state", "import aiokafka"),
        ("state", "import faust"),
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path: Path, module: str, statement: str) -> None:
    """The contracts are able to break: each of these lines breaks one."""
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module / "against.py").write_text(statement + "\n")
    checked = _lint_imports(tmp_path)
    assert checked.returncode == 1, checked.stdout
    assert f"{module}.against -> " in checked.stdout


def test_the_rules_rest_on_the_standard_library_and_pydantic_alone() -> None:
    """What `segmentation` imports can be read in an afternoon."""
    graph = grimp.build_graph("segmentation", include_external_packages=True)
    imported = {
        name
        for module in graph.modules
        for name in graph.find_modules_directly_imported_by(module)
        if name.split(".")[0] != "segmentation"
    }
    assert imported - set(sys.stdlib_module_names) <= {"pydantic", "pydantic_core"}


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True)
