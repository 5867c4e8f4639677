"""A training loop with MixUp and CutMix in plain PyTorch, which the adapters are compared with.

λ, partners and boxes are those of ``draw_plan`` for the same seed and settings; what is made of
them, and the loop, is written out here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fused_mixup import draw_plan, plan_settings, plan_state


def mixed(x, labels, plan, num_classes):
    """The mixed batch and its dense labels, sample by sample."""
    rows, y = x.clone(), F.one_hot(labels, num_classes).float()
    for i, partner in enumerate(plan.partner.tolist()):
        own, other = plan.blend[i].tolist()
        rows[i] = own * x[i] + other * x[partner]
        if plan.box.shape[1]:
            y0, x0, y1, x1 = plan.box[i].tolist()
            rows[i, :, y0:y1, x0:x1] = x[partner, :, y0:y1, x0:x1]
    partners = plan.partner.long()
    return rows, plan.weight[:, :1] * y + plan.weight[:, 1:] * y[partners]


def train(model, batches, epochs, rule, num_classes, lr=0.1, logits=None, accumulate=1):
    """Train ``model`` by SGD; ``rule(epoch, step)`` gives the settings. Returns labels used."""
    state, seen, step = plan_state(0, 0), [], 0
    optimizer = torch.optim.SGD(model.parameters(), lr)
    logits = logits or (lambda x: model(x))
    model.train()
    for epoch in range(epochs):
        for first in range(0, len(batches), accumulate):
            group = batches[first : first + accumulate]
            for x, labels in group:
                settings = plan_settings(**rule(epoch, step))
                plan = draw_plan(len(x), x.shape[2:], state=state, settings=settings)
                x, target = mixed(x, labels, plan, num_classes)
                seen.append(target)
                log_p = F.log_softmax(logits(x), dim=1)
                loss = -(target * log_p).sum(1).mean() / len(group)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return seen


def data(count, num_classes, dtype=torch.float64, size=6):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(count, 3, size, size, generator=generator, dtype=dtype)
    return images, torch.arange(count) % num_classes


def rule(epoch, step):
    """MixUp and CutMix, α falling by epoch, and an end without mixing."""
    alpha = 1.0 / (1 + epoch)
    modes = {"mixup_alpha": alpha, "cutmix_alpha": alpha, "switch_prob": 0.5}
    return modes | {"prob": 0.0 if epoch >= 3 else 1.0}


def schedule(epoch):
    return 1.0 / (1 + epoch)
