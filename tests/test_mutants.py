"""The list of wrong edits that `make mutants` tries (tests/mutants) fits the sources."""

from __future__ import annotations

import shlex
from collections import Counter

import pytest
from mutants import edits

EDITS = edits.load()


def test_every_edit_applies():
    """An edit whose old text is gone proves nothing: give it the text of today."""
    lost = [f"{edit.name}: {why}" for edit in EDITS if (why := edit.why_not()) is not None]
    assert not lost, "\n".join(lost)


def test_every_edit_changes_its_file_once():
    assert all(edit.old != edit.new for edit in EDITS)
    twice = [
        name
        for name, count in Counter((edit.list, edit.name) for edit in EDITS).items()
        if count > 1
    ]
    assert not twice, twice


@pytest.mark.parametrize("name", edits.LISTS)
def test_every_list_has_edits_of_its_own_files(name):
    folders = {"cuda": "csrc/cuda/", "cpu": "csrc/cpu/", "triton": "triton_kernels/"}
    own = [edit for edit in EDITS if edit.list == name]
    assert len(own) >= 20
    for edit in own:
        assert edit.file.startswith((folders[name], "csrc/common/")), edit.name


def test_tests_of_edits_are_there():
    for edit in EDITS:
        files = [word for word in shlex.split(edit.tests) if word.endswith(".py")]
        files += [f"tests/host_cuda/driver_{name}.cpp" for name in edit.drivers.split()]
        assert shlex.split(edit.tests)[0] in files, edit.name
        assert all((edits.ROOT / file).is_file() for file in files), edit.name
