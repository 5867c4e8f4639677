"""The shape of the sources: imports without circles or long chains, and no long files."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import fused_mixup

PACKAGE = Path(fused_mixup.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
MOST_TOP_MODULES = 20
LONGEST_CHAIN = 11
LONGEST_FILE = 320

FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "_build_info.py"
}


def imported(module: str) -> set[str]:
    """The package's modules that ``module`` imports anywhere: when called, or for types, too."""
    path = FILES[module]
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            of = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{of}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else of for name in names}
    return (found & FILES.keys()) - {module, "fused_mixup"}


def executed(module: str) -> set[str]:
    """The modules that importing ``module`` runs: a.b too for a.b.c, unless a.b imports a.b.c."""
    found = imported(module)
    packages = {".".join(name.split(".")[:2]) for name in found} & FILES.keys()
    return (found | packages) - {module, module.rpartition(".")[0], "fused_mixup"}


def circles() -> list[str]:
    done: set[str] = set()
    found = []

    def walk(module: str, above: tuple[str, ...]) -> None:
        if module in above:
            found.append(" → ".join([*above[above.index(module) :], module]))
        elif module not in done:
            for other in sorted(executed(module)):
                walk(other, (*above, module))
            done.add(module)

    for module in sorted(FILES):
        walk(module, ())
    return found


@cache
def longest_chain(module: str) -> tuple[str, ...]:
    chains = [longest_chain(other) for other in imported(module)]
    return (module, *max(chains, key=len, default=()))


def test_no_imports_run_in_a_circle():
    assert circles() == []


def test_no_chain_of_imports_is_long():
    chain = max(map(longest_chain, FILES), key=len)
    assert len(chain) <= LONGEST_CHAIN, " → ".join(chain)


def test_few_modules_stand_at_the_top():
    top = [name for name in FILES if name.count(".") == 1 and FILES[name].name != "__init__.py"]
    assert len(top) <= MOST_TOP_MODULES, sorted(top)


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree")
def test_no_source_file_is_long():
    folders = ("fused_mixup", "triton_kernels", "csrc", "tests", "benchmarks", "tools", "examples")
    kinds = {".py", ".h", ".inl", ".cpp", ".cu", ".cuh", ".sh"}
    paths = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in kinds]
    lines = {p: p.read_text(encoding="utf-8").count("\n") for p in [*paths, ROOT / "setup.py"]}
    long = {str(p.relative_to(ROOT)): n for p, n in lines.items() if n > LONGEST_FILE}
    assert len(paths) > 100 and not long
