"""Arguments of every op, for opcheck."""

from __future__ import annotations

import torch
from collage_inputs import collage_inputs
from draw_cases import draw_cases
from erasing_cases import erasing_cases
from mask_cases import random_calls
from neighbor_cases import neighbor_cases
from variant_cases import variant_cases

from fused_mixup import MixedTarget, MixPlan, ops
from fused_mixup.codes import FLIP, SELF


def sample_inputs(device):
    """op name -> list of argument tuples, for opcheck of every op."""
    x = torch.randn(4, 3, 6, 8, device=device)
    samples = {name: [] for name in ops.SCHEMAS}
    box = [1, 2, 4, 7]
    shuffled = torch.tensor([2, 0, 3, 1])
    plans = [
        MixPlan.uniform(4, "flip", 0.3),
        MixPlan.uniform(4, "roll", 0.3, box),
        MixPlan.per_sample(torch.rand(4), shuffled, [box] * 4, [True, False] * 2),
    ]
    for plan in plans:
        plan = plan.to(device)
        args = (plan.partner_or_none, plan.blend, plan.box, plan.rule)
        leaf = x.clone().requires_grad_()
        samples["mix_"].append((x.clone(), *args))
        samples["mix"] += [(x.to(memory_format=torch.channels_last), *args), (leaf, *args)]
        samples["mix_out"].append((x, *args, torch.empty_like(x)))
        count = 2 if plan is plans[1] else 4
        samples["mix_samples"].append((list(x.clone()), *args, torch.empty_like(x[:count])))
        parts = [x[0], x[1, :, 1:], x[2, :, :4].clone(), x[3, :, :, 3:]]
        regions = torch.tensor([[1, 0, 0, 1, 3, 4]] * 4, dtype=torch.int32, device=device)
        packed = x.new_empty(sum(part.numel() for part in parts))
        named = plan.partner.int(), plan.blend, regions
        samples["mix_ragged"].append((parts, *named, plan is plans[0], packed))
        lists = ops.transpose_pairing(plan.partner) if plan.pairing == "tensor" else (None, None)
        images = (64 * x).to(torch.uint8)
        erased = torch.tensor([[[0, 1, 3, 4]]] * 4, dtype=torch.int32, device=device)
        value, keys = torch.rand(1, 1, 3, device=device), torch.arange(4, device=device)
        fill = (None, keys) if plan is plans[0] else (value, None)
        given = [images] if plan is not plans[2] or device != "cpu" else list(images)
        rest = [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], None if plan is plans[0] else keys > 1
        samples["mix_normalize"].append(
            (given, *args, *rest, erased, *fill, plan is plans[1], torch.empty_like(x).bfloat16())
        )
        partner, blend, boxes, rule = args
        samples["mix_backward"].append((leaf, partner, *lists, blend, boxes, rule))
        samples["paste_"].append(
            (torch.arange(4 * 48, device=device).view(4, 6, 8), partner, boxes, rule)
        )
        labels = torch.tensor([1, 0, 5, 5], device=device)
        if plan is plans[1]:
            labels = torch.arange(72, device=device).view(4, 3, 6).transpose(1, 2) % 6
        samples["mix_targets"].append((labels, partner, plan.weight, rule, 6, 0.1, torch.bfloat16))
        boxes = torch.tensor([[1.0, 2.0, 6.0, 4.0], [0.0, 0.0, 3.0, 3.5]], device=device)
        many = boxes.expand(4, 2, 4)
        count = None if plan is plans[1] else torch.tensor([2, 0, 1, 2], device=device)
        samples["mix_boxes"].append((many, count, partner, blend, plan.box, rule, 0.1))
        packed = many.flatten(0, 1)[:5].double()
        samples["mix_boxes_packed"].append(
            (packed, [2, 0, 1, 2], partner, blend, plan.box, rule, 0.1)
        )
    samples["label_bounds"].append((labels.view(2, 2), 5))
    for args in draw_cases(4, seed=3):
        there = (a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
        samples["draw_plan"].append(tuple(there))
    for args in variant_cases(2, seed=3, batches=(3,), sizes=(5,)):
        there = (a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
        samples["draw_variants"].append(tuple(there))
    for args in erasing_cases(3, seed=3, batches=(3,)):
        there = (a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
        samples["draw_erasing"].append(tuple(there))
    for args in neighbor_cases(3, seed=3, batches=(3,), pools=(None, 5)):
        there = (a.to(device) if isinstance(a, torch.Tensor) else a for a in args)
        samples["draw_neighbors"].append(tuple(there))
    for k, call in enumerate(random_calls(3, seed=6, dtypes=(torch.float32,))):
        x = call.x.detach().clone().to(device)
        plan = [a.to(device) if isinstance(a, torch.Tensor) else a for a in call.plan]
        mask = [a.to(device) if isinstance(a, torch.Tensor) else a for a in call.mask]
        lists = [a if a is None else a.to(device) for a in call.lists]
        leaf, image = x.clone().requires_grad_(), x.shape[-2:]
        samples["mix_masked"].append((leaf, *plan, *mask))
        samples["mix_masked_backward"].append((leaf, plan[0], *lists, *plan[1:], *mask))
        out = torch.zeros(2 * len(x), *x.shape[1:], device=device)
        samples["mix_masked_out"].append((x, x.flip(0), *plan, *mask, True, out))
        samples["mix_masked_"].append((x, None, *plan[1:3], FLIP if k else SELF, *mask))
        samples["mask_mean"].append((*mask, *image))
    for name, calls in collage_inputs(device).items():
        samples[name] = [tuple(calls[0].values())]
    return samples | loss_inputs(device)


def loss_inputs(device):
    samples = {name: [] for name in ops.SCHEMAS if "cross_entropy" in name}
    weight = torch.rand(6, device=device)
    for positions, dense, reduction in (((), False, 0), ((), True, 1), ((2, 3), True, 2)):
        z = torch.randn(4, 6, *positions, device=device, requires_grad=True)
        labels = torch.randint(0, 6, (4, *positions), device=device)
        target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", 0.3), 6)
        sparse = labels, target.partner_labels, target.weight
        if dense:
            sparse = target.dense().requires_grad_(), None, None
        # Kernels have focal terms for two labels without smoothing.
        for smoothing, *focal in ((0.1, 0.0, 0.0), (0.1, 0.0, 0.1), (0.0, 1.5, 0.1)):
            if not (dense and focal[0]):
                options = *sparse, weight, 2, 0.0, smoothing, *focal, reduction
                add_cross_entropy(samples, z, options, not dense)
        for gamma in (0.0, 1.5):
            options = *sparse, weight, None, 0.0, None, gamma, reduction, bool(positions)
            add_binary(samples, z, options)
    samples["label_ranks"] = [(z, labels, other) for other in (target.partner_labels, None)]
    samples["scale_"] = [(z.detach().clone(), torch.tensor(0.5, device=device))]
    return samples


def add_cross_entropy(samples, z, options, ranks):
    name = "soft_target_cross_entropy"
    samples[name].append((z, *options, ranks))
    samples[f"{name}_grad"].append((z.detach(), *detached(options), ranks))
    loss, stats, count, _ = ops.soft_target_cross_entropy(z.detach(), *options, ranks)
    upstream = torch.ones_like(loss, requires_grad=True)
    samples[f"{name}_backward"].append((upstream, z, stats, count, *options))
    written = z.detach().clone()
    samples[f"{name}_backward_"].append(
        (upstream.detach(), written, stats, count, *detached(options))
    )


def add_binary(samples, z, options):
    name = "soft_target_binary_cross_entropy"
    samples[name].append((z, *options))
    samples[f"{name}_grad"].append((z.detach(), *detached(options)))
    upstream = torch.ones_like(ops.soft_target_binary_cross_entropy(z.detach(), *options))
    samples[f"{name}_backward"].append((upstream.clone().requires_grad_(), z, *options))
    samples[f"{name}_backward_"].append((upstream, z.detach().clone(), *detached(options)))


def detached(options):
    return tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in options)
