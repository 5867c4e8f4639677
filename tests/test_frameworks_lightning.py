"""Lightning: a MixedTarget in the batch, whatever the precision, and in two processes of DDP."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from frameworks import require, run_ranks
from torch.utils.data import DataLoader

from fused_mixup import MixPlan, soft_target_cross_entropy
from fused_mixup.timm import FastCollateMixup

require("lightning")
pytestmark = pytest.mark.proof
K = 10


def data(count):
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (3, 4, 4), dtype=np.uint8), i % K) for i in range(count)]


def loader(count, mode="elem"):
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=K, mode=mode, sparse_targets=True)

    def with_plan(samples):
        x, target = collate(samples)
        return x.float() / 255, target, {"plan": MixPlan.uniform(len(x), "flip", 0.3)}

    return DataLoader(data(count), 4, collate_fn=with_plan)


def module():
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(48, K)
            self.seen = []

        def training_step(self, batch, index):
            x, target, extra = batch
            loss = soft_target_cross_entropy(self.net(x.flatten(1)), target)
            self.seen.append((x.dtype, target.weight.dtype, extra["plan"].blend.dtype, float(loss)))
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Classifier()


def fit(model, count, **options):
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(model, loader(count))
    return model


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("16-true", torch.float16),
        ("64-true", torch.float64),
        ("bf16-mixed", torch.float32),
    ],
)
def test_weights_keep_their_dtype_in_every_precision(precision, dtype):
    model = fit(module(), 12, devices=1, precision=precision)
    assert [seen[:3] for seen in model.seen] == [(dtype, torch.float32, torch.float64)] * 3
    assert all(np.isfinite(seen[3]) for seen in model.seen)
    # Lightning puts the default dtype back, which a process with 64-true changes.
    assert torch.get_default_dtype() == torch.float32


def in_ddp(rank):
    model = fit(module(), 24, devices=2, strategy="ddp")
    return [seen[3] for seen in model.seen], [p.sum().item() for p in model.parameters()]


def test_three_steps_of_ddp():
    (losses, weights), (other, same) = run_ranks(in_ddp)
    assert len(losses) == len(other) == 3 and losses != other and weights == same
