"""What the schemes refuse, before anything is drawn."""

from __future__ import annotations

import math

import pytest
import torch

from fused_mixup import MixPlan, plan_state
from fused_mixup.schemes import (
    balanced_mixup,
    mixmatch,
    mixup_inference,
    regmixup,
    remix,
    sharpen,
    unmix,
    unmix_loss,
)

K = 5
X, Y, S = torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), plan_state(0)
Q = torch.ones(4, K) / K
COUNTS = torch.ones(K)


def infer(model=torch.nn.Identity().eval(), x=Q, pool=Q, labels=Y, **more):  # noqa: B008
    return mixup_inference(model, x, pool, labels, **more)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sharpen(Q.long()), TypeError, "probabilities: expected floats"),
        (lambda: sharpen(Q, 0), ValueError, "temperature: expected a finite number above 0"),
        (lambda: sharpen(Q, math.inf), ValueError, "temperature: expected a finite number above 0"),
        (lambda: mixmatch(X, Y, X[:, :1], Q, state=S), ValueError, "unlabelled: expected samples"),
        (lambda: mixmatch(X, Y, X, Q[:2], state=S), ValueError, r"guesses: .*\[4, K\]"),
        (lambda: mixmatch(X, Q[:, :2], X, Q, state=S), ValueError, r"labels: .*\[4, 5\]"),
        (lambda: mixmatch(X, Y + 9, X, Q, state=S), IndexError, r"labels: .*\[0, 5\), got 12"),
        (lambda: mixmatch(X, Y, X, Q, state=S, alpha=0), ValueError, "alpha: expected a number"),
        (lambda: mixmatch(X, Y, X, Q.requires_grad_(), state=S), ValueError, "guesses: .*grad"),
        (lambda: regmixup(X.long(), Y, K, state=S), TypeError, "x: expected float16"),
        (lambda: regmixup(X, Y[:2], K, state=S), ValueError, r"labels: expected class indices \[4"),
        (lambda: regmixup(X, Y, 2, state=S), IndexError, "labels: .*check num_classes"),
        (lambda: regmixup(X, Y, K, state=S[:2]), ValueError, "state: expected 4"),
        (lambda: regmixup(X, Q, K, state=S), TypeError, "labels: expected an int64 tensor"),
        (lambda: unmix(X[:, 0, 0], state=S), ValueError, "set mixup_prob=1"),
        (lambda: unmix(X, state=S, mixup_prob=2), ValueError, "mixup_prob: expected a prob"),
        (lambda: unmix_loss(None, Q, Q, Q, "flip"), TypeError, "plan: expected the MixPlan"),
        (
            lambda: unmix_loss(None, Q, Q, Q, MixPlan.uniform(4, "roll", 0.5)),
            ValueError,
            "got pairing 'roll'",
        ),
        (
            lambda: unmix_loss(None, Q, Q[:2], Q, MixPlan.uniform(4, "flip", 0.5)),
            ValueError,
            r"mixed: expected features \[4",
        ),
        (
            lambda: balanced_mixup(X, Y, X[:3], Y[:3], K, state=S, alpha=1),
            ValueError,
            "balanced_x: expected 4 samples.*drop_last",
        ),
        (
            lambda: balanced_mixup(X, Y, X, Y - 1, K, state=S, alpha=1),
            IndexError,
            r"balanced_labels: expected class indices in \[0, 5\), got -1",
        ),
        (lambda: remix(X, Y, [1, 2], state=S), TypeError, "class_counts: .*torch.tensor"),
        (lambda: remix(X, Y, COUNTS, state=S, kappa=0.5), ValueError, "kappa: expected"),
        (lambda: infer(torch.nn.Identity()), ValueError, "model: .*model.eval"),
        (lambda: infer(partners="all"), ValueError, "partners: expected one of"),
        (lambda: infer(draws=0), ValueError, "draws: expected at least 1"),
        (lambda: infer(lam=2), ValueError, "lam: expected"),
        (lambda: infer(labels=Y + 4), IndexError, "pool_labels: expected class indices"),
        (lambda: infer(pool=Q[:3]), ValueError, r"pool_labels: expected class indices \[3\]"),
        (lambda: infer(lambda x: x.sum()), ValueError, r"model: expected logits \[4, K\]"),
        (lambda: infer(labels=Y * 0), ValueError, "pool: .*another class.*got none for 4 of 4"),
        (
            lambda: infer(labels=Y * 0 + 1, partners="predicted"),
            ValueError,
            "the predicted class, got none for 4",
        ),
    ],
)
def test_errors_name_the_argument_and_nothing_is_drawn(call, error, words):
    before = S.clone()
    with pytest.raises(error, match=words):
        call()
    assert torch.equal(S, before)
