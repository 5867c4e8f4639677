"""The state of a BatchMix survives averaging, moving, emptying, copying and saving unchanged."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from batch_mix_cases import BOTH, K, equal, run
from torch import nn

import fused_mixup as fm
from fused_mixup import BatchMix
from fused_mixup.codes import STEP_WORD

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 2**40 + 7  # float32 cannot represent this number


class Model(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.mix = BatchMix(K, **BOTH, per="sample", seed=SEED, **options)


def drawn(count=2):
    model = Model()
    for _ in range(count):
        model.mix.draw(4, (8, 8))
    return model


def words(mix):
    return mix.state.tolist(), mix.settings.tolist()


def use(model):
    """Check that the next plan is the stream's, whatever happened to the module before."""
    expected = fm.plan_state(SEED)
    expected[STEP_WORD] = model.mix.state[STEP_WORD]
    options = {**BOTH, "per": "sample"}
    assert model.mix.draw(4, (8, 8)) == fm.draw_plan(4, (8, 8), state=expected, **options)


# ------------------------------------------------------------------ averages


@pytest.mark.parametrize("decay", [None, 0.5])
def test_an_average_of_weights_does_not_average_the_state(decay):
    swa = torch.optim.swa_utils
    options = {} if decay is None else {"multi_avg_fn": swa.get_ema_multi_avg_fn(decay)}
    model = drawn()
    average = swa.AveragedModel(model, use_buffers=True, **options)
    for _ in range(3):
        model.mix.draw(4, (8, 8))
        average.update_parameters(model)
    assert words(average.module.mix) == words(drawn().mix)
    again = Model(rank=3)
    again.load_state_dict(average.module.state_dict())
    assert again.mix.state.tolist()[1:] == [SEED, 3, 2]
    use(average.module)


def test_timms_averages_do_not_reach_the_state():
    from peers import timm

    model = drawn()
    for make in (timm.utils.ModelEmaV2, timm.utils.ModelEmaV3):
        average = make(model, decay=0.9)
        for _ in range(2):
            average.update(model)
        assert words(average.module.mix) == words(model.mix)
        use(average.module)
        Model().load_state_dict(average.module.state_dict())


# ------------------------------------------------------------------ moving


def test_emptied_and_moved_from_the_meta_device():
    model = drawn().to_empty(device="cpu")
    assert words(model.mix) == words(drawn().mix)
    model = drawn().to("meta")
    assert model.mix.state.is_meta and model.mix.settings.is_meta
    model.mix.set_epoch(0)
    model.to_empty(device="cpu")
    assert words(model.mix) == words(drawn().mix)
    use(model)
    with torch.device("meta"):
        model = Model()
    assert model.mix.draw(4, (8, 8)).weight.is_meta
    saved = drawn().state_dict()
    model.load_state_dict(saved, assign=True)
    assert equal([model.state_dict()["mix._extra_state"]], [saved["mix._extra_state"]])
    model.to_empty(device="cpu")
    assert words(model.mix) == words(drawn().mix)
    alone = BatchMix(K, seed=SEED).to("meta").half().to("cpu")
    assert words(alone) == words(BatchMix(K, seed=SEED))


def test_casts_leave_it_alone():
    model = drawn().half().to(torch.bfloat16).double().type(torch.float16)
    assert model.net.weight.dtype == torch.float16
    assert words(model.mix) == words(drawn().mix)
    assert (model.mix.state.dtype, model.mix.settings.dtype) == (torch.int64, torch.float64)


def test_made_and_used_under_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    options = {**BOTH, "per": "sample", "seed": SEED}
    with FakeTensorMode():
        mix = BatchMix(K, **options)
        x, y = mix(torch.rand(4, 3, 8, 8), torch.rand(4))
        assert x.shape == (4, 3, 8, 8) and y.shape == (4,)
        mix.set_epoch(3)
    mix.to_empty(device="cpu")
    expected = BatchMix(K, **options)
    assert words(mix) == words(expected)
    assert mix.draw(4, (8, 8)) == expected.draw(4, (8, 8))
    mix.set_epoch(1)


def test_settings_stay_on_the_host_where_a_device_has_no_float64(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.is_meta and out.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            return out

    with NoFloat64():
        mix = BatchMix(K, seed=SEED).to("meta")
    assert mix.state.is_meta and mix.settings.device.type == "cpu"
    # The CPU stands in for the device that draws.
    expected = BatchMix(K, **BOTH, seed=SEED)
    monkeypatch.setattr("fused_mixup.plan.draw.has_float64", lambda device: False)
    mix = BatchMix(K, **BOTH, seed=SEED)
    for _ in range(2):
        plan = mix.draw(4, (8, 8))
        monkeypatch.setattr("fused_mixup.plan.draw.has_float64", lambda device: True)
        assert plan == expected.draw(4, (8, 8))
        monkeypatch.setattr("fused_mixup.plan.draw.has_float64", lambda device: False)
    assert words(mix) == words(expected)


# ------------------------------------------------------------------ copies and checkpoints


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: saved_whole(m)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_draw_what_the_module_draws(copied):
    model = drawn()
    other = copied(model)
    assert words(other.mix) == words(model.mix)
    assert other.mix.draw(4, (8, 8)) == model.mix.draw(4, (8, 8))
    other.mix.state.zero_()
    use(model)


def saved_whole(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_a_checkpoint_is_one_tensor_of_its_moment():
    model = drawn()
    saved = model.state_dict()
    extra = saved["mix._extra_state"]
    assert extra.dtype == torch.int64 and extra.shape == (10,)
    before = words(model.mix)
    model.mix.draw(4, (8, 8))
    extra.add_(1)  # a moving average writes in place
    assert words(model.mix)[0][STEP_WORD] == before[0][STEP_WORD] + 1
    file = io.BytesIO()
    torch.save(drawn().state_dict(), file)
    file.seek(0)
    again = Model()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert words(again.mix) == before


def test_a_checkpoint_of_an_earlier_version_is_taken():
    saved = drawn().state_dict()
    del saved["mix._extra_state"]
    old = drawn().mix
    saved |= {"mix.state": old.state.clone(), "mix.settings": old.settings.clone()}
    again = Model(rank=2)
    again.load_state_dict(saved)
    assert again.mix.state.tolist()[1:] == [SEED, 2, 2]
    alone = BatchMix(K, **BOTH, per="sample")
    alone.load_state_dict({"state": old.state, "settings": old.settings})
    assert words(alone) == words(old)
    for wrong in ("state", "settings"):
        half = BatchMix(K, **BOTH)
        with pytest.raises(RuntimeError, match="Missing key.*_extra_state"):
            half.load_state_dict({wrong: getattr(old, wrong)})


@pytest.mark.parametrize(
    "extra", [torch.zeros(10), torch.zeros(9, dtype=torch.int64), [1, 2], torch.ones(10).long()]
)
def test_what_is_no_state_is_refused_and_nothing_taken(extra):
    model = drawn()
    before = words(model.mix)
    saved = {**model.state_dict(), "mix._extra_state": extra}
    with pytest.raises(RuntimeError, match="mix._extra_state: expected"):
        model.load_state_dict(saved)
    with pytest.raises(ValueError, match="_extra_state: expected"):
        model.mix.set_extra_state(extra)
    assert words(model.mix) == before
    with pytest.raises(RuntimeError, match="Unexpected key.*other"):
        BatchMix(K).load_state_dict({**BatchMix(K).state_dict(), "other": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key.*_extra_state"):
        BatchMix(K).load_state_dict({})
    BatchMix(K).load_state_dict({}, strict=False)


def test_distributed_checkpoint_saves_and_loads_it(tmp_path):
    dcp = pytest.importorskip("torch.distributed.checkpoint", reason="no torch.distributed")
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    model = drawn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=tmp_path)
        other = Model()
        saved = {"model": get_model_state_dict(other)}
        dcp.load(saved, checkpoint_id=tmp_path)
        set_model_state_dict(other, saved["model"])
    assert words(other.mix) == words(model.mix)
    use(other)


def test_compiled_steps_move_the_state_of_copies_and_loaded_modules():
    torch._dynamo.reset()
    plain, compiled = drawn(), drawn()
    compiled.load_state_dict(plain.state_dict())
    step = torch.compile(lambda mix: mix.draw(4, (8, 8)).weight, backend="aot_eager")
    for _ in range(3):
        assert torch.equal(step(compiled.mix), plain.mix.draw(4, (8, 8)).weight)
    assert words(compiled.mix) == words(plain.mix)
    assert equal(run(copy.deepcopy(compiled.mix), 2), run(plain.mix, 2))
