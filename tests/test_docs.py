"""The documentation: the blocks of Python on its pages run, every public name has an entry."""

from __future__ import annotations

import ast
import functools
import importlib.util
import random
import re
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from frameworks import require
from upstreams import why_absent, write_folder, write_shard

import fused_mixup
import fused_mixup.calibration
import fused_mixup.distributed
import fused_mixup.huggingface
import fused_mixup.label_weights
import fused_mixup.lightning
import fused_mixup.masks
import fused_mixup.openmixup
import fused_mixup.preview
import fused_mixup.recipes
import fused_mixup.saliency
import fused_mixup.schemes
import fused_mixup.tables
import fused_mixup.text
import fused_mixup.timm
import fused_mixup.torchvision
from benchmarks import installed_peers
from benchmarks.report.page import STYLE

pytest.importorskip("sybil", reason="sybil is not installed; pip install 'fused-mixup[test]'")

from sybil import Document, Region
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(ROOT)): path for path in sorted(DOCS.glob("**/*.md"))}
FRAMEWORKS = DOCS / "frameworks.md"
UPSTREAMS = DOCS / "upstreams.md"
DISTRIBUTED = DOCS / "distributed.md"
SWITCHING = DOCS / "switching.md"
KORNIA = importlib.util.find_spec("kornia")
FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE  # messages are wrapped on the pages


def sessions(document: Document) -> Iterator[Region]:
    """The ``pycon`` blocks of a page; the output and errors of each are compared."""
    prompts = DocTestStringParser(DocTestEvaluator(FLAGS))
    for block in CodeBlockParser("pycon", lambda _: None)(document):
        for region in prompts(block.parsed, document.path):
            region.adjust(block, block.parsed)
            yield region


def run(path: Path, **names: object) -> list[str]:
    """Run the blocks of a page in order, in one namespace; return why some were left out."""
    blocks = CodeBlockParser("python", PythonEvaluator())
    document = Document.parse(str(path), blocks, sessions, SkipParser())
    document.namespace.update(__name__=path.stem, **names)
    left_out = []
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest as reason:
            left_out.append(str(reason))
    return left_out


@pytest.fixture(autouse=True)
def _as_on_one_machine(one_thread, monkeypatch):
    # Inductor takes many seconds, and one graph for each step needs no Inductor to show.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    if torch.distributed.is_initialized():  # a page failed half-way
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page):
    # Frameworks take many seconds to import: the proof below runs their recipes.
    left_out = run(PAGES[page], has=lambda package: package == "kornia" and KORNIA is not None)
    assert not left_out or PAGES[page] in (FRAMEWORKS, UPSTREAMS, DISTRIBUTED, SWITCHING)


def test_the_blocks_of_the_readme_run():
    # The README shows lines of a training step without its set-up.
    names = {name: getattr(fused_mixup, name) for name in fused_mixup.__all__}
    names |= {"random": random, "x": torch.rand(8, 3, 16, 16), "labels": torch.randint(1000, (8,))}
    names["model"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1000))
    assert run(ROOT / "README.md", **names) == []


@pytest.mark.proof
def test_the_recipes_of_frameworks_run():
    require("lightning", "transformers")
    left_out = run(FRAMEWORKS, has=importlib.util.find_spec)
    tests = [re.search(r"tests/\w+\.py", reason) for reason in left_out]
    assert all(test is not None and (ROOT / test[0]).exists() for test in tests), left_out


@pytest.mark.proof
def test_the_lines_for_keras_run():
    if isinstance(reason := installed_peers.keras(), str):
        pytest.skip(reason)
    # AlbumentationsX is in no group: tests/test_switching_peers.py has its lines.
    left_out = run(SWITCHING, has=lambda package: package != "albumentations")
    assert len(left_out) == 1 and "albumentationsx" in left_out[0]


@pytest.mark.proof
def test_the_recipes_of_upstreams_run(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    write_folder(tmp_path / "train")
    absent = set()
    for package, module in (
        ("nvidia", "nvidia.dali"),
        ("webdataset", "webdataset"),
        ("torchvision", "torchvision.io"),
    ):
        if why_absent(module) is not None:
            absent.add(package)
    if "webdataset" not in absent:
        write_shard(tmp_path / "train-000.tar")
    monkeypatch.chdir(tmp_path)
    left_out = run(UPSTREAMS, has=lambda package: package not in absent)
    assert len(left_out) == len(absent)
    assert all("tests/test_upstreams.py" in reason for reason in left_out)


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_run_says_why(page):
    for line in re.findall(r"<!--+ *skip:.*", PAGES[page].read_text(encoding="utf-8")):
        assert re.search(r'skip: next ("[^"]+"|if\(.+, reason="[^"]+"\)) -->', line), line


def test_every_public_name_has_an_entry():
    modules = [fused_mixup, fused_mixup.label_weights, fused_mixup.masks, fused_mixup.preview]
    modules += [fused_mixup.timm, fused_mixup.torchvision]
    modules += [fused_mixup.openmixup, fused_mixup.saliency, fused_mixup.calibration]
    modules += [fused_mixup.recipes, fused_mixup.schemes, fused_mixup.tables]
    modules += [fused_mixup.text, fused_mixup.huggingface, fused_mixup.lightning]
    modules += [fused_mixup.distributed]
    public = {f"{module.__name__}.{name}" for module in modules for name in module.__all__}
    kornia = ast.parse((ROOT / "fused_mixup" / "kornia" / "__init__.py").read_text("utf-8"))
    names = next(n.value for n in kornia.body if isinstance(n, ast.Assign))  # not to import Kornia
    public |= {f"fused_mixup.kornia.{name}" for name in ast.literal_eval(names)}
    # That of Keras imports Keras: tests/test_keras_use.py looks at its page.
    paths = [path for path in (DOCS / "api").glob("*.md") if path.stem != "keras"]
    pages = [path.read_text(encoding="utf-8") for path in paths]
    entries = [name for text in pages for name in re.findall(r"^::: (\S+)", text, re.MULTILINE)]
    assert sorted(entries) == sorted(public)


def test_the_report_looks_as_the_site():
    site = (DOCS / "stylesheets" / "site.css").read_text(encoding="utf-8")
    colours = set(re.findall(r"#[0-9a-f]{6}", STYLE))
    assert colours and colours <= set(re.findall(r"#[0-9a-f]{6}", site))
    fonts = re.findall(r"--md-\w+-font: (.+);", site)
    assert len(fonts) == 2 and all(font in STYLE for font in fonts)
