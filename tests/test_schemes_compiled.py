"""The schemes in one compiled step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fused_mixup import plan_state, soft_target_cross_entropy
from fused_mixup.schemes import balanced_mixup, mixmatch, regmixup, remix, unmix, unmix_loss

K = 5


@pytest.mark.proof
def test_a_step_compiles_as_one_graph():
    x, labels, head = torch.rand(8, 3, 8, 8), torch.arange(8) % K, torch.randn(192, K)
    soft, counts = torch.rand(8, K).softmax(1), torch.tensor([90, 40, 9, 3, 1])

    def info_nce(q, k):
        return F.cross_entropy(q @ k.T, torch.arange(8))

    def loss(images, target):
        return soft_target_cross_entropy(images.flatten(1) @ head, target)

    def step(state):
        mixed = mixmatch(x, labels, x + 1, soft, state=state)
        unmixed, plan = unmix(x, state=state)
        other = x.flip(0), labels.flip(0)
        return torch.stack(
            [
                loss(mixed.x, mixed.labels) + loss(mixed.unlabelled, mixed.guesses),
                unmix_loss(info_nce, x.flatten(1) @ head, unmixed.flatten(1) @ head, soft, plan),
                loss(*regmixup(x, labels, K, state=state)),
                loss(*balanced_mixup(x, labels, *other, K, state=state, alpha=0.3)),
                loss(*remix(x, labels, counts, state=state)),
            ]
        )

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    states = plan_state(1), plan_state(1)
    for _ in range(3):  # each step draws anew
        torch.testing.assert_close(compiled(states[0]), step(states[1]))
    assert torch.equal(*states)
