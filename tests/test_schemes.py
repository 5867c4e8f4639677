"""The schemes, against plain PyTorch by hand in float64, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fused_mixup import draw_plan, plan_state, soft_target_cross_entropy
from fused_mixup.label_weights import remix_weights
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


def batch(size=6, *shape, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, *(shape or (3, 4, 5)), generator=generator, dtype=torch.float64)
    labels = torch.randint(K, (size,), generator=generator)
    return x.requires_grad_(grad), labels


def column(values, like):
    return values.view(-1, *[1] * (like.ndim - 1))


def lam_of(plan):
    """λ of the batch: a sample that is its own partner stays as it is, with a weight of 1."""
    moved = plan.partner != torch.arange(plan.batch_size)
    (lam,) = plan.blend[moved, 0].unique()
    return lam


def same_with_gradients(found, expected, *inputs):
    """Both agree to 1e-12, and so do the gradients of a random sum of each."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    towards = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((t * towards).sum(), inputs, retain_graph=True)
        for t in (found, expected)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- MixMatch


def test_sharpen():
    p = torch.rand(4, K, dtype=torch.float64).softmax(1)
    p[0] = torch.eye(K)[2]
    torch.testing.assert_close(sharpen(p), p**2 / (p**2).sum(1, keepdim=True))
    low = torch.tensor([[1e-200, 2e-200]], dtype=torch.float64)  # squared they would be 0
    torch.testing.assert_close(sharpen(low), torch.tensor([[0.2, 0.8]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_limits_of_sharpening(dtype):
    p = torch.tensor([[0.4, 0.4, 0.2], [1.0, 0.0, 0.0]], dtype=dtype)
    for temperature in (1e-300, 1e-40, 1e-6):
        assert sharpen(p, temperature).tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    hottest = [[1 / 3] * 3, [1.0, 0.0, 0.0]]  # 0 to any power is 0
    torch.testing.assert_close(sharpen(p, 1e300), torch.tensor(hottest, dtype=dtype))
    torch.testing.assert_close(sharpen(p), sharpen(p.double()).to(dtype), rtol=0, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True])
def test_mixmatch(soft):
    x, labels = batch(3)
    u, _ = batch(7, seed=1)
    guesses = torch.rand(7, K, dtype=torch.float64).softmax(1)
    given = torch.rand(3, K).double().softmax(1) if soft else labels
    state = plan_state(3)
    plan = draw_plan(
        10, state=state.clone(), mixup_alpha=0.75, per="sample", pairing="shuffle", symmetric=True
    )
    out = mixmatch(x, given, u, guesses, state=state)
    lam, w = plan.blend[:, 0], plan.partner.long()
    assert (lam >= 0.5).all() and len(lam.unique()) > 5
    assert sorted(w.tolist()) == list(range(10)) and (w[:3] >= 3).any()
    both = torch.cat((x, u))
    labels_of = torch.cat((given if soft else F.one_hot(labels, K).double(), guesses))
    mixed = column(lam, x) * both + (1 - column(lam, x)) * both[w]
    same_with_gradients(torch.cat((out.x, out.unlabelled)), mixed, x, u)
    lam = plan.weight[:, :1].double()  # labels are weighed in float32
    mixed = lam * labels_of + (1 - lam) * labels_of[w]
    torch.testing.assert_close(torch.cat((out.labels, out.guesses)), mixed, rtol=0, atol=1e-7)
    assert out.x.shape == x.shape and out.guesses.shape == guesses.shape
    assert torch.equal(mixmatch(x, given, u, guesses, state=plan_state(3)).x, out.x)
    assert not torch.equal(mixmatch(x, given, u, guesses, state=state).x, out.x)  # a step was taken


def test_mixmatch_leaves_its_inputs_alone():
    x, labels = batch(4, grad=False)
    before = x.clone()
    mixmatch(x, labels, x, torch.ones(4, K) / K, state=plan_state(0))
    assert torch.equal(x, before)


def test_an_earlier_result_is_not_written_over():
    x, labels = torch.rand(16, 3, 64, 64), torch.arange(16) % K  # large enough to be reused
    state, soft = plan_state(0), torch.rand(16, K).softmax(1)
    kept = [mixmatch(x, labels, x, soft, state=state).unlabelled for _ in range(6)]
    copies = [t.clone() for t in kept]
    for _ in range(6):
        mixmatch(x, labels, x, soft, state=state)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert len({t.data_ptr() for t in kept}) == 6


# ---------------------------------------------------------------- RegMixup


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_regmixup_is_half_the_sum_of_both_losses(smoothing):
    x, labels = batch(8)
    head = torch.randn(60, K, dtype=torch.float64)
    state = plan_state(1)
    plan = draw_plan(8, state=state.clone(), mixup_alpha=20.0, pairing="shuffle")
    lam, j = lam_of(plan), plan.partner.long()
    both, target = regmixup(x, labels, K, state=state, label_smoothing=smoothing)
    mixed = lam * x + (1 - lam) * x[j]
    same_with_gradients(both, torch.cat((x, mixed)), x)
    found = soft_target_cross_entropy(both.flatten(1) @ head, target)
    parts = []
    for images, y, share in ((x, labels, 1.0), (mixed, labels, lam), (mixed, labels[j], 1 - lam)):
        logits = images.flatten(1) @ head
        parts.append(share * F.cross_entropy(logits, y, label_smoothing=smoothing))
    expected = 0.5 * sum(parts)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    a, b = (torch.autograd.grad(loss, x)[0] for loss in (found, expected))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert len(target) == 16 and target.label_smoothing == smoothing


def test_lambdas_of_regmixup_lie_around_the_middle():
    state, x, labels = plan_state(0), torch.zeros(4, 1), torch.zeros(4).long()
    rows = torch.stack([regmixup(x, labels, 1, state=state)[1].weight[4:, 0] for _ in range(250)])
    lams = rows.double().min(1).values
    lams = lams[lams < 1]  # else every sample was its own partner
    # Beta(20, 20): mean 1/2, standard deviation 0.0781.
    assert abs(lams.mean() - 0.5) < 0.02 and 0.068 < lams.std() < 0.088


# ---------------------------------------------------------------- Un-Mix


@pytest.mark.parametrize("mixup_prob", [0.0, 1.0])
def test_unmix_in_both_orders(mixup_prob):
    x, _ = batch(6, 3, 8, 8)
    keys = torch.randn(6, 7, dtype=torch.float64)
    encoder = torch.randn(192, 7, dtype=torch.float64)

    def features(images):
        return F.normalize(images.flatten(1) @ encoder)

    def info_nce(q, k):
        return F.cross_entropy(q @ k.T / 0.2, torch.arange(6))

    state = plan_state(4)
    modes = {"mixup_alpha": 1.0}
    if not mixup_prob:
        modes = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "switch_prob": 1.0}
    spatial = () if mixup_prob else (8, 8)
    plan = draw_plan(6, spatial, state=state.clone(), **modes)
    mixed, used = unmix(x, state=state, mixup_prob=mixup_prob)
    assert used == plan
    reverse = x.flip(0)
    if mixup_prob:
        lam = plan.blend[0, 0]
        expected = lam * x + (1 - lam) * reverse
    else:
        top, left, bottom, right = plan.box[0].tolist()
        expected = x.clone()
        expected[:, :, top:bottom, left:right] = reverse[:, :, top:bottom, left:right]
        area = (bottom - top) * (right - left)
        assert area
        lam = 1 - area / 64
    same_with_gradients(mixed, expected, x)
    found = unmix_loss(info_nce, features(x), features(mixed), keys, used)
    by_hand = info_nce(features(x), keys) + lam * info_nce(features(expected), keys)
    by_hand = by_hand + (1 - lam) * info_nce(features(expected.flip(0)), keys)
    torch.testing.assert_close(found, by_hand, rtol=1e-6, atol=0)
    a, b = (torch.autograd.grad(loss, x)[0] for loss in (found, by_hand))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_unmix_chooses_between_both_by_its_probability():
    state, x = plan_state(0), torch.zeros(2, 1, 16, 16)
    blends = [unmix(x, state=state, mixup_prob=0.8)[1].blend[0, 1].item() > 0 for _ in range(400)]
    assert 0.74 < sum(blends) / 400 < 0.86
    assert unmix(torch.zeros(4, 9), state=state, mixup_prob=1)[0].shape == (4, 9)


# ---------------------------------------------------------------- long tails


def test_balanced_mixup():
    x, labels = batch(5)
    z, other = batch(5, seed=9)
    mixed, target = balanced_mixup(x, labels, z, other, K, state=plan_state(6), alpha=0.4)
    u = draw_plan(2, state=plan_state(6), mixup_alpha=1.0).blend[0, 0]
    lam = u ** (1 / 0.4)
    assert 0 < lam < 1
    same_with_gradients(mixed, (1 - lam) * x + lam * z, x, z)
    dense = (1 - lam) * F.one_hot(labels, K) + lam * F.one_hot(other, K)
    torch.testing.assert_close(target.dense(torch.float64), dense, rtol=0, atol=1e-7)


def test_lambdas_of_balanced_mixup_are_those_of_beta():
    state, x, y = plan_state(0), torch.zeros(1, 1), torch.zeros(1).long()
    lams = [
        balanced_mixup(x, y, x, y, 1, state=state, alpha=0.3)[1].weight[0, 1].item()
        for _ in range(200)
    ]
    lams = torch.tensor(lams, dtype=torch.float64)
    # Beta(a, 1) has the distribution function v^a: its values are uniform.
    places = (lams**0.3).sort().values
    gap = (places - (torch.arange(200) + 0.5) / 200).abs().max()
    assert gap < 1.63 / 200**0.5  # Kolmogorov and Smirnov: 1 in 100


def test_remix():
    x, labels = batch(24)
    counts = torch.tensor([900, 300, 90, 20, 5])
    plan = draw_plan(24, state=plan_state(2), mixup_alpha=1.0, pairing="shuffle")
    lam, j = lam_of(plan).item(), plan.partner.long()
    mixed, target = remix(x, labels, counts, state=plan_state(2), label_smoothing=0.1)
    same_with_gradients(mixed, lam * x + (1 - lam) * x[j], x)
    rows, kept = [], []
    for a, b in zip(labels.tolist(), labels[j].tolist(), strict=True):
        share = lam
        if counts[a] / counts[b] >= 3 and lam < 0.5:
            share = 0.0
        elif counts[a] / counts[b] <= 1 / 3 and 1 - lam < 0.5:
            share = 1.0
        kept.append(share)
        y, z = (F.one_hot(torch.tensor(c), K).double() * 0.9 + 0.1 / K for c in (a, b))
        rows.append(share * y + (1 - share) * z)
    assert len(set(kept)) == 2  # some rows change, some do not
    torch.testing.assert_close(target.dense(torch.float64), torch.stack(rows), rtol=0, atol=1e-7)
    assert torch.equal(
        remix(x, labels, counts, state=plan_state(2), kappa=1.0, tau=1.0)[1].weight,
        remix_weights(plan.weight, labels, labels[j], counts, 1.0, 1.0),
    )


# ---------------------------------------------------------------- inference


class Linear(torch.nn.Module):
    """A model that keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.head = torch.randn(60, K, dtype=torch.float64)
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.flatten(1) @ self.head


@pytest.mark.parametrize(("partners", "usual"), [("other", 30), ("predicted", 10)])
def test_mixup_inference(partners, usual):
    x, _ = batch(5)
    pool, _ = batch(40, seed=3, grad=False)
    labels = torch.arange(40) % K
    model = Linear().eval()
    found = mixup_inference(model, x, pool, labels, partners=partners, lam=0.7)
    predicted = model.seen[0].flatten(1).mm(model.head).argmax(1)
    assert torch.equal(model.seen[0], x) and len(model.seen) == usual + 1
    total, used = 0, set()
    for seen in model.seen[1:]:
        drawn = ((seen - 0.7 * x) / 0.3).detach()
        rows = torch.cdist(drawn.flatten(1), pool.flatten(1)).argmin(1)  # which of the pool
        torch.testing.assert_close(drawn, pool[rows])
        assert ((labels[rows] == predicted) == (partners == "predicted")).all()
        used |= set(rows.tolist())
        total = total + (0.7 * x + 0.3 * pool[rows]).flatten(1).mm(model.head).softmax(1)
    same_with_gradients(found, total / usual, x)
    assert len(used) > 10


@pytest.mark.parametrize("partners", ["other", "predicted"])
def test_partners_are_uniform_among_those_that_may_be_drawn(partners):
    labels = torch.tensor([2, 0, 2, 1, 0, 2, 4])
    pool = torch.arange(7.0)[:, None]
    seen = []

    def model(x):
        seen.append(x)
        return torch.eye(K)[[2]].expand(len(x), K)  # always class 2

    mixup_inference(model, torch.zeros(300, 1), pool, labels, partners=partners, lam=0, draws=10)
    counts = torch.cat(seen[1:]).flatten().long().bincount(minlength=7).double() / 3000
    allowed = (labels == 2) == (partners == "predicted")
    expected = allowed.double() / allowed.sum()
    torch.testing.assert_close(counts, expected, rtol=0, atol=0.045)
    assert (counts[~allowed] == 0).all()


def test_a_generator_repeats_the_draws():
    x, _ = batch(3, grad=False)
    pool, model = batch(20, seed=3, grad=False)[0], Linear().eval()
    labels = torch.arange(20) % K
    a, b, c = (
        mixup_inference(model, x, pool, labels, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
