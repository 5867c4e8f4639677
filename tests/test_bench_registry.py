"""The registry of benchmark cases, its goals, and the check that precedes every timing."""

from __future__ import annotations

import pytest
import torch

from benchmarks import goals, registry, suite, timing
from benchmarks.registry import OURS, Case, Provider, Work


@pytest.mark.parametrize("device", ["cpu"])
@pytest.mark.parametrize("full", [False, True])
def test_names_are_unique_and_groups_stand_together(device, full):
    cases = registry.collect(device, full)
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    assert cases[0].op == registry.FLOOR
    seen: list[str] = []
    for case in cases:
        assert case.group not in seen[:-1], f"{case.group} appears twice"
        seen += [case.group] if case.group not in seen else []


def test_full_has_every_dtype_and_layout_of_mix():
    usual, full = (registry.collect("cpu", full) for full in (False, True))
    assert {case.name for case in usual} < {case.name for case in full}
    kinds = {(c.dtype, c.layout) for c in full if c.op == "mix_" and c.variant == "flip"}
    halves = (torch.float32, torch.bfloat16, torch.float16)
    assert {(d, layout) for d in halves for layout in ("contiguous", "channels_last")} <= kinds


def test_only_keeps_the_floor():
    cases = registry.collect("cpu", only="CutMix ¼ roll")
    assert [case.op for case in cases] == [registry.FLOOR, "mix_", "mix_"]
    assert all("CutMix ¼ roll" in case.name for case in cases[1:])


def test_two_cases_of_one_name_are_refused(monkeypatch):
    from benchmarks.cases import host

    twice = [*host.cases("cpu")] * 2
    monkeypatch.setattr(host, "cases", lambda device: iter(twice))
    with pytest.raises(ValueError, match="one case for each name"):
        registry.collect("cpu")


def test_every_goal_that_a_case_names_is_there():
    for case in registry.collect("cpu", full=True):
        assert set(case.goals) <= set(goals.GOALS)
        for name in case.goals:
            against = {want.against for want in goals.GOALS[name].wants}
            assert against <= {*case.providers, *goals.AT_MOST, "floor"}, case.name


def row(providers: dict, goal: str) -> dict:
    return {"case": "it", "goals": [goal], "providers": providers}


def test_verdicts():
    name = "cpu flip"
    fast = {"median_ms": 1.0}
    beside = {OURS: fast, "timm's lines": {"median_ms": 16.0}, "copy of N": {"median_ms": 1.3}}
    report = {"settings": {"device": "cpu"}, "results": [row(beside, name)]}
    judged = {goal["goal"]: goal for goal in goals.judge(report)}
    assert judged[name]["verdict"] == "reached"
    assert [part["got"] for part in judged[name]["parts"]] == [16.0, 1.3]
    beside["copy of N"] = {"median_ms": 1.1}
    assert goals.judge(report)[0]["verdict"] == "missed"
    del beside["copy of N"]
    assert goals.judge(report)[0]["verdict"] == "not measured"
    # A goal without a case is listed; those of another device are not.
    assert judged["cpu normalise"]["verdict"] == "not measured"
    assert judged["cpu normalise"]["case"] is None
    assert not any(goal.startswith("cuda") for goal in judged)


def test_verdicts_of_limits():
    times = {OURS: {"median_ms": 0.006}, goals.BARE: {"median_ms": 0.003}}
    report = {"settings": {"device": "cuda"}, "results": [row(times, "cuda host op")]}
    found = next(g for g in goals.judge(report) if g["goal"] == "cuda host op")
    assert found["verdict"] == "reached" and found["parts"][0]["got"] == pytest.approx(3.0)
    times[OURS]["median_ms"] = 0.008
    found = next(g for g in goals.judge(report) if g["goal"] == "cuda host op")
    assert found["verdict"] == "missed"


# ------------------------------------------------------------------ checking


def build_stage(**providers: Provider | str) -> suite.Stage:
    """A stage whose case doubles a tensor."""

    def build(case: Case, device: str) -> Work:
        return Work([torch.arange(6.0)], {OURS: Provider(lambda x: x * 2), **providers}, twice)

    def twice(x: torch.Tensor) -> torch.Tensor:
        return x + x

    stage = suite.Stage("cpu")
    case = Case("double", "", (6,), torch.float32, build, "double", tuple(providers))
    stage.enter(case)
    return stage


def test_a_wrong_result_is_not_timed():
    wrong = Provider(lambda x: x * 2 + 1e-6)
    stage = build_stage(peer=wrong)
    with pytest.raises(AssertionError, match="peer differs from what is expected"):
        stage.check("peer", wrong)
    assert "peer" not in stage.runs and "peer" in stage.out
    close = Provider(wrong.run, (1e-5, 1e-5))
    stage.check("peer", close)
    assert "peer" in stage.runs and "peer" not in stage.out


def test_a_peer_that_cannot_run_is_left_out_and_ours_is_not():
    def broken(x):
        raise RuntimeError("no compiler\nand more")

    stage = build_stage(peer=Provider(broken))
    stage.check("peer", Provider(broken))
    assert stage.out == {"peer": "no compiler"}
    with pytest.raises(RuntimeError, match="no compiler"):
        stage.check(OURS, Provider(broken))


def test_the_first_input_survives_its_check():
    def in_place(x):
        return x.mul_(2)

    stage = build_stage()
    stage.check(OURS, Provider(in_place))
    assert torch.equal(stage.work.inputs[0], torch.arange(6.0))


def test_a_case_that_builds_other_providers_than_it_declares_is_refused():
    stage = suite.Stage("cpu")
    work = Work([None], {OURS: Provider(lambda x: x)}, lambda x: x)
    case = Case("x", "", (1,), torch.float32, lambda case, device: work, "x", ("a peer",))
    with pytest.raises(AssertionError, match="a peer"):
        stage.enter(case)


def test_inputs_exceed_the_cache(monkeypatch):
    monkeypatch.setattr(timing, "last_level_cache", lambda: 2**20)
    made = timing.rotate(lambda: torch.empty(2**16))
    size = sum(x.numel() * x.element_size() for x in made)
    assert size > timing.cache_bytes("cpu") + 2**18
    assert len(timing.rotate(lambda: torch.empty(1))) == timing.MOST_INPUTS
