"""One training of the study: a small network on handwritten digits, and what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fused_mixup import BatchMix, soft_target_cross_entropy
from fused_mixup.calibration import expected_calibration_error
from fused_mixup.manifold import ManifoldMixup

CLASSES, BINS = 10, 15
NONE, MIXUP, CUTMIX, BOTH, MANIFOLD = "none", "MixUp", "CutMix", "both", "Manifold Mixup"
METHODS = (NONE, MIXUP, CUTMIX, BOTH, MANIFOLD)
# How far FGSM moves each pixel, of the range [0, 1] of grey levels.
EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2)
BATCH, LR, WEIGHT_DECAY = 64, 0.1, 5e-4

# Mixes a batch, calls the network, and gives the loss.
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Job:
    """One training."""

    method: str
    corrupted: float  # the share of training labels that are replaced by another class
    seed: int
    epochs: int


@dataclass(frozen=True)
class Score:
    """What a training ended with, on the images held out."""

    method: str
    corrupted: float
    seed: int
    accuracy: float
    confidence: float  # the mean of the largest probability
    calibration_error: float
    under_attack: list[float]  # accuracy for each of EPSILONS
    train_loss: float  # of the last epoch, mixed as in training
    cpu_seconds: float


@dataclass
class Data:
    train_images: Tensor  # [N, 1, 8, 8] float32 in [0, 1]
    train_labels: Tensor  # [N] int64
    test_images: Tensor
    test_labels: Tensor


def digits() -> Data:
    """scikit-learn's digits. The last 30 %, by writers of their own, are held out."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    labels = torch.from_numpy(data.target).long()
    split = len(labels) * 7 // 10
    return Data(images[:split], labels[:split], images[split:], labels[split:])


def corrupt(labels: Tensor, share: float, seed: int) -> Tensor:
    """``share`` of the labels, rounded, replaced by another class, each as likely."""
    generator = torch.Generator().manual_seed(1000 + seed)
    rows = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    shift = torch.randint(1, CLASSES, (len(rows),), generator=generator)
    made = labels.clone()
    made[rows] = (labels[rows] + shift) % CLASSES
    return made


class Net(nn.Module):
    """Three convolutions with batch normalisation: [B, 1, 8, 8] in [0, 1] to [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3 = (
            nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
            )
            for c_in, c_out, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.head = nn.Linear(64 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1((x - 0.3) / 0.35)))  # about mean and deviation
        return self.head(x.flatten(1))


def step_of(method: str, net: nn.Module, seed: int) -> Step:
    """The loss of one training step. Methods differ in nothing else; α are the papers' own."""
    if method == NONE:
        return lambda x, labels: F.cross_entropy(net(x), labels)
    if method == MANIFOLD:
        manifold = ManifoldMixup(net, ["block1", "block2"], alpha=2.0, seed=seed)

        def hidden(x: Tensor, labels: Tensor) -> Tensor:
            logits, target = manifold(x, labels)
            return soft_target_cross_entropy(logits, target)

        return hidden
    mixup, cutmix = float(method != CUTMIX), float(method != MIXUP)
    mix = BatchMix(CLASSES, mixup_alpha=mixup, cutmix_alpha=cutmix, seed=seed)

    def mixed(x: Tensor, labels: Tensor) -> Tensor:
        x, target = mix(x, labels)
        return soft_target_cross_entropy(net(x), target)

    return mixed


def train(job: Job, data: Data) -> tuple[nn.Module, float]:
    """The trained network, in eval mode, and its mean loss in the last epoch.

    Of one seed, first weights, corrupted labels and batches are the same for every method.
    """
    labels = corrupt(data.train_labels, job.corrupted, job.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        net = Net()
    order = torch.Generator().manual_seed(job.seed)
    step = step_of(job.method, net, job.seed)
    optimizer = torch.optim.SGD(
        net.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = job.epochs * -(-len(labels) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    losses: list[Tensor] = []
    for _ in range(job.epochs):
        losses = []
        for rows in torch.randperm(len(labels), generator=order).split(BATCH):
            loss = step(data.train_images[rows], labels[rows])  # rows of an index are a copy
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            losses.append(loss.detach())
    return net.eval(), torch.stack(losses).mean().item()


def attack(net: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """FGSM: each pixel moved by ``epsilon`` in the direction that raises the loss, within [0, 1].

    Source: Goodfellow et al., Explaining and Harnessing Adversarial Examples, arXiv 1412.6572.
    """
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), labels, reduction="sum"), x)
    return (images + epsilon * gradient.sign()).clamp(0, 1)


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (net(images).argmax(1) == labels).double().mean().item()


def run(job: Job, data: Data | None = None) -> dict[str, object]:
    """Train and measure; plain numbers, as they come from another process."""
    torch.set_num_threads(1)  # small layers: a second thread costs more than it saves
    data, start = data or digits(), time.process_time()
    net, loss = train(job, data)
    images, labels = data.test_images, data.test_labels
    with torch.no_grad():
        probabilities = net(images).softmax(1)
    attacked = [accuracy(net, attack(net, images, labels, epsilon), labels) for epsilon in EPSILONS]
    error = float(expected_calibration_error(probabilities, labels, bins=BINS))
    confidence = probabilities.max(1).values.double().mean().item()
    numbers = accuracy(net, images, labels), confidence, error, attacked, loss
    seconds = time.process_time() - start
    return asdict(Score(job.method, job.corrupted, job.seed, *numbers, seconds))
