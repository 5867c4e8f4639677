"""Trains the demo's small network, and times mixing and the loss."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .demo_data import Digits
from .demo_recipe import EAGER, FUSED, NUM_CLASSES, Draw, Way, draw

Step = tuple[Tensor, Draw]  # rows of the training set [B], and how they are mixed


class Stopwatch:
    """Seconds per named part. On a GPU it waits for the device before and after each part."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[part].append(time.perf_counter() - start)

    def total(self, *parts: str) -> float:
        return sum(sum(self.seconds[part]) for part in parts)

    def median(self, part: str) -> float:
        return statistics.median(self.seconds[part] or [0.0])

    def fastest(self, part: str) -> float:
        return min(self.seconds[part])


def network(seed: int, device: torch.device) -> nn.Module:
    """A small convolutional network, [B, 3, size, size] to [B, 10]; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        # The first stride is 6: an enlarged digit has no detail finer than that.
        for c_in, c_out, kernel, stride in ((3, 16, 6, 6), (16, 32, 3, 2), (32, 64, 3, 2)):
            conv = nn.Conv2d(c_in, c_out, kernel, stride, (kernel - 1) // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(c_out), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64 * 4, NUM_CLASSES)]
        return nn.Sequential(*layers).to(device)


def schedule(
    samples: int, batch_size: int, epochs: int, image_size: int, seed: int
) -> list[list[Step]]:
    """Batches and draws of every epoch, which all runs share."""
    order, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    return [
        [
            (rows, draw(rng, image_size))
            for rows in torch.randperm(samples, generator=order).split(batch_size)
        ]
        for _ in range(epochs)
    ]


class Run:
    """One training: its network, its optimizer, its losses, accuracies and times."""

    def __init__(self, way: Way, data: Digits, seed: int, total_steps: int) -> None:
        device = data.train_images.device
        self.way, self.data = way, data
        self.net = network(seed, device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=0.02)
        self.lr = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=1e-2, total_steps=total_steps
        )
        self.watch = Stopwatch(device)
        self.step_losses: list[float] = []
        self.epoch_losses: list[float] = []
        self.test_accuracy: list[float] = []

    def epoch(self, steps: list[Step]) -> None:
        losses = []
        with self.watch("training"):
            self.net.train()
            for rows, drawn in steps:
                losses.append(self._step(rows, drawn))
        self.step_losses += torch.stack(losses).tolist()
        self.epoch_losses.append(sum(self.step_losses[-len(steps) :]) / len(steps))
        hits = self.probabilities().argmax(1) == self.data.test_labels
        self.test_accuracy.append(hits.float().mean().item())

    def _step(self, rows: Tensor, drawn: Draw) -> Tensor:
        rows = rows.to(self.data.train_images.device)
        x, labels = self.data.train_images[rows], self.data.train_labels[rows]  # copies
        with self.watch(drawn.kind):
            mixed = self.way.mix(x, drawn)
        logits = self.net(x)
        # Detach the logits, so that forward and backward of the loss can be timed alone.
        leaf = logits.detach().requires_grad_()
        with self.watch("loss"):
            loss = self.way.loss(leaf, labels, mixed)
            loss.backward()
        logits.backward(leaf.grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr.step()
        return loss.detach()

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """[M, 10]: probabilities for the test images, which are never mixed."""
        self.net.eval()
        return torch.cat([self.net(x).softmax(1) for x in self.data.test_images.split(256)])


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: Σ_b n_b/N · |accuracy_b - confidence_b|.

    Samples fall into ``bins`` equal bins (lower, upper] of confidence, the largest probability.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599.
    """
    confidence, predicted = probabilities.double().max(1)
    hit = (predicted == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=labels.device)
    which = torch.bucketize(confidence, edges[1:-1])
    # n_b cancels: n_b/N · |hits_b/n_b - confidence_b/n_b|.
    gap = torch.zeros(bins, dtype=torch.float64, device=labels.device)
    gap.index_add_(0, which, hit - confidence)
    return (gap.abs().sum() / len(labels)).item()


@torch.no_grad()
def agreement(net: nn.Module, data: Digits, steps: list[Step]) -> tuple[bool, float]:
    """Runs eager and fused on the same draws: (mixed images bit-equal, largest loss difference).

    Both losses see the same logits, those of ``net`` on the mixed batch.
    """
    net.eval()
    equal, largest = True, 0.0
    for rows, drawn in steps:
        rows = rows.to(data.train_images.device)
        x, labels = data.train_images[rows], data.train_labels[rows]
        ours = x.clone()
        lam, plan = EAGER.mix(x, drawn), FUSED.mix(ours, drawn)
        equal = equal and torch.equal(x, ours)
        logits = net(ours)
        difference = EAGER.loss(logits, labels, lam) - FUSED.loss(logits, labels, plan)
        largest = max(largest, difference.abs().item())
    return equal, largest
