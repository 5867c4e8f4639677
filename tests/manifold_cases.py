"""A small network whose layers can be mixed, and the same step by hand in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

B, K = 6, 5
LAYERS = ["a", "b", "c"]
IMAGES = torch.randn(B, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(B) % K


class Net(nn.Module):
    def __init__(self, region=None):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4))
        self.head = nn.Linear(4, K)
        self.region = region  # use_reentrant of the checkpoint around b, None for none
        self.double()

    def forward(self, x):
        x = self.a(x).sin()
        if self.region is None:
            x = self.b(x)
        else:
            x = checkpoint(self.b, x, use_reentrant=self.region)
        return self.head(self.c(x.sin()).cos().mean((2, 3)))


def blend(h, plan):
    """h mixed by ``plan``: index, blend, paste."""
    h = h.clone()
    partner = h[plan.partner.long()]
    w = plan.blend.to(h.dtype).view(len(h), 2, *[1] * (h.ndim - 1))
    rows = [h[i] * w[i, 0] + partner[i] * w[i, 1] for i in range(len(h))]
    dims = plan.box.shape[1] // 2
    for i, box in enumerate(plan.box.tolist()):
        if dims:
            at = (..., *map(slice, box[:dims], box[dims:]))
            row = rows[i].clone()
            row[at] = partner[i][at]
            rows[i] = row
    return torch.stack(rows)


def net_by_hand(net, x, layer, plan):
    """The logits of ``net`` with ``layer`` mixed."""

    def at(name, h):
        return blend(h, plan) if name == layer else h

    x = at("a", net.a(at("input", x))).sin()
    x = at("c", net.c(at("b", net.b(x)).sin()))
    return net.head(x.cos().mean((2, 3)))


def soft_labels(labels, plan, num_classes):
    y = F.one_hot(labels, num_classes).double()
    w = plan.weight.double()
    return y * w[:, :1] + y[plan.partner.long()] * w[:, 1:]


def loss_of(logits, soft):
    return -(soft * logits.log_softmax(1)).sum(1).mean()


def gradients(net, loss):
    net.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def check_step(net, manifold, by_hand, x, labels, num_classes=K, **inputs):
    """One step of ``manifold`` and the same by hand: logits, target and gradients."""
    output, target = manifold(x, labels, **inputs)
    logits = getattr(output, "logits", output)
    layer, plan = manifold.last_layer, manifold.last_plan
    got = gradients(net, loss_of(logits, target.dense(torch.float64)))
    by_hand_logits = by_hand(net, x, layer, plan)
    soft = soft_labels(labels, plan, num_classes)
    want = gradients(net, loss_of(by_hand_logits, soft))
    torch.testing.assert_close(target.dense(torch.float64), soft, rtol=0, atol=1e-12)
    torch.testing.assert_close(logits, by_hand_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    return layer


def hooks_of(model):
    return sum(len(module._forward_hooks) for module in model.modules())
