"""Rules that keep the house as it was meant: imports, words, sizes, entry points."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    [*(ROOT / "cluster").rglob("*.py"), *(ROOT / "fitting").rglob("*.py"), ROOT / "clusterofone.py"]
)
LONGEST_FILE = 450
MAY_BE_LONGER = {"protocol.py": "every message on the wire is in one place, by design"}

LIGHT_IMPORTS = [
    ("fitting", ["numba", "scipy", "pydantic", "h5py"]),
    ("fitting.fits", ["numba", "scipy", "pydantic", "h5py"]),
    ("fitting.localise", ["scipy.ndimage", "scipy.special", "pydantic", "h5py", "fastapi", "httpx"]),
    ("cluster.scheduler.core", ["numpy", "pydantic", "fastapi", "fitting"]),
    ("cluster.scheduler.run", ["numba", "tifffile", "nicegui"]),
    ("cluster.dataserver.run", ["numba", "scipy", "matplotlib"]),
    ("cluster.calibrating.kinds", ["numba", "scipy", "tifffile", "matplotlib"]),
    ("cluster.client", ["numba", "scipy", "fastapi", "zeroconf"]),
    (
        "cluster.commands.program",
        ["numba", "scipy", "h5py", "zeroconf", "matplotlib", "nicegui", "fastapi", "uvicorn"],
    ),
    ("cluster.calibration_files", ["numba", "scipy", "h5py", "typer", "tifffile", "matplotlib"]),
    ("cluster.reports.psf", ["matplotlib", "numba"]),
    ("fitting.calibration.psf_options", ["numba", "scipy"]),
    ("cluster.results.picture_files", ["numba", "matplotlib"]),
    ("cluster.reports.canvas", ["matplotlib", "numba", "scipy"]),
]

DANGEROUS = {
    "pickle.loads": "unpickles",
    "pickle.load": "unpickles",
    "eval": "evaluates",
    "exec": "executes",
    "yaml.load": "builds objects",
    "yaml.unsafe_load": "builds objects",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "os.fork": "copies locks that threads hold",
    "multiprocessing.Process": "may fork",
    "multiprocessing.Pool": "may fork",
    "ProcessPoolExecutor": "may fork, and unpickles",
    "concurrent.futures.ProcessPoolExecutor": "may fork, and unpickles",
    "marshal.loads": "unmarshals",
    "marshal.load": "unmarshals",
    "pickle.Unpickler": "unpickles",
    "shelve.open": "unpickles",
    "joblib.load": "unpickles",
    "yaml.full_load": "builds objects",
    "__import__": "imports what a string names",
    "tempfile.mktemp": "names a file that another may make first",
}
MODULES_OF = {name.partition(".")[0] for name in DANGEROUS if "." in name} - {"os", "tempfile", "concurrent"}


def test_this_cluster_package_is_ours_and_not_the_one_on_pypi() -> None:
    assert Path(import_module("cluster").__file__ or "").resolve().is_relative_to(ROOT)


@pytest.mark.parametrize(("module", "heavy"), LIGHT_IMPORTS, ids=[module for module, _ in LIGHT_IMPORTS])
def test_importing_a_module_does_not_drag_in(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)

    assert set(heavy).isdisjoint(out.stdout.split())


def test_import_directions_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    out = subprocess.run([str(linter), "--no-cache"], check=False, capture_output=True, text=True, cwd=ROOT)

    assert out.returncode == 0, out.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_dangerous_is_called(path: Path) -> None:
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]

    assert [call for call in calls if call in DANGEROUS] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_dangerous_goes_by_another_name_and_no_shell_is_started(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    taken_out = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    renamed = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names if alias.asname
    }
    shells = [node for node in nodes if isinstance(node, ast.keyword) and node.arg == "shell"]

    assert (taken_out | renamed) & MODULES_OF == set()
    assert shells == []


def test_numpy_never_loads_pickles() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


UNPACKING = {"extractall", "extract", "unpack_archive", "ZipStore"}


def test_archives_are_written_and_never_unpacked() -> None:
    """`np.load` opens a zip whatever it is called; so do Zarr's functions that take a path."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            module, _, name = called.rpartition(".")
            assert name not in UNPACKING, f"{path}: {called}"
            assert called not in {"np.load", "numpy.load"}, path
            assert module not in {"tarfile", "bz2", "lzma", "gzip"}, f"{path}: {called}"
            if name == "ZipFile":
                assert ast.literal_eval(node.args[1]) == "w", path
            if module == "zarr":
                assert ast.unparse(node.args[0]).startswith("LocalStore("), f"{path}: {called}"


def test_files_stay_short() -> None:
    long = {
        path.name: count
        for path in SOURCES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
        and path.name not in MAY_BE_LONGER
    }

    assert long == {}


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "helpers", "common", "base", "manager", "misc"}

    assert [path for path in SOURCES if path.stem in drawers] == []


def test_every_entry_point_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {
        entry.name
        for entry in entry_points(group="console_scripts")
        if entry.dist and entry.dist.name == "clusterofone"
    }

    assert names == set(project["scripts"])
    for target in project["scripts"].values():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    "document", ["README.md", *[f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))]]
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    import re

    path = ROOT / document
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))

    assert [target for target in targets if not (path.parent / target).exists()] == []
