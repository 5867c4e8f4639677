"""MixupCallback in trainings by Lightning, against the same loops in plain PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from frameworks import require
from loops_by_hand import data, rule, schedule, train
from torch.utils.data import DataLoader, TensorDataset

from fused_mixup import BatchMix, ManifoldMixup, MixedTarget, soft_target_cross_entropy

require("lightning")
pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("one_thread")]
K, SIZE = 5, 6


def net():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        conv = torch.nn.Conv2d(3, 4, 3)
        layers = conv, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 16, K)
        return torch.nn.Sequential(*layers).double()


def module(unpack=lambda batch: batch, loss=F.cross_entropy):
    import lightning

    class Classifier(lightning.LightningModule):
        """As it would be without mixing."""

        def __init__(self):
            super().__init__()
            self.net, self.seen, self.evaluated = net(), [], []

        def training_step(self, batch, batch_idx):
            x, y = unpack(batch)
            self.seen.append((x.clone(), y.clone() if isinstance(y, torch.Tensor) else y))
            return loss(self.net(x), y)

        def validation_step(self, batch, batch_idx):
            x, y = unpack(batch)
            self.evaluated.append((x.clone(), y.clone()))
            return loss(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Classifier()


def mixer(**options):
    options = {"schedule": schedule, "off_after_epoch": 3, "dense_targets": True, **options}
    return BatchMix(K, mixup_alpha=1.0, cutmix_alpha=1.0, **options)


def fit(model, loader, mix, epochs, folder=None, ckpt=None, interval="epoch", val=None, **options):
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    from fused_mixup.lightning import MixupCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    callbacks = [MixupCallback(mix, interval)]
    if folder is not None:
        kept = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}
        callbacks.append(ModelCheckpoint(folder, **kept))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **options,
        )
        trainer.fit(model, loader, val, ckpt_path=ckpt)
    return trainer


def batches(count=15, size=4):
    images, labels = data(count, K, size=SIZE)
    return [*zip(images.split(size), labels.split(size), strict=True)]


def assert_same(model, other, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 1e-12}
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, **tolerance)


def test_a_training_equals_the_loop_by_hand_and_validation_is_not_mixed():
    images, labels = data(15, K, size=SIZE)
    loader = DataLoader(TensorDataset(images, labels), 4)
    model = module()
    fit(model, loader, mixer(), 4, val=DataLoader(TensorDataset(images, labels), 4))
    by_hand = net()
    targets = train(by_hand, batches(), 4, rule, K)
    assert_same(model.net, by_hand)
    assert len(model.seen) == len(targets) == 16
    for (_, y), target in zip(model.seen, targets, strict=True):
        torch.testing.assert_close(y, target, rtol=0, atol=1e-6)
    assert sum((y.max(1).values < 1).any().item() for _, y in model.seen) >= 10
    # Epochs from off_after_epoch on are not mixed, and validation, the sanity check too, never is.
    last = torch.cat([x for x, _ in model.seen[12:]])
    assert torch.equal(last, images)
    assert torch.equal(torch.cat([x for x, _ in model.evaluated[-4:]]), images)
    assert all(torch.equal(y, labels[4 * i : 4 * i + 4]) for i, (_, y) in sanity_check(model))
    plain = net()
    train(plain, batches(), 4, lambda epoch, step: {"prob": 0.0}, K)
    assert (plain[0].weight - by_hand[0].weight).abs().max() > 1e-4  # mixing makes a difference


def test_schedules_by_step_and_accumulated_gradients():
    model, by_hand = module(), net()

    def by_step(step):
        return {"mixup_alpha": 0.2 + step, "prob": 0.0 if step == 2 else 1.0}

    mix = BatchMix(K, schedule=by_step, dense_targets=True)
    loader = DataLoader(TensorDataset(*data(16, K, size=SIZE)), 4)
    fit(model, loader, mix, 2, interval="step", accumulate_grad_batches=2)
    train(by_hand, batches(16), 2, lambda epoch, step: by_step(step), K, accumulate=2)
    assert_same(model.net, by_hand)
    assert torch.equal(model.seen[4][1], F.one_hot(torch.arange(4) % K, K).float())


def sanity_check(model):
    return enumerate(model.evaluated[:2])


class ResumableLoader:
    """Batches in order; a checkpoint of Lightning holds where it stands."""

    def __init__(self, batches):
        self.batches, self.next = batches, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.next %= len(self.batches)  # Lightning does not ask for more than the length
        while self.next < len(self.batches):
            self.next += 1
            yield [t.clone() for t in self.batches[self.next - 1]]

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


@pytest.mark.parametrize(("stop", "interval"), [(8, "epoch"), (6, "epoch"), (6, "step")])
def test_an_interrupted_training_resumes_to_the_bit(tmp_path, stop, interval):
    def mix():  # by step, mixing ends at step 12, in the last epoch
        return mixer(off_after_epoch=3 if interval == "epoch" else 12, seed=5)

    whole, resumed = module(), module()
    fit(whole, ResumableLoader(batches()), mix(), 4, interval=interval)
    # The first run ends at the end of an epoch, or in the middle of one.
    first = mix()
    fit(
        module(),
        ResumableLoader(batches()),
        first,
        4,
        folder=tmp_path,
        interval=interval,
        max_steps=stop,
    )
    checkpoint = tmp_path / f"step={stop}.ckpt"
    later = mix()
    fit(resumed, ResumableLoader(batches()), later, 4, ckpt=checkpoint, interval=interval)
    assert_same(resumed.net, whole.net, rtol=0, atol=0)
    assert len(resumed.seen) == 16 - stop
    for (x, y), (x2, y2) in zip(whole.seen[stop:], resumed.seen, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)
    # Without the state of the mix the draws would be others.
    blind = module()
    saved = torch.load(checkpoint, weights_only=True)
    del saved["callbacks"]["MixupCallback"]
    torch.save(saved, tmp_path / "blind.ckpt")
    fit(blind, ResumableLoader(batches()), mix(), 4, ckpt=tmp_path / "blind.ckpt")
    pairs = zip(blind.seen, resumed.seen, strict=True)
    assert not all(torch.equal(x, x2) for (x, _), (x2, _) in pairs)


class Loader:
    """Any batches. A list of them would be a list of loaders to Lightning."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


@dataclass
class Batch:
    image: torch.Tensor
    label: torch.Tensor


FORMS = {
    "list": (lambda x, y: [x, y], lambda batch: batch),
    "dict": (lambda x, y: {"image": x, "label": y}, lambda b: (b["image"], b["label"])),
    "nested": (
        lambda x, y: {"image": x, "more": ({"label": y},)},
        lambda b: (b["image"], b["more"][0]["label"]),
    ),
    "dataclass": (Batch, lambda b: (b.image, b.label)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_batch_that_can_be_written(form):
    make, unpack = FORMS[form]
    model, by_hand = module(unpack, soft_target_cross_entropy), net()
    loader = Loader(lambda: [make(x.clone(), y.clone()) for x, y in batches()])
    fit(model, loader, mixer(dense_targets=False), 1)
    train(by_hand, batches(), 1, rule, K)
    assert_same(model.net, by_hand)
    assert all(isinstance(y, MixedTarget) for _, y in model.seen)


@pytest.mark.parametrize("form", [tuple, lambda pair: pair[0]])
def test_batches_that_cannot_be_written_are_refused(form):
    given = [form(batch) for batch in copy.deepcopy(batches())]
    with pytest.raises(TypeError, match="batch: expected a list, a dict or a dataclass.*got"):
        fit(module(), Loader(lambda: given), mixer(), 1)
    assert torch.equal(given[0][0] if form is tuple else given[0], batches()[0][0])


def test_a_mix_that_calls_the_model_is_refused():
    from fused_mixup.lightning import MixupCallback

    with pytest.raises(TypeError, match="got a ManifoldMixup, .* call it in training_step"):
        MixupCallback(ManifoldMixup(net(), ["0"]))


def test_two_precisions_of_an_unchanged_step():
    images, labels = data(8, K, torch.float32, SIZE)
    for precision, dtype in (("bf16-true", torch.bfloat16), ("bf16-mixed", torch.float32)):
        model = module()
        model.net.float()
        fit(model, DataLoader(TensorDataset(images, labels), 4), mixer(), 1, precision=precision)
        assert [(x.dtype, y.dtype) for x, y in model.seen] == [(dtype, torch.float32)] * 2
        assert all(torch.isfinite(p).all() for p in model.parameters())
