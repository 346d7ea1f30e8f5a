"""Compiled functions say what they take, whose method they are, and where the theory of them is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THEORY = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
ENTRIES = {"kernel", "borrowing_kernel"}
COMPILED = ENTRIES | {"device", "borrower", "provides"}
MAKES_NUMBERS_OF_THE_PIXELS = {"mle", "wls", "linked_kernel", "neighbours"}
"""Modules whose entry is a published method; the others move and sort numbers."""


def _decorators(function: ast.FunctionDef) -> set[str]:
    bare = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return {ast.unparse(node) for node in bare}


def _functions(path: Path, decorators: set[str]) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _decorators(node) & decorators
    ]


MODULES = [path for path in sorted((ROOT / "fitting").rglob("*.py")) if _functions(path, COMPILED)]
KERNELS = [(path, kernel) for path in MODULES for kernel in _functions(path, ENTRIES)]


def test_the_rules_below_look_at_the_kernels_there_are() -> None:
    names = {f"{path.stem}.{kernel.name}" for path, kernel in KERNELS}

    assert {"mle.fit_blocks", "scan.scan", "rois.pack", "linked_kernel.fit_linked"} <= names
    assert {"poisson", "gaussian_kinds", "template_match"} <= {path.stem for path in MODULES}


@pytest.mark.parametrize(
    ("path", "kernel"), KERNELS, ids=lambda value: getattr(value, "stem", getattr(value, "name", ""))
)
def test_a_kernel_says_what_it_takes(path: Path, kernel: ast.FunctionDef) -> None:
    said = ast.get_docstring(kernel) or ""

    assert "Parameters\n----------\n" in said
    arrays = [line for line in said.splitlines() if line.endswith(("array", "arrays"))]
    assert all("(" in line for line in arrays), "an array's shape goes before its type"


@pytest.mark.parametrize(
    ("path", "kernel"),
    [(path, kernel) for path, kernel in KERNELS if path.stem in MAKES_NUMBERS_OF_THE_PIXELS],
    ids=lambda value: getattr(value, "stem", getattr(value, "name", "")),
)
def test_a_kernel_that_is_a_published_method_cites_its_paper(path: Path, kernel: ast.FunctionDef) -> None:
    module = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    said = module + "\n" + (ast.get_docstring(kernel) or "")

    assert "References\n----------\n" in said
    assert "https://doi.org/" in said


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_theory_names_every_module_that_computes(path: Path) -> None:
    headings = [line for line in THEORY.splitlines() if "`" in line]

    assert any(f"{path.name}`" in line for line in headings), (
        f"docs/theory.md does not say what {path.name} does"
    )
