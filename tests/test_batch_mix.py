"""BatchMix: a step equals the functions that it calls; resuming, schedules, compiling."""

from __future__ import annotations

import collections
import copy
import pickle

import pytest
import torch
import torch._dynamo.testing
from batch_mix_cases import BOTH, K, batch, equal, run, tensors
from torch.utils._python_dispatch import TorchDispatchMode

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget
from fused_mixup.codes import STEP_WORD, STREAM_WORD, VERSION_WORD

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ a step


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("pairing", ["flip", "derangement", "cross_class"])
def test_a_step_is_that_of_the_functions(device, per, pairing):
    options = {"per": per, "pairing": pairing, "symmetric": True, "correct_lam": False}
    mix = BatchMix(K, **BOTH, **options, prob=0.9, label_smoothing=0.1, seed=5, rank=3).to(device)
    state = fm.plan_state(5, 3, device=device)
    for _ in range(4):
        x, labels = batch(device)
        plan = fm.draw_plan(6, (8, 8), state=state, **BOTH, **options, prob=0.9, labels=labels)
        expected = fm.mix(x, plan)
        mixed, target = mix(x, labels)
        assert mixed is x and torch.equal(mixed, expected)
        same = MixedTarget.from_labels(labels, plan, K, 0.1)
        assert equal(tensors(target), tensors(same))
        assert (target.num_classes, target.label_smoothing) == (K, 0.1)
    assert torch.equal(mix.state, state)


def test_dense_targets_and_out_of_place(device):
    sparse = BatchMix(K, **BOTH, label_smoothing=0.1).to(device)
    mix = BatchMix(K, **BOTH, label_smoothing=0.1, dense_targets=True, inplace=False).to(device)
    x, labels = batch(device)
    leaf = x.clone().requires_grad_()
    mixed, target = mix(leaf, labels)
    mixed.sum().backward()
    assert leaf.grad is not None and torch.equal(leaf.detach(), x)
    expected, same = sparse(x, labels)
    assert torch.equal(mixed, expected)
    torch.testing.assert_close(target, same.dense(), rtol=1e-6, atol=1e-7)


class Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pairing", ["flip", "cross_class"])
def test_one_launch_draws_one_mixes_and_nothing_is_read(pairing, monkeypatch):
    mix = BatchMix(K, **BOTH, per="sample", pairing=pairing)
    x, labels = batch()
    # Only CPU labels have their values checked; these stand for labels on a device.
    monkeypatch.setattr("fused_mixup.batch_mix.labels.check_labels", lambda *_: None)
    monkeypatch.setattr("fused_mixup.target.mixed_target.check_labels", lambda *_: None)
    with Launches() as launches:
        mix(x, labels)
    ours = {name: n for name, n in launches.seen.items() if name.startswith("fused_mixup")}
    assert ours == {"fused_mixup::draw_plan": 1, "fused_mixup::mix_": 1}
    assert "aten::_local_scalar_dense" not in launches.seen
    # A flip, or a gather by clamped indices, gives the partners' labels.
    moving = {"aten::flip"} if pairing == "flip" else {"aten::clamp", "aten::index_select"}
    assert launches.seen.keys() - ours.keys() <= moving | {"aten::detach"}


def test_eval_leaves_the_batch_alone(device):
    mix = BatchMix(K, **BOTH, label_smoothing=0.1, seed=1).to(device)
    state = mix.state.clone()
    x, labels = batch(device)
    before = x.clone()
    same, target = mix.eval()(x, labels)
    assert same is x and torch.equal(x, before) and torch.equal(mix.state, state)
    assert torch.equal(target.labels, labels) and torch.equal(target.partner_labels, labels)
    assert target.label_smoothing == 0.0
    assert torch.equal(target.weight, torch.tensor([[1.0, 0.0]]).expand(6, 2))
    logits = torch.randn(6, K, device=device)
    loss = fm.soft_target_cross_entropy(logits, target)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels))
    mix.dense_targets = True
    dense = mix(x, labels)[1]
    assert torch.equal(dense, torch.nn.functional.one_hot(labels, K).float())
    mix.train()(x, labels)
    assert not torch.equal(mix.state, state)


# ------------------------------------------------------------------ streams


def test_resumes_to_the_bit(device):
    mix = BatchMix(K, **BOTH, per="sample", pairing="shuffle", seed=3).to(device)
    run(mix, 3, device)
    saved = copy.deepcopy(mix.state_dict())
    assert list(saved) == ["_extra_state"] and not list(mix.buffers())
    later = run(mix, 3, device)
    other = BatchMix(K, mixup_alpha=0.1, cutmix_alpha=2.0, per="sample", pairing="shuffle", seed=9)
    other = other.to(device)
    other.load_state_dict(saved)
    assert equal(run(other, 3, device), later)


def test_ranks_draw_differently_also_from_one_checkpoint():
    ranks = [BatchMix(K, per="sample", seed=1, rank=r) for r in range(3)]
    first = [run(m, 2) for m in ranks]
    assert not equal(first[0], first[1]) and not equal(first[1], first[2])
    saved = ranks[0].state_dict()
    again = BatchMix(K, per="sample", seed=7, rank=2)
    again.load_state_dict(copy.deepcopy(saved))
    assert again.state.tolist() == ranks[2].state.tolist()
    assert saved["_extra_state"][STREAM_WORD] == 0
    assert equal(run(again, 2), run(ranks[2], 2))


def test_the_rank_is_that_of_torch_distributed(monkeypatch):
    assert BatchMix(K).rank == 0
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    mix = BatchMix(K)
    assert mix.rank == 5 and torch.equal(mix.state, fm.plan_state(0, 5))
    assert BatchMix(K, rank=1).rank == 1


def test_a_state_of_another_version_is_not_loaded():
    mix = BatchMix(K)
    saved = copy.deepcopy(mix.state_dict())
    saved["_extra_state"][VERSION_WORD] += 1
    before = copy.deepcopy(mix.state_dict())
    with pytest.raises(RuntimeError, match="expected version 0x464d0001, got 0x464d0002"):
        mix.load_state_dict(saved)
    assert equal(list(mix.state_dict().values()), list(before.values()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (BOTH, "expected 0 for cutmix_alpha, which is off in this BatchMix, got 1.0"),
        ({"mixup_alpha": 0.0, "cutmix_alpha": 0.5}, "expected 0 for cutmix_alpha"),
        ({"mixup_alpha": 0.0, "prob": 0.0}, "got 0 and 0"),
    ],
)
def test_settings_of_other_modes_are_not_loaded(options, says):
    mix = BatchMix(K, seed=1)
    before = copy.deepcopy(mix.state_dict())
    with pytest.raises(RuntimeError, match=says):
        mix.load_state_dict(BatchMix(K, **options).state_dict())
    assert equal(list(mix.state_dict().values()), list(before.values()))
    assert torch.equal(mix._workers._shared[:-1], mix.settings)


def test_settings_loaded_count_until_an_epoch_is_set():
    mix, off = (BatchMix(K, schedule=lambda epoch: 0.5 * epoch) for _ in range(2))
    mix.set_epoch(3)
    mix.load_state_dict(off.state_dict())  # settings of an epoch without mixing
    assert mix.settings.tolist()[0] == mix._workers._shared[0] == 0.0
    mix.set_epoch(2)
    assert mix.settings.tolist()[0] == mix._workers._shared[0] == 1.0


def test_the_default_device_is_that_of_the_buffers_alone():
    mix, (x, labels) = BatchMix(K, **BOTH), batch()
    expected = run(BatchMix(K, **BOTH), 1)
    with torch.device("meta"):
        assert BatchMix(K, **BOTH, pairing="cross_class").settings.is_meta
        mixed, target = mix(x, labels)
        mix.set_epoch(1)
        unmixed = mix.eval()(x, labels)[1]
    assert equal([mixed, *tensors(target)], expected)
    assert unmixed.weight.tolist() == [[1.0, 0.0]] * 6


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_their_own_way(clone):
    mix = BatchMix(K, **BOTH, per="sample", seed=2)
    run(mix, 1)
    other = clone(mix)
    assert equal(run(mix, 2), run(other, 2))
    other.set_epoch(3)
    other.settings.zero_()
    assert mix.settings[0] == 0.8 and int(mix._workers._shared[-1]) == -1


def test_casting_a_model_does_not_cast_the_settings():
    mix = BatchMix(K, mixup_alpha=0.3)
    before = mix.settings.clone()
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), mix).half().to(torch.bfloat16)
    assert model[0].weight.dtype == torch.bfloat16
    assert mix.settings.dtype == torch.float64 and torch.equal(mix.settings, before)
    assert mix.state.dtype == torch.int64
    run(mix, 1)


# ------------------------------------------------------------------ epochs


def test_a_schedule_of_one_alpha_reaches_the_modes_that_are_on():
    mix = BatchMix(K, mixup_alpha=0.5, schedule=lambda epoch: 0.1 * (epoch + 1))
    assert mix.settings[:2].tolist() == [0.1, 0.0]  # alpha of epoch 0
    mix.set_epoch(4)
    assert mix.settings[:2].tolist() == [0.5, 0.0]
    both = BatchMix(K, **BOTH, schedule=lambda epoch: 2.0)
    assert both.settings[:2].tolist() == [2.0, 2.0]
    off = BatchMix(K, **BOTH, cutmix_minmax=(0.2, 0.8), schedule=lambda epoch: 0.0)
    x, labels = batch()
    assert torch.equal(off(x.clone(), labels)[0], x)


def test_a_schedule_of_several_numbers():
    def schedule(epoch):
        return {"cutmix_alpha": epoch, "prob": 0.5, "switch_prob": 0.25}

    mix = BatchMix(K, **BOTH, cutmix_minmax=(0.2, 0.8), schedule=schedule)
    assert mix.settings.tolist() == [0.8, 0.0, 0.25, 0.5, 0.0, 0.0]
    mix.set_epoch(2)
    assert mix.settings.tolist() == [0.8, 2.0, 0.25, 0.5, 0.2, 0.8]


def test_off_after_an_epoch():
    mix = BatchMix(K, off_after_epoch=2)
    for epoch, mixed in ((0, True), (1, True), (2, False), (9, False), (1, True)):
        mix.set_epoch(epoch)
        x, labels = batch()
        out, target = mix(x.clone(), labels)
        assert torch.equal(out, x) is not mixed
        assert bool((target.weight[:, 0] == 1).all()) is not mixed
    assert mix.state[STEP_WORD] == 5


def test_bad_epochs():
    mix = BatchMix(K)
    for epoch in (-1, 2**15):
        with pytest.raises(ValueError, match="epoch: expected 0 to 32767"):
            mix.set_epoch(epoch)
    with pytest.raises(TypeError, match="epoch: expected an int"):
        mix.set_epoch(0.5)


# ------------------------------------------------------------------ compiling


@pytest.mark.parametrize("kind", ["tensors", "dict"])
def test_compiled_steps_do_not_recompile(device, kind):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    schedule = {"schedule": lambda epoch: 0.2 + epoch, "off_after_epoch": 2}
    mixers = [BatchMix(K, **BOTH, **schedule, per="sample", pairing="cross_class").to(device)]
    mixers.append(copy.deepcopy(mixers[0]))

    def step(mix, x, labels):
        if kind == "tensors":
            mixed, target = mix(x, labels)
        else:
            out = mix({"image": x, "label": labels, "id": 1})
            mixed, target = out["image"], out["label"]
        return fm.soft_target_cross_entropy(mixed.flatten(1)[:, :K], target) + mixed.mean()

    compiled = torch.compile(step, backend=counter, fullgraph=True)
    for epoch in range(3):
        for _ in range(2):
            x, labels = batch(device)
            expected = step(mixers[0], x.clone(), labels)
            assert torch.equal(compiled(mixers[1], x, labels), expected)
        for mix in mixers:
            mix.set_epoch(epoch + 1)
    assert torch.equal(mixers[0].state, mixers[1].state)
    assert counter.frame_count == 1


def test_exported():
    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = BatchMix(K, **BOTH, dense_targets=True, inplace=False, seed=6)

        def forward(self, x, labels):
            return self.mix(x, labels)

    step = Step()
    # A program shares the buffers of what it was exported from.
    program = torch.export.export(copy.deepcopy(step), batch()).module()
    for _ in range(3):
        assert equal(program(*batch()), step(*batch()))


def test_what_it_prints():
    text = repr(BatchMix(K, cutmix_alpha=1.0, pairing="derangement", rank=2))
    for part in ("num_classes=10", "cutmix_alpha=1.0", "pairing='derangement'", "rank=2"):
        assert part in text
