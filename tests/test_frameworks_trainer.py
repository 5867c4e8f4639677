"""Hugging Face's Trainer: batches are mixed in training and unchanged in evaluation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from frameworks import require
from torch import nn

from fused_mixup import BatchMix, MixedTarget, soft_target_cross_entropy
from fused_mixup.timm import FastCollateMixup

require("transformers", "accelerate")
pytestmark = pytest.mark.proof
K = 5


class Classifier(nn.Module):
    """Returns logits, and a loss if labels are given, as Transformers' image classifiers do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(48, K)
        self.seen = []

    def forward(self, pixel_values, labels=None, **kwargs):
        self.seen.append((self.training, pixel_values.detach().clone()))
        logits = self.net(pixel_values.flatten(1))
        if labels is None:
            return {"logits": logits}
        if isinstance(labels, MixedTarget):
            return {"loss": soft_target_cross_entropy(logits, labels), "logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def samples(count):
    rng = np.random.default_rng(0)
    images = rng.random((count, 3, 4, 4), dtype=np.float32)
    return [{"pixel_values": torch.from_numpy(x), "labels": i % K} for i, x in enumerate(images)]


def arguments(folder, **options):
    from transformers import TrainingArguments

    options = {"max_steps": 3, "per_device_train_batch_size": 4, **options}
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        per_device_eval_batch_size=4,
        learning_rate=0.1,
        seed=1,
        **options,
    )


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def recipe(folder, model, data, mixer, **options):
    from trainer_recipe import MixTrainer

    metrics = options.pop("compute_metrics", None)
    return MixTrainer(
        model,
        arguments(folder, **options),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=metrics,
        mixer=mixer,
    )


def test_training_is_mixed_and_evaluation_is_not(tmp_path):
    data, model, labels = samples(10), Classifier(), []

    def metrics(prediction):
        labels.extend(prediction.label_ids.tolist())
        return {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        }

    trainer = recipe(tmp_path, model, data, BatchMix(K, inplace=False), compute_metrics=metrics)
    before = [p.clone() for p in model.parameters()]
    trainer.train()
    assert all(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    found = trainer.evaluate()
    images = torch.stack([sample["pixel_values"] for sample in data])
    trained = torch.cat([x for training, x in model.seen if training])
    evaluated = torch.cat([x for training, x in model.seen if not training])
    assert len(trained) == 10  # three steps, the last of them short
    assert torch.equal(evaluated, images) and labels == [i % K for i in range(10)]
    assert not any((x == image).all() for x in trained for image in images)
    with torch.no_grad():
        logits = model.net(images.flatten(1))
    expected = F.cross_entropy(logits, torch.tensor(labels)).item()
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5) and "eval_accuracy" in found
    # The data set in memory stays as it was.
    assert all(
        torch.equal(a["pixel_values"], b["pixel_values"])
        for a, b in zip(data, samples(10), strict=True)
    )


def test_gradient_accumulation_is_a_mean_of_all_rows(tmp_path):
    weights = []
    for size, steps in ((4, 1), (2, 2), (1, 4)):
        torch.manual_seed(0)
        model = Classifier()
        recipe(
            tmp_path,
            model,
            samples(4),
            BatchMix(K, prob=0.0),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            max_grad_norm=0.0,
        ).train()
        weights.append(model.net.weight.detach().clone())
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])


def test_three_steps_with_a_target_in_the_batch(tmp_path):
    from transformers import Trainer

    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=K, sparse_targets=True)
    seen = []

    def with_names(batch):
        pairs = [((s["pixel_values"] * 255).byte(), s["labels"]) for s in batch]
        x, target = collate(pairs)
        seen.append(target)
        return {"pixel_values": x.float() / 255, "labels": target}

    model = Classifier()
    before = [p.clone() for p in model.parameters()]
    result = Trainer(
        model, arguments(tmp_path), train_dataset=samples(12), data_collator=with_names
    ).train()
    assert result.global_step == 3 and np.isfinite(result.training_loss)
    assert all(isinstance(target, MixedTarget) for target in seen)
    assert all(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_the_recipe_is_that_of_the_documentation():
    tests = Path(__file__).resolve().parent
    recipe = (tests / "trainer_recipe.py").read_text(encoding="utf-8")
    page = (tests.parent / "docs" / "frameworks.md").read_text(encoding="utf-8")
    assert recipe[recipe.index("class MixTrainer") :].strip() in page
