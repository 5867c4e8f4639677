"""Padded batches, a small model of text, and the plain ways of mixing them, one text at a time."""

from __future__ import annotations

import torch
from torch import nn

from fused_mixup import MixPlan

B, T, H = 5, 7, 4
LENGTHS = torch.tensor([7, 3, 5, 1, 4])


def masks(side="right", dtype=torch.int64):
    place = torch.arange(T)
    mask = place < LENGTHS[:, None]
    return (mask if side == "right" else mask.flip(1)).to(dtype)


def text_batch():
    """Ids, masks and labels of sequences of several lengths."""
    torch.manual_seed(0)
    ids = torch.randint(30, (B, T))
    return {"input_ids": ids, "attention_mask": masks(), "labels": torch.tensor([0, 2, 1, 1, 0])}


def plans():
    order = torch.tensor([2, 2, 0, 4, 3])  # no permutation
    lam = torch.tensor([0.3, 0.9, 0.5, 0.25, 0.7], dtype=torch.float64)
    return {
        "flip": MixPlan.uniform(B, "flip", 0.3),
        "roll": MixPlan.uniform(B, "roll", 0.75),
        "tensor": MixPlan.uniform(B, torch.tensor([1, 2, 3, 4, 0]), 0.6),
        "per sample": MixPlan.per_sample(lam, order),
    }


def by_hand(e, mask, plan):
    """Zeroed, indexed, blended and merged in plain PyTorch, one sample at a time."""
    out, merged = [], []
    for i, j in enumerate(plan.partner.tolist()):
        own, other = plan.blend[i].to(e.dtype)
        valid = (mask[i] != 0)[:, None].to(e.dtype), (mask[j] != 0)[:, None].to(e.dtype)
        out.append(own * valid[0] * e[i] + other * valid[1] * e[j])
        merged.append(torch.maximum(mask[i], mask[j]))
    return torch.stack(out), torch.stack(merged)


def spans_by_hand(ids, saliency, mask, partner, share=0.1):
    """SSMix's rules in Python, one text at a time; ends are excluded."""
    out, weights = ids.clone(), []
    for i, j in enumerate(partner):
        mine, theirs = (mask[k].nonzero().flatten().tolist()[1:-1] for k in (i, j))
        w = max(int(len(mine) * share), 1)
        if i == j or len(mine) < w or len(theirs) < w:
            weights.append(1.0)
            continue

        def best(row, places, sign, w=w):
            means = [(sign * saliency[row, p : p + w].mean(), p) for p in places[: -w or None]]
            means += [(sign * saliency[row, places[-w] : places[-1] + 1].mean(), places[-w])]
            return min(means, key=lambda pair: pair[0])[1]

        to, at = best(i, mine, 1), best(j, theirs, -1)
        out[i, to : to + w] = ids[j, at : at + w]
        weights.append(1 - w / len(mine))
    return out, torch.tensor(weights)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, h, mask):
        return torch.tanh(self.linear(h) + (h * mask).sum(1, keepdim=True) / mask.sum(1)[:, None])


class Reader(nn.Module):
    """A small encoder with the interface of transformers."""

    def __init__(self, layers=3, classes=3):
        super().__init__()
        self.words = nn.Embedding(30, H)
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.classifier = nn.Linear(H, classes)
        self.double()

    def get_input_embeddings(self):
        return self.words

    def run(self, layer, *inputs):
        return layer(*inputs)

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        h = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        mask = attention_mask[..., None].double()
        for layer in self.layers:
            h = self.run(layer, h, mask)
        return {"logits": self.classifier((h * mask).sum(1) / mask.sum(1))}
