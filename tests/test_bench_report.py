"""The report made from results files: page, comparison, tables of README and docs/measured.md."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from bench_reports import HEAD, report

from benchmarks import goals, results
from benchmarks.report import compare, page, readme, tables
from benchmarks.report.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("matplotlib", reason="plots need matplotlib")


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run.json"
    results.write(path, report())
    return path


def test_the_page_holds_everything(run, tmp_path):
    out = tmp_path / "report"
    assert main([str(run), "-o", str(out)]) == 0
    text = (out / "index.html").read_text()
    assert 'src="data:image/png;base64,' in text and "http" not in text
    pictures = re.findall(r'base64,([^"]+)"', text)
    assert len(pictures) == 4
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert {p.name for p in out.glob("*.png")} == {
        "run-speed.png", "run-sweeps.png", "run-steps.png", "run-loaders.png",
    }  # fmt: skip
    assert "20.0×" in text and "a CPU" in text and "Kornia, 1 cases: not installed" in text


def test_an_interrupted_run_is_called_so(tmp_path):
    path = tmp_path / "part.json"
    results.write(path, report(finished=False))
    assert main([str(path), "-o", str(tmp_path)]) == 0
    assert "This run was interrupted" in (tmp_path / "index.html").read_text()


def test_runs_of_one_name_both_stand_there(tmp_path):
    for folder in ("a", "b"):
        results.write(tmp_path / folder / "run.json", report())
    files = [str(tmp_path / folder / "run.json") for folder in ("a", "b")]
    assert main([*files, "-o", str(tmp_path)]) == 0
    assert (tmp_path / "run-1-speed.png").exists() and (tmp_path / "run-2-speed.png").exists()


def test_missed_goals_are_explained_and_others_are_listed():
    text = tables.explanations(report())
    assert "sparse cross-entropy" in text and "7.0×" in text
    assert "fused_mixup::mix_ 90%" in text
    assert "GB/s on the counted bytes (50% of the copy floor)" in text
    assert "ours would have to move its bytes at 57% of the copy's speed" in text
    text = tables.goals(report())
    assert re.search(r"FastCollateMixup.*no case.*not measured", text)
    assert re.search(r"mix_ flip \| mix_ flip.*20\.0×<br>2\.0× \| reached", text)


def test_steps_in_parts():
    lines = tables.steps(report()).splitlines()
    assert len(lines) == 4 and "| 6.00 ms | 1.00 ms | 2.00 ms | 50.00% |" in lines[2]
    assert "training step" not in tables.cases(report())
    assert tables.steps({"results": []}) == ""


def test_loaders_in_parts():
    lines = tables.loaders(report()).splitlines()
    assert len(lines) == 4 and "| between processes, CPU | normalise, CPU |" in lines[0]
    assert lines[3].endswith(
        "| timm | 30.00 ms | 1.50× | 1.00 ms | 2.00 ms | 3.00 ms | 4.00 ms | 5.00 ms |"
    )
    assert "loader" not in tables.cases(report()) and "loader" not in tables.steps(report())
    assert tables.loaders({"results": []}) == ""


def test_html_is_escaped():
    assert page.block("| a | b |\n|---|---|\n| <x> | **y** |") == (
        '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead>\n'
        "<tbody><tr><td>&lt;x&gt;</td><td><b>y</b></td></tr>\n</tbody></table></div>"
    )
    assert page.block("- a\n  - b").count("<li") == 2


# ------------------------------------------------------------------ two runs


def test_what_got_slower_is_found():
    changes, differ = compare.compare(report(), report(slower=1.3))
    assert differ == []
    verdicts = {change.case.split()[0]: change.verdict for change in changes}
    same = dict.fromkeys(("mix_", "training", "loader"), "the same")
    assert verdicts == {**same, "loss": "slower"}
    slow = next(change for change in changes if change.verdict == "slower")
    assert slow.ratio == pytest.approx(1.3, rel=0.01) and 1 < slow.low < 1.3 < slow.high
    back, _ = compare.compare(report(slower=1.3), report())
    assert [c.verdict for c in back].count("faster") == 1
    assert "slower" in compare.table(changes).splitlines()[2]


def test_what_the_copy_does_too_is_the_machine():
    busy = report(slower=1.3)
    busy["copy_gb_per_s"] /= 1.4
    changes, _ = compare.compare(report(), busy)
    assert compare.threshold(report(), busy) == pytest.approx(0.4)
    assert {change.verdict for change in changes} == {"the same"}


def test_scatter_is_not_slower():
    noisy = report(slower=1.3)
    for row in noisy["results"]:
        row["providers"]["ours"]["low_ms"] /= 2
    assert {c.verdict for c in compare.compare(report(), noisy)[0]} == {"the same"}


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("machine", "device", "another CPU"),
        ("versions", "torch", "2.14.0"),
        ("versions", "fused_mixup", "0.2.0"),
        ("settings", "threads", 1),
    ],
)
def test_other_machines_and_versions_only_when_asked(part, key, value):
    other = report(slower=2.0)
    other[part] = {**HEAD[part], key: value}
    with pytest.raises(results.ResultsError, match=f"{key}: {HEAD[part][key]} and {value}.*anyway"):
        compare.compare(report(), other)
    changes, differ = compare.compare(report(), other, anyway=True)
    assert len(differ) == 1 and [c.verdict for c in changes].count("slower") == 1


def test_the_page_says_that_it_compares_unlike_runs(tmp_path, capsys):
    other = report(slower=2.0)
    other["machine"] = {**HEAD["machine"], "device": "another CPU"}
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, content in zip(files, (report(), other), strict=True):
        results.write(path, content)
    names = [str(path) for path in files]
    assert main([*names, "--compare"]) == 2
    assert "another CPU" in capsys.readouterr().err
    assert main([*names, "--compare", "--anyway", "-o", str(tmp_path)]) == 1
    said = "these runs differ in more than time"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "index.html").read_text()


def test_equal_runs_compare_as_equal(run, capsys):
    assert main([str(run), str(run), "--compare"]) == 0
    assert "0 of 6 cases got slower" in capsys.readouterr().out


# ------------------------------------------------------------------ README and docs/measured.md


def marked(path: Path, name: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"words\n<!-- {name}: start -->\nold\n<!-- {name}: end -->\nthe end\n")
    return path


@pytest.fixture
def pages(tmp_path):
    """Empty pages, and the arguments that fill them."""
    front = marked(tmp_path / "README.md", readme.TABLE)
    measured = marked(tmp_path / "docs" / "measured.md", readme.EVERYTHING)
    return front, measured, ["--readme", str(front), "--measured", str(measured)]


def test_tables_stand_between_markers(run, pages):
    front, measured, arguments = pages
    assert main([str(run), *arguments]) == 0
    texts = [path.read_text() for path in (front, measured)]
    for text in texts:
        assert text.startswith("words\n") and text.endswith("the end\n") and "old" not in text
    assert "|  | [a CPU, 2 threads](run.json) |" in texts[0]
    assert "| MixUp, flipped batch (timm's lines) | **20.0×**, 200% |" in texts[0]
    assert "| BCE and gradient (timm) | – |" in texts[0]  # that run has no such case
    assert texts[0].count("\n|") == 2 + len(goals.README_ROWS)
    assert "## a CPU, 2 threads" in texts[1] and "`run.json`" in texts[1]
    assert "![times faster than each baseline](speed.png)" in texts[1]
    for title, text in tables.sections(report()).items():
        assert f"### {title}\n\n{text}" in texts[1]
    picture = measured.with_name("speed.png").read_bytes()
    assert main([str(run), *arguments]) == 0
    assert [path.read_text() for path in (front, measured)] == texts
    assert measured.with_name("speed.png").read_bytes() == picture


def test_each_machine_has_a_column_and_sections_of_its_own(run, pages, tmp_path):
    front, measured, arguments = pages
    other = report(slower=2.0)
    other["machine"] = {**HEAD["machine"], "device": "another CPU"}
    results.write(tmp_path / "other.json", other)
    assert main([str(run), str(tmp_path / "other.json"), *arguments]) == 0
    head = front.read_text().splitlines()[2]
    assert head == "|  | [a CPU, 2 threads](run.json) | [another CPU, 2 threads](other.json) |"
    text = measured.read_text()
    assert text.index("## a CPU") < text.index("speed.png") < text.index("## another CPU")
    assert "(speed-2.png)" in text and measured.with_name("speed-2.png").exists()


def test_rows_take_the_case_with_goals_and_no_sweep():
    several = report()
    (row,) = (r for r in several["results"] if r["goals"] == ["cpu flip"])
    several["results"] = [
        {**row, "goals": [], "providers": {"ours": {"median_ms": 1.0}, "timm's lines": TWICE}},
        row,
        {**row, "sweep": ["batch size", 8]},
    ]
    assert "(timm's lines) | **20.0×**, 200% |" in readme.six_rows({"x.json": several})
    del several["results"][1]
    assert "(timm's lines) | **2.0×** |" in readme.six_rows({"x.json": several})


TWICE = {"median_ms": 2.0}


@pytest.mark.parametrize("broken", [0, 1])
def test_without_markers_neither_page_changes(run, pages, capsys, broken):
    *paths, arguments = pages
    paths[broken].write_text(paths[broken].read_text().replace("end -->", "-->"))
    before = [path.read_text() for path in paths]
    assert main([str(run), *arguments]) == 2
    assert f"{paths[broken]}: expected lines <!-- " in capsys.readouterr().err
    assert [path.read_text() for path in paths] == before
    assert not paths[1].with_name("speed.png").exists()


def test_the_pages_are_what_the_committed_runs_say():
    """The committed runs give every number in these tables; none was typed."""
    front, measured = ROOT / "README.md", ROOT / "docs" / "measured.md"
    head = re.search(r"^\|  (\| \[.*\)) \|$", front.read_text(encoding="utf-8"), re.M)[1]
    sources = [ROOT / link for link in re.findall(r"\]\(([^)]+)\)", head)]
    assert sources
    made = readme.texts(front, measured, sources, [results.read(path) for path in sources])
    assert made == {path: path.read_text(encoding="utf-8") for path in (front, measured)}
    pictures = re.findall(r"!\[.*\]\((.*\.png)\)", made[measured])
    assert len(pictures) == len(sources)
    assert all((measured.parent / name).exists() for name in pictures)
