"""What is made of results files: page, comparison, README."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from bench_reports import HEAD, report

from benchmarks import results
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
    assert len(pictures) == 3
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert {p.name for p in out.glob("*.png")} == {
        "run-speed.png", "run-sweeps.png", "run-steps.png",
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
    goals = tables.goals(report())
    assert re.search(r"FastCollateMixup.*no case.*not measured", goals)
    assert re.search(r"mix_ flip \| mix_ flip.*20\.0×<br>2\.0× \| reached", goals)


def test_steps_in_parts():
    lines = tables.steps(report()).splitlines()
    assert len(lines) == 4 and "| 6.00 ms | 1.00 ms | 2.00 ms | 50.00% |" in lines[2]
    assert "training step" not in tables.cases(report())
    assert tables.steps({"results": []}) == ""


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
    assert verdicts == {"mix_": "the same", "loss": "slower", "training": "the same"}
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
    assert "0 of 5 cases got slower" in capsys.readouterr().out


# ------------------------------------------------------------------ the README


MARKED = "".join(
    f"words\n<!-- {name}: start -->\nold\n<!-- {name}: end -->\n"
    for name in ("first screen", "benchmark table", "goals")
)


def test_readme_tables_stand_between_markers(run, tmp_path):
    path, picture = tmp_path / "README.md", tmp_path / "docs" / "speed.png"
    path.write_text(MARKED + "the end\n")
    arguments = [str(run), "--readme", str(path), "--picture", str(picture)]
    assert main(arguments) == 0
    text = path.read_text()
    assert text.count("words\n") == 3 and text.endswith("the end\n") and "old" not in text
    assert "![how many times faster](docs/speed.png)" in text and "[the run](run.json)" in text
    assert "**20.0×**" in text
    first = picture.read_bytes()
    assert main(arguments) == 0
    assert path.read_text() == text and picture.read_bytes() == first


def test_a_readme_without_markers_stays_as_it_is(run, tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(MARKED.replace("<!-- goals: end -->", ""))
    before = path.read_text()
    assert main([str(run), "--readme", str(path), "--picture", str(tmp_path / "x.png")]) == 2
    assert "<!-- goals: start -->" in capsys.readouterr().err
    assert path.read_text() == before


def test_the_readme_is_what_its_file_says():
    """No number in these tables was typed: they are what the committed run gives."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    source = ROOT / re.search(r"\[the run\]\(([^)]+)\)", text)[1]
    picture = re.search(r"!\[how many times faster\]\(([^)]+)\)", text)[1]
    assert (ROOT / picture).exists()
    blocks = readme.blocks(results.read(source), str(source.relative_to(ROOT)), picture)
    for name, content in blocks.items():
        assert readme.put(text, name, content, "README.md") == text
