"""Runs every op once on each named backend against the reference; needs no pytest.

    python tests/smoke.py [--device cuda] [native reference triton ...]

For each backend it calls all ops; then it runs a training step through the public functions,
forward and backward, eager and under torch.compile(fullgraph=True). Prints a line for each and
exits 1 where one failed. Triton runs CPU tensors with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator

import torch
from collage_inputs import collage_inputs
from smoke_draws import draw_inputs
from smoke_inputs import BATCH, box_inputs, mask_inputs

import fused_mixup as fm
from fused_mixup import ops, reference
from fused_mixup.backends import reason_unavailable
from fused_mixup.codes import (
    MEAN,
    NONE,
    ROLL,
    STATE_VERSION,
    TENSOR,
)

CLASSES = 6
Arguments = dict[str, object]


def schema_of(name: str):
    return getattr(torch.ops.fused_mixup, name).default._schema


def names_written(name: str) -> list[str]:
    """The arguments that an op writes."""
    arguments = schema_of(name).arguments
    return [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]


# ------------------------------------------------------------------ arguments of the ops


def op_inputs(device: str = "cpu") -> dict[str, list[Arguments]]:
    """op -> its calls, each a dict from the schema's argument names to arguments."""
    random = torch.Generator().manual_seed(1)

    def rand(*sizes: int) -> torch.Tensor:
        return torch.rand(sizes, generator=random).to(device)

    def ints(values: list, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    x = rand(BATCH, 3, 5, 6)
    shuffled = ints([2, 0, 0, 1])
    share = rand(BATCH).double()
    rows = {
        "partner": shuffled,
        "blend": torch.stack((share, 1 - share), 1),
        "box": ints([[1, 2, 3, 4], [0, 0, 0, 0], [0, 1, 5, 6], [4, 4, 5, 6]]),
        "pairing": TENSOR,
    }
    by_rule = {
        "partner": None,
        "blend": torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(BATCH, 2),
        "box": torch.empty(BATCH, 0, dtype=torch.int32),
        "pairing": ROLL,
    }
    plans = [rows, by_rule]
    calls: dict[str, list[Arguments]] = {}
    calls |= {name: [{"x": x, **plan} for plan in plans] for name in ("mix_", "mix")}
    calls["mix_out"] = [{"x": x, **plan, "out": torch.zeros_like(x)} for plan in plans]
    pastes = [{k: v for k, v in plan.items() if k != "blend"} for plan in plans]
    calls["paste_"] = [{"x": x, **plan} for plan in pastes]
    sources, offsets = ops.transpose_pairing(shuffled)
    lists = [{"sources": sources, "offsets": offsets}, {"sources": None, "offsets": None}]
    calls["mix_backward"] = [
        {"grad": x, **plan, **more} for plan, more in zip(plans, lists, strict=True)
    ]
    calls |= mask_inputs(rand, x, plans, lists)
    images = (255 * x).to(torch.uint8)
    erased = ints([[[0, 1, 3, 4]], [[0, 0, 0, 0]], [[2, 0, 5, 6]], [[1, 1, 2, 9]]])
    keys = ints([3, -1, 2**62, 0], torch.int64)
    fills = [{"erase_value": rand(BATCH, 1, 3), "erase_noise": None}]
    fills.append({"erase_value": None, "erase_noise": keys})
    calls["mix_normalize"] = [
        {
            "images": [images if fill is fills[0] else x],
            **plan,
            "mean": [0.5, 120.0, 100.0],
            "std": [1.0, 60.0, 70.0],
            "flip": ints([True, False, False, True], torch.bool),
            "erase_box": erased,
            **fill,
            "first": fill is fills[0],
            "out": torch.zeros_like(x).to(memory_format=torch.channels_last),
        }
        for plan, fill in zip(plans, fills, strict=True)
    ]
    if device == "cpu":
        out = torch.zeros(3, 3, 5, 6)
        parts = [x[0], x[1, :, 1:].clone(), x[2, :, :4], x[3, :, :, 3:]]
        calls["mix_ragged"] = [
            {
                "images": parts,
                "partner": shuffled,
                "blend": rows["blend"],
                "region": ints(
                    [[0, 0, 1, 0, 3, 9], [0, 2, 0, 1, 4, 3], [0] * 6, [1, 0, 1, 0, 9, 2]]
                ),
                "channels_last": last,
                "out": torch.zeros(sum(part.numel() for part in parts)),
            }
            for last in (False, True)
        ]
        calls["mix_samples"] = [{"samples": list(x), **plan, "out": out} for plan in plans]
    labels = ints([1, 0, 5, 5], torch.int64)
    weight = torch.stack((share, 1 - share), 1).float()
    calls["mix_targets"] = [
        {
            "labels": labels,
            "partner": shuffled,
            "weight": weight,
            "pairing": TENSOR,
            "num_classes": CLASSES,
            "label_smoothing": 0.1,
            "dtype": torch.float32,
        }
    ]
    maps = labels.view(BATCH, 1).expand(BATCH, 3).contiguous()
    calls["label_bounds"] = [{"labels": maps, "ignore_index": 5}]
    calls |= box_inputs(rand, [rows, by_rule], device)
    state = ints([STATE_VERSION, 7, 0, 3], torch.int64)
    calls |= draw_inputs(state, labels, shuffled)
    calls["scale_"] = [{"x": x, "factor": rand(1)[0]}]
    return calls | loss_inputs(rand, labels, shuffled, weight) | collage_inputs(device)


def loss_inputs(
    rand: Callable, labels: torch.Tensor, partner: torch.Tensor, weight: torch.Tensor
) -> dict[str, list[Arguments]]:
    calls: dict[str, list[Arguments]] = {"label_ranks": []}
    sparse = {"target": labels, "partner_labels": labels[partner.long()], "weight": weight}
    dense = {"target": rand(BATCH, CLASSES), "partner_labels": None, "weight": None}
    positions = {
        "target": labels[:, None].expand(BATCH, 3),
        "partner_labels": labels[partner.long(), None].expand(BATCH, 3),
        "weight": weight,
    }
    for shape, target, reduction in (
        ((BATCH, CLASSES), sparse, MEAN),
        ((BATCH, CLASSES), dense, NONE),
        ((BATCH, CLASSES, 3), positions, NONE),
    ):
        logits = 4 * rand(*shape)
        common = {"logits": logits, **target, "class_weight": rand(CLASSES)}
        common |= {"target_smoothing": 0.1, "reduction": reduction}
        is_sparse = target["weight"] is not None
        if is_sparse:
            calls["label_ranks"].append(
                {"logits": logits, "labels": target["target"], "partner_labels": None}
            )
        name = "soft_target_cross_entropy"
        cross = {**common, "ignore_index": 1, "label_smoothing": 0.2, "ranks": is_sparse}
        cross |= {"focal_gamma": 0.0, "z_loss": 0.1}
        _add_loss(calls, name, cross, ("stats", "count"))
        if is_sparse:
            focal = {"target_smoothing": 0.0, "label_smoothing": 0.0, "focal_gamma": 1.5}
            _add_loss(calls, name, {**cross, **focal}, ("stats", "count"))
        name = "soft_target_binary_cross_entropy"
        binary = {**common, "pos_weight": rand(CLASSES), "target_threshold": None}
        binary |= {"sum_classes": len(shape) == 2, "focal_gamma": 0.0}
        _add_loss(calls, name, binary, ())
        _add_loss(calls, name, {**binary, "focal_gamma": 1.5}, ())
    return calls


def _add_loss(calls: dict, name: str, arguments: Arguments, saved: tuple[str, ...]) -> None:
    forward = getattr(reference, name)(*order_arguments(name, arguments))
    loss, *rest = forward if isinstance(forward, tuple) else (forward,)
    calls.setdefault(name, []).append(arguments)
    calls.setdefault(f"{name}_grad", []).append(arguments)
    backward = {
        **arguments,
        "grad_loss": torch.ones_like(loss),
        **dict(zip(saved, rest, strict=False)),
    }
    calls.setdefault(f"{name}_backward", []).append(backward)
    calls.setdefault(f"{name}_backward_", []).append(backward)


def order_arguments(name: str, arguments: Arguments) -> list:
    return [arguments[a.name] for a in schema_of(name).arguments]


def call(op: Callable, name: str, arguments: Arguments) -> list:
    """Call an op on copies of the arguments that it writes; return its results and the copies."""
    arguments = dict(arguments)
    for key in names_written(name):
        arguments[key] = arguments[key].clone()
    returned = op(*order_arguments(name, arguments))
    results = list(returned) if isinstance(returned, tuple) else [returned]
    return [r for r in results if r is not None] + [arguments[key] for key in names_written(name)]


# ------------------------------------------------------------------ the two parts


def check_ops(device: str, backend: str) -> None:
    """Compare each op that this backend has with a direct call of the reference."""
    for name, calls in op_inputs(device).items():
        if reason_unavailable(backend, device.upper(), name) is not None:
            continue
        for arguments in calls:
            want = call(getattr(reference, name), name, arguments)
            got = call(getattr(torch.ops.fused_mixup, name), name, arguments)
            try:
                torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


def step(
    x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, mixer: fm.BatchMix
) -> torch.Tensor:
    """A training step through the package's public functions."""
    n = x.shape[0]
    x, drawn = mixer(x, labels)
    mixed = fm.mix(x * weight, fm.MixPlan.uniform(n, "flip", 0.3, [1, 1, 3, 4]))
    plan = fm.MixPlan.uniform(n, "roll", 0.4)
    target = fm.MixedTarget.from_labels(labels, plan, CLASSES, 0.1)
    logits = fm.mix(mixed, plan).flatten(1)[:, :CLASSES]
    loss = fm.soft_target_cross_entropy(logits, target) + fm.soft_target_cross_entropy(
        logits, drawn
    )
    dense = fm.mix_targets(labels, plan, CLASSES)
    return loss + fm.soft_target_binary_cross_entropy(logits, dense)


def check_step(device: str, compiled: bool) -> None:
    run = step
    if compiled:
        torch._dynamo.reset()
        run = torch.compile(step, fullgraph=True, backend="aot_eager")
    x = torch.rand(BATCH, 3, 5, 6, generator=torch.Generator().manual_seed(2)).to(device)
    labels = torch.tensor([1, 0, 5, 5], device=device)
    results = []
    for forced, function in (("reference", step), (None, run)):
        with fm.backend(forced) if forced else contextlib.nullcontext():
            weight = torch.full((), 1.5, device=device, requires_grad=True)
            mixer = fm.BatchMix(CLASSES, mixup_alpha=0.4, seed=1).to(device)
            loss = function(x.clone(), labels, weight, mixer)
            loss.backward()
        results.append((loss.detach(), weight.grad))
    torch.testing.assert_close(results[1], results[0], rtol=2e-5, atol=2e-5)


def parts(device: str, backend: str) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "ops", lambda: check_ops(device, backend)
    yield "step", lambda: check_step(device, False)
    yield "compile", lambda: check_step(device, True)


def run(backends: list[str], device: str = "cpu") -> dict[str, str | None]:
    """Name of a backend and part, as "native ops" -> the error, or None."""
    found: dict[str, str | None] = {}
    for name in backends:
        for part, check in parts(device, name):
            started, error = time.perf_counter(), None
            try:
                with fm.backend(name):
                    check()
            except Exception as failure:
                lines = str(failure).strip().splitlines() or [""]
                error = f"{type(failure).__name__}: {lines[0]}"
                traceback.print_exc()
            found[f"{name} {part}"] = error
            seconds = time.perf_counter() - started
            print(f"smoke {name} {part}: {error or 'ok'} ({seconds:.1f} s)", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", default=["native", "reference"])
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    return int(any(run(asked.backends, asked.device).values()))


if __name__ == "__main__":
    sys.exit(main())
