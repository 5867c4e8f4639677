"""README and docs/development.md are short, in order, and true of the tree and on an index."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest
import torch

import fused_mixup

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "CHANGELOG.md").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

from long_description import absolute_links, long_description  # noqa: E402

FOLDERS = "fused_mixup csrc triton_kernels tests benchmarks tools docs examples findings".split()
PAGES = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/development.md")}
README = PAGES["README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Names of files, and of folders with their slash; neither starts inside a word or an address, nor
# holds a placeholder.
START, ENDINGS = r"(?<![\w/.<>*:])", "py|cpp|cuh?|inl|h|md|json|toml|cff|png"
FILE = re.compile(rf"{START}((?:[\w.-]+/)*[\w-]+\.(?:{ENDINGS}))\b")
FOLDER = re.compile(rf"{START}((?:[a-z_]+/)+)(?=[\s`,;|)]|$)", re.M)
MADE = ("build/", "before.json", "after.json")  # the page's commands make these


def tree() -> set[str]:
    """Paths of the sources: files, and folders with their slash."""
    found = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in FOLDERS:
        for path in [ROOT / folder, *(ROOT / folder).rglob("*")]:
            if "__pycache__" not in path.parts:
                found.add(path.relative_to(ROOT).as_posix() + ("/" if path.is_dir() else ""))
    return found


def unknown(text: str, paths: set[str]) -> list[str]:
    """Names on a page that neither equal a path nor end one."""
    names = {name for pattern in (FILE, FOLDER) for name in pattern.findall(text)}
    return sorted(
        name
        for name in names
        if not name.startswith(MADE)
        and name not in paths
        and not any(path.endswith("/" + name) for path in paths)
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    assert unknown(PAGES[page], tree()) == []


def test_names_that_do_not_exist_are_found():
    text = "`gone.py`, csrc/cpu/gone.cpp and docs/ have <op>.cpp in `gone/`, build/x.json"
    assert unknown(text, tree()) == ["csrc/cpu/gone.cpp", "gone.py", "gone/"]


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_of_the_pages_at_the_top_lead_somewhere(page):
    text = FENCED.sub("", (ROOT / page).read_text("utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    relative = [link.partition("#")[0] for link in links if not re.match(r"\w+:", link)]
    assert [link for link in relative if not (ROOT / link).exists()] == []


# ------------------------------------------------------------------ README


def test_pages_are_short():
    assert len(README.splitlines()) <= 150
    assert len(PAGES["docs/development.md"].splitlines()) <= 200
    steps = re.search(r"^## Add an op\n(.*?)^## ", PAGES["docs/development.md"], re.M | re.S)[1]
    assert 1 <= len(re.findall(r"^\d+\. ", steps, re.M)) <= 9


def test_the_first_screen_is_in_order():
    marks = ["# fused_mixup", "pip install", "MixPlan.uniform", "change one import"]
    marks += ["<!-- six rows: start -->", "- **No copies.**", "## Support", "## Documentation"]
    places = [README.index(mark) for mark in marks]
    assert places == sorted(places)
    step = FENCED.findall(README)[1][1]
    assert len(step.splitlines()) <= 8


def test_the_code_runs():
    """Run the blocks unchanged, in order."""
    names = {
        "random": random,
        "model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 1000)),
        "x": torch.rand(4, 3, 8, 8),
        "labels": torch.randint(1000, (4,)),
        "BatchMix": fused_mixup.BatchMix,
    }
    blocks = [code for language, code in FENCED.findall(README) if language == "python"]
    assert len(blocks) == 3
    for code in blocks:
        exec(code, names)
    assert names["loss"].shape == () and names["loss"].dtype == torch.float32
    assert all(p.grad is not None for p in names["model"].parameters())
    assert isinstance(names["target"], fused_mixup.MixedTarget)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "docs/proof.md", "docs/measured.md"])
def test_its_commands_are_targets_of_make(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    code = [*(block for _, block in FENCED.findall((ROOT / page).read_text("utf-8")))]
    code += re.findall(r"`([^`\n]+)`", (ROOT / page).read_text("utf-8"))
    named = {name for text in code for name in re.findall(r"\bmake ([a-z-]+)", text)}
    assert named and named <= targets
    if page == "README.md":
        assert {"test", "demo"} <= named


def test_each_public_op_has_its_support_told():
    table = README.partition("## Support")[2].partition("##")[0]
    told = set(re.findall(r"`(\w+)`", table))
    ops = {name for name in fused_mixup.__all__ if name[0].islower()}
    helpers = {"backend", "cutmix_box", "erasing_settings", "plan_settings", "plan_state"}
    helpers |= {"variant_settings", "mosaic_plan", "resize_into", "ricap_plan", "shifted_cutmix"}
    assert ops - told == helpers


def test_versions_agree():
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert fused_mixup.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    first = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)[1]
    assert first == version


# ------------------------------------------------------------------ on a package index


LINKED = """[a](docs/a.md), [b](https://b.org/c.md) and [c](#c)
![d](d.png)
```python
x[0](y)
```
"""


def test_links_of_an_index_are_absolute_where_the_repository_is_known():
    assert absolute_links(LINKED, "https://host/who/it", "1.2") == (
        "[a](https://host/who/it/blob/v1.2/docs/a.md), [b](https://b.org/c.md) and [c](#c)\n"
        "![d](https://host/who/it/raw/v1.2/d.png)\n"
        "```python\nx[0](y)\n```\n"
    )


def test_links_of_an_index_are_their_text_where_it_is_not():
    assert absolute_links(LINKED, None, "1.2") == (
        "a, [b](https://b.org/c.md) and [c](#c)\n\n```python\nx[0](y)\n```\n"
    )


def test_no_link_of_the_description_is_relative():
    text = FENCED.sub("", long_description(ROOT))
    assert "fused_mixup" in text
    assert [x for x in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:|#", x)] == []
