"""The values of every op on every device and backend, by the cases of gpu_cases.py.

The cases run on the CPU too, which proves the table. test_gpu_streams.py and test_gpu_costs.py hold
the other tests of a GPU, test_gpu_large.py those of large batches.
"""

from __future__ import annotations

from functools import partial

import pytest
import smoke
import torch
import torch.nn.functional as F
from comparing import same_bits
from conftest import places
from gpu_cases import CASES, EXACT, QUICK, cases_of
from gpu_draw_cases import DRAWN
from gpu_places import cases_with_kernel, interpreted_cases, run_on_gpu

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, ops
from fused_mixup.schemas import CPU_ONLY


def devices_and_cases() -> list:
    """Every case for every (device, backend) of the fixture ``device``."""
    found = []
    for place in places():
        if any(mark.name == "skip" for mark in place.marks):
            found.append(pytest.param(*place.values, None, marks=place.marks, id=place.id))
            continue
        first = [pytest.mark.gpu_first] if pytest.mark.gpu in place.marks else []
        # The CPU's reference gives the expected results, so it needs only the quick cases.
        cases = QUICK if place.values[0] == ("cpu", "reference") else CASES
        for case in cases_with_kernel(cases, place.values[0][1]):
            marks = [*place.marks, *(first if case.quick else [])]
            found.append(pytest.param(*place.values, case, marks=marks, id=f"{place.id}-{case}"))
    return found


# ------------------------------------------------------------------ the table itself


@pytest.mark.parametrize("op", [name for name in ops.SCHEMAS if name not in CPU_ONLY])
def test_every_op_has_cases(op):
    quick = cases_of(op)
    assert quick, f"{op}: add cases to tests/gpu_cases.py, or no GPU test will see it"
    args = [case.args("meta") for case in quick]
    tensors = [[a for a in some if isinstance(a, torch.Tensor)] for some in args]
    devices = [{t.device.type for t in some} for some in tensors]
    assert {"meta"} in devices, "no case has a row for each sample, on the device"
    rows = {"blend", "box", "weight"} & {a.name for a in ops.default_op(op)._schema.arguments}
    if rows and op != "mix_rectangles":  # its boxes are no rows of a MixPlan
        assert {"meta", "cpu"} in devices, "no case has its rows on the host"


def test_the_cases_notice_a_wrong_result():
    assert len(CASES) >= 350 and len({str(case) for case in CASES}) == len(CASES)
    for case in QUICK:
        got = case.run(case.args())
        for i, right in enumerate(got):
            if right.numel() == 0:  # ranks are off in this case
                continue
            wrong, last = right.clone(), (-1,) * right.ndim
            wrong[last] = wrong[last].nan_to_num() * 1.1 + 1  # partners and ranks are integers
            with pytest.raises(AssertionError):
                case.check((*got[:i], wrong, *got[i + 1 :]))


def test_the_cases_notice_a_wrong_dtype():
    for case in QUICK:
        got = case.run(case.args())
        for i, right in enumerate(got):
            dtype = torch.float64 if right.dtype != torch.float64 else torch.float32
            with pytest.raises(AssertionError, match=str(dtype)):
                case.check((*got[:i], right.to(dtype), *got[i + 1 :]))


def test_the_cases_notice_saturation():
    assert same_bits(torch.tensor([torch.nan, torch.inf]), torch.tensor([torch.nan, torch.inf]))
    most = torch.finfo(torch.float32).max
    for wrong in (most, -torch.inf, torch.nan):
        assert not same_bits(torch.tensor(wrong), torch.tensor(torch.inf))
        assert not same_bits(torch.tensor(torch.inf), torch.tensor(wrong))
    cases = [case for case in CASES if " infinite " in str(case)]
    without = {"mix_normalize", "mix_targets", "mix_boxes", "mask_mean", *DRAWN}
    without |= {"mix_rectangles", "mix_patches"}
    assert {case.op for case in cases} == {*EXACT} - without
    for case in cases:
        got = case.run(case.args())
        x = got[0]
        assert x.isinf().any() and x.isfinite().any()
        most = torch.finfo(x.dtype).max
        with pytest.raises(AssertionError, match="differs"):
            case.check((x.clamp(-most, most),))


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(("device", "case"), devices_and_cases(), indirect=["device"])
def test_values(device, case):
    case.check(case.run(case.args(device)))


@pytest.mark.gpu_first
@run_on_gpu()
@pytest.mark.parametrize("part", ["ops", "step", "compile"])
def test_smoke(kernel_backend, part):
    """Each op by its schema; a training step, eager and compiled."""
    dict(smoke.parts("cuda", kernel_backend))[part]()


def test_only_the_elements_of_a_view_are_written(device):
    gaps = [c for c in CASES if {"strided", "wide"} & {*c.name.split()}]
    gaps = [c for c in gaps if c.op in ("scale_", "mix_", "paste_") or c.op.endswith("backward_")]
    assert len({case.op for case in gaps}) == 5
    for case in gaps:
        args = case.args(device)
        x = args[1 if case.op.endswith("backward_") else 0]
        whole = torch.empty(0, dtype=x.dtype, device=x.device).set_(x.untyped_storage())
        before = whole.clone()
        case.run(args)
        for t in (whole, before):  # everything outside the view stays
            t.as_strided(x.shape, x.stride(), x.storage_offset()).zero_()
        assert same_bits(whole, before), str(case)


@pytest.mark.parametrize("case", interpreted_cases())
def test_values_in_tritons_interpreter(case):
    with fm.backend("triton"):
        case.check(case.run(case.args()))


def test_mixed_precision(device):
    torch.manual_seed(3)
    model = torch.nn.Linear(20, 50).to(device)
    x = torch.randn(8, 20, device=device)
    plan = MixPlan.uniform(8, "flip", 0.3)
    target = MixedTarget.from_labels(torch.randint(0, 50, (8,), device=device), plan, 50, 0.1)
    grads = []
    for loss in (
        lambda z, t: F.cross_entropy(z.float(), t.dense()),
        fm.soft_target_cross_entropy,
        partial(fm.soft_target_cross_entropy, grad_in_forward=True),
        partial(fm.soft_target_cross_entropy, inplace_backward=True),
    ):
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            z = model(fm.mix(x, plan))
            assert z.dtype == torch.bfloat16
            value = loss(z, target)
        assert value.dtype == torch.float32
        value.backward()
        grads.append(model.weight.grad.clone())
    # Both round the gradient of the logits to bfloat16 once, from sums in different orders: entries
    # of up to 1/8 may differ by a unit in the last place, and eight of them are summed.
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0], rtol=2**-7, atol=2**-10)
