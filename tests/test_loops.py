"""What adapters to training loops share: when a mix is told the epoch, and its state in JSON."""

from __future__ import annotations

import json
import math

import pytest
import torch

import fused_mixup.huggingface
import fused_mixup.lightning
from fused_mixup import BatchMix
from fused_mixup.loops import Clock, from_json, to_json


class Told(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.told = []

    def set_epoch(self, epoch):
        self.told.append(epoch)


def test_a_clock_tells_each_epoch_or_step_once():
    by_epoch, by_step = Told(), Told()
    clocks = Clock("mix", by_epoch, "epoch"), Clock("mix", by_step, "step")
    for clock in clocks:
        for epoch in range(2):
            clock.epoch(epoch)
            for step in (0, 0, 1, 1):  # two micro-batches a step
                clock.step(2 * epoch + step)
        clock.forget()
        clock.epoch(1)
        clock.step(3)
    assert by_epoch.told == [0, 1, 1] and by_step.told == [0, 1, 2, 3, 3]
    Clock("mix", torch.nn.Identity(), "epoch").epoch(3)  # a mix without a schedule


@pytest.mark.parametrize(
    ("mix", "interval", "error", "message"),
    [
        (lambda x: x, "epoch", TypeError, "mix: expected a mix that is a module, such as BatchMix"),
        (BatchMix(3), "batch", ValueError, "interval: expected one of .* got 'batch'"),
        (torch.nn.Identity(), "step", ValueError, "expected 'epoch' for a Identity, which has no"),
    ],
)
def test_what_no_clock_can_tell_is_refused(mix, interval, error, message):
    with pytest.raises(error, match=message):
        Clock("mix", mix, interval)


def test_a_state_survives_json_to_the_bit():
    state = {"a": torch.tensor([2**62 + 1, -1]), "none": None, "n": 3}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        state[str(dtype)] = torch.tensor([[math.pi, 1e-30], [-0.0, 1 / 3]]).to(dtype)
    state["scalar"] = torch.tensor(1 / 3, dtype=torch.float64)
    back = from_json(json.loads(json.dumps(to_json(state))))
    assert back.keys() == state.keys() and back["none"] is None and back["n"] == 3
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            assert back[key].dtype == value.dtype and torch.equal(back[key], value)
    with pytest.raises(TypeError, match="under 'x', got a Linear"):
        to_json({"x": torch.nn.Linear(1, 1)})


def test_a_mix_resumes_from_json():
    mix, other = BatchMix(3, mixup_alpha=0.3, cutmix_alpha=1.0), BatchMix(3, cutmix_alpha=0.5)
    mix.draw(4, (8, 8))
    other.load_state_dict(from_json(json.loads(json.dumps(to_json(mix.state_dict())))))
    for _ in range(3):
        assert mix.draw(4, (8, 8)) == other.draw(4, (8, 8))


def test_the_packages_do_not_shadow_those_they_are_named_after():
    assert fused_mixup.lightning.__name__ == "fused_mixup.lightning"
    assert fused_mixup.lightning.__all__ == ["MixupCallback"]
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'"):
        fused_mixup.lightning.Trainer  # noqa: B018
