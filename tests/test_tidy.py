"""The house rules, checked as an ordinary test (STYLE 3.8.15): layering, purity, no stray clocks, sizes, no stubs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "rivha").rglob("*.py"))
EVERYTHING = sorted(p for d in ("rivha", "tests", "benchmarks", "scripts") for p in (ROOT / d).rglob("*.py"))
BRAIN = sorted((ROOT / "rivha" / "agent" / "brain").glob("*.py"))

LONGEST_FILE = 500
LONGEST_FUNCTION = 60
BRAIN_MAY_IMPORT = {"__future__", "dataclasses", "enum", "collections", "typing", "re", "datetime", "rivha.model", "rivha.agent.brain"}
WALL_CLOCK_MAY = {"rivha/log.py", "rivha/agent/main.py"}  # main hands it to the tick as `wall`, for scheduled_at and for people

# package -> what it must not import. `agent/main.py` is the place that wires everything.
LAYERS = {
    "rivha/dcs": ("rivha.agent", "rivha.postgres", "rivha.api", "rivha.cli", "rivha.config"),
    "rivha/postgres": ("rivha.agent", "rivha.dcs", "rivha.api", "rivha.cli", "rivha.config"),
    "rivha/agent": ("rivha.cli",),
    "rivha/api": ("rivha.postgres.server", "rivha.dcs.etcd", "rivha.cli"),
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", BRAIN, ids=named)
def test_the_brain_touches_nothing(path: Path):
    for module in imported(path):
        assert any(module == allowed or module.startswith(allowed + ".") for allowed in BRAIN_MAY_IMPORT), f"{named(path)} imports {module}"
    assert not any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(tree(path)))


@pytest.mark.parametrize("folder", LAYERS)
def test_imports_go_downward_only(folder: str):
    for path in (ROOT / folder).rglob("*.py"):
        if named(path) == "rivha/agent/main.py":
            continue
        for module in imported(path):
            assert not module.startswith(LAYERS[folder]), f"{named(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_decision_looks_at_the_wall_clock(path: Path):
    if named(path) in WALL_CLOCK_MAY:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("time", "time"), ("datetime", "now"), ("datetime", "utcnow")}, named(path)


@pytest.mark.parametrize("path", EVERYTHING, ids=named)
def test_files_and_functions_keep_their_size(path: Path):
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_FILE, f"{named(path)} has {len(lines)} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{named(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_nothing_only_looks_done(path: Path):
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None  # cleaning up on the way out
            assert not broad or passed_on, f"{named(path)}:{node.lineno} catches everything"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_module_says_what_it_is_for(path: Path):
    assert ast.get_docstring(tree(path)) or not path.read_text().strip(), named(path)


def test_every_rule_is_a_sentence_with_its_own_name():
    names: list[str] = []
    for path in BRAIN:
        functions = [node for node in tree(path).body if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.BinOp)]
        names += [f.name for f in functions if f.returns is not None and "Verdict" in ast.unparse(f.returns)]
    assert len(names) == len(set(names))
    assert all("_" in name for name in names)
