"""Applies wrong edits to the kernels, one at a time, and names those that no test sees.

    make mutants                         all of them, over an hour on 2 cores
    make mutants ARGS="cuda walk"        those whose list, file or texts contain both words
    make mutants ARGS="--list"           what there is
    make mutants ARGS="--trust"          without a run of the unedited tests first

Run it once per change of a kernel. It works on a copy of the sources in build/mutants. It fails
where an edit passes its tests unseen, or does not apply to the sources any more.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # python tests/mutants
    sys.path[:0] = [str(Path(__file__).resolve().parents[k]) for k in (1, 2)]

from mutants.edits import Edit, load


def chosen(words: list[str]) -> list[Edit]:
    def text(edit: Edit) -> str:
        return f"{edit.list} {edit.name} {edit.tests}"

    return [edit for edit in load() if all(word in text(edit) for word in words)]


def try_edit(edit: Edit) -> tuple[str, str]:
    """(what came of the edit, output)."""
    from mutants import tree

    with tree.edited(edit):
        if edit.list == "cpu":
            try:
                tree.build_cpu()
            except RuntimeError as error:
                return "broken", str(error)
        result, output = tree.run_tests(edit.tests, edit.drivers)
    # Tests build the CUDA kernels themselves: an edit that does not compile proves nothing.
    return ("broken" if ": error: " in output and edit.list == "cuda" else result), output


def main(words: list[str]) -> int:
    edits = chosen([word for word in words if not word.startswith("--")])
    if "--list" in words:
        print("\n".join(edit.name for edit in edits))
        return 0
    lost = [(edit, why) for edit in edits if (why := edit.why_not()) is not None]
    for edit, why in lost:
        print(f"LOST: {edit.name}: {why}")
    if lost or not edits:
        return 1

    from mutants import tree

    tree.copy_sources()
    if any(edit.list != "cuda" for edit in edits):
        tree.build_cpu()
    # An edit proves nothing by a test that fails without it.
    plain = {(edit.tests, edit.drivers): None for edit in edits}
    for tests, drivers in () if "--trust" in words else plain:
        started = time.monotonic()
        result, output = tree.run_tests(tests, drivers)
        print(f"unedited {result:8} {time.monotonic() - started:4.0f} s  {tests}", flush=True)
        if result != "passed":
            print(output)
            return 1
    unseen = []
    for edit in edits:
        started = time.monotonic()
        result, output = try_edit(edit)
        print(f"{result:8} {time.monotonic() - started:4.0f} s  {edit.name}", flush=True)
        if result in ("passed", "broken"):
            unseen.append(edit)
        if result == "broken":
            print(output)
    if any(edit.list == "cpu" for edit in edits):
        tree.build_cpu()
    print(f"\n{len(edits) - len(unseen)} of {len(edits)} edits were seen")
    for edit in unseen:
        print(f"UNSEEN: {edit.name}\n        {edit.tests}")
    return bool(unseen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
