"""MixupTrainerMixin in trainings by Transformers' Trainer, against loops in plain PyTorch."""

from __future__ import annotations

import contextlib
import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from frameworks import require
from loops_by_hand import data, rule, schedule, train

from fused_mixup import BatchMix, MixedTarget, mix_labels

require("transformers", "accelerate")
pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("one_thread")]
K, SIZE = 5, 8


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def vit(**config):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "image_size": SIZE, "patch_size": 4, "num_labels": K}
    torch.manual_seed(7)
    return ViTForImageClassification(ViTConfig(**{**sizes, **config})).double()


def samples(count, labels=None):
    images, classes = data(count, K, size=SIZE)
    labels = classes if labels is None else labels
    return [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]


def batches(count, size=4):
    images, labels = data(count, K, size=SIZE)
    return [*zip(images.split(size), labels.split(size), strict=True)]


def trainer(folder, model, mixing, count=16, given=None, interval="epoch", loss=None, **options):
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    from fused_mixup.huggingface import MixupTrainerMixin

    class MixupTrainer(MixupTrainerMixin, Trainer):
        def _get_train_sampler(self, *args):  # in order, as the loop by hand
            return SequentialSampler(self.train_dataset)

    compute = {
        key: options.pop(key) for key in ("compute_metrics", "compute_loss_func") if key in options
    }
    options = {"num_train_epochs": 4, "save_strategy": "no", **options}
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        per_device_train_batch_size=options.pop("batch_size", 4),
        per_device_eval_batch_size=4,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        **options,
    )
    given = samples(count) if given is None else given
    more = {"mixing": mixing, "mixing_interval": interval, "mixing_loss": loss, **compute}
    return MixupTrainer(model, args, train_dataset=given, eval_dataset=given, **more)


def mixer(**options):
    options = {"schedule": schedule, "off_after_epoch": 3, **options}
    return BatchMix(K, mixup_alpha=1.0, cutmix_alpha=1.0, **options)


def logits(model):
    return lambda x: model(pixel_values=x).logits


def assert_same(model, other, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 1e-11}
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, **tolerance)


@contextlib.contextmanager
def recorded(model):
    """What the model is called with: (in training, its pixel_values, whether with labels)."""
    seen = []

    def record(module, args, kwargs):
        x = kwargs["pixel_values"].clone()
        seen.append((module.training, x, kwargs.get("labels") is not None))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize("dense", [False, True])
def test_a_training_equals_the_loop_by_hand_and_evaluation_is_the_trainers_own(tmp_path, dense):
    model, by_hand = vit(), vit()
    made = trainer(tmp_path, model, mixer(dense_targets=dense), 14, eval_strategy="epoch")
    with recorded(model) as seen:
        made.train()
    train(by_hand, batches(14), 4, rule, K, logits=logits(by_hand))
    assert_same(model, by_hand)
    trained, evaluated = ([x for mode, x, _ in seen if mode is want] for want in (True, False))
    images = data(14, K, size=SIZE)[0]
    assert len(trained) == len(evaluated) == 16
    assert all(torch.equal(torch.cat(evaluated[e : e + 4]), images) for e in (0, 4, 8, 12))
    assert torch.equal(torch.cat(trained[12:]), images)  # off_after_epoch
    assert not torch.equal(torch.cat(trained[:4]), images)
    assert [labelled for mode, _, labelled in seen] == [not mode for mode, _, _ in seen]
    found = made.evaluate()
    with torch.no_grad():
        expected = F.cross_entropy(model(pixel_values=images).logits, data(14, K)[1])
    assert found["eval_loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert made.predict(samples(14)).label_ids.tolist() == data(14, K)[1].tolist()
    plain = vit()
    train(plain, batches(14), 4, lambda e, s: {"prob": 0.0}, K, logits=logits(plain))
    assert (plain.classifier.weight - model.classifier.weight).abs().max() > 1e-4


def test_schedules_by_step_and_accumulated_gradients(tmp_path):
    def by_step(step):
        return {"mixup_alpha": 0.2 + step, "prob": 0.0 if step == 2 else 1.0}

    model, by_hand = vit(), vit()
    options = {"interval": "step", "num_train_epochs": 2, "gradient_accumulation_steps": 2}
    trainer(tmp_path, model, BatchMix(K, schedule=by_step), **options).train()
    plans = {"logits": logits(by_hand), "accumulate": 2}
    train(by_hand, batches(16), 2, lambda epoch, step: by_step(step), K, **plans)
    assert_same(model, by_hand)


@pytest.mark.parametrize(
    ("stop", "interval", "restores"),
    [(8, "epoch", False), (6, "epoch", False), (6, "epoch", True), (6, "step", False)],
)
def test_an_interrupted_training_resumes_to_the_bit(tmp_path, stop, interval, restores):
    off = 3 if interval == "epoch" else 12
    options = {"interval": interval, "restore_callback_states_from_checkpoint": restores}
    options |= {"save_strategy": "steps", "save_steps": stop}

    def run(model, checkpoint=None, **more):
        mix = mixer(off_after_epoch=off, seed=5)
        made = trainer(tmp_path, model, mix, **options, **more)
        with recorded(model) as seen:
            made.train(resume_from_checkpoint=checkpoint)
        return [x for _, x, _ in seen], mix

    whole = vit()
    seen, last = run(whole)
    stopped_seen, _ = run(vit(), max_steps=stop)
    checkpoint = tmp_path / f"checkpoint-{stop}"
    # transformers 5.24 writes a ViT under the names of version 4, and its Trainer resumes without
    # translating them: it warns, and leaves the encoder as it is. So this loads the weights first.
    resumed = type(whole).from_pretrained(checkpoint, dtype=torch.float64)
    again, later = run(resumed, str(checkpoint))
    assert_same(resumed, whole, rtol=0, atol=0)
    assert len(stopped_seen) == stop and len(again) == 16 - stop
    assert all(torch.equal(x, y) for x, y in zip(seen[stop:], again, strict=True))
    assert torch.equal(later.state, last.state) and torch.equal(later.settings, last.settings)
    # From a checkpoint without the state of the mix: a warning, other draws, and saving works.
    state = checkpoint / "trainer_state.json"
    content = json.loads(state.read_text())
    assert set(content["stateful_callbacks"]) == {"MixupState", "TrainerControl"}
    del content["stateful_callbacks"]["MixupState"]
    state.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="this checkpoint has no state of the mix"):
        blind, _ = run(vit(), str(checkpoint))
    assert not all(torch.equal(x, y) for x, y in zip(again, blind, strict=True))
    saved = json.loads((tmp_path / "checkpoint-16" / "trainer_state.json").read_text())
    assert "MixupState" in saved["stateful_callbacks"]


def test_epochs_of_data_without_a_length(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(samples(8))

    told = []
    mixing = mixer(schedule=lambda epoch: told.append(epoch) or 1.0)
    made = trainer(tmp_path, vit(), mixing, given=Stream(), max_steps=7)
    made.train()
    assert told == [0, 0, 1, 2, 3]  # made for epoch 0, then told each


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", None])
def test_float_labels_take_the_loss_of_their_heads(tmp_path, problem):
    # Without problem_type one logit means squared error.
    many = problem == "multi_label_classification"
    outputs = K if many else 1
    labels = torch.rand(8, K).round() if many else torch.rand(8)
    model, by_hand = (vit(problem_type=problem, num_labels=outputs) for _ in range(2))
    mixing = BatchMix(mixup_alpha=1.0, seed=2)
    trainer(
        tmp_path, model, mixing, given=samples(8, labels), batch_size=8, num_train_epochs=2
    ).train()
    by_rule = BatchMix(mixup_alpha=1.0, seed=2)
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1)
    for _ in range(2):
        x, y = data(8, K, size=SIZE)[0], labels
        plan = by_rule.draw(8)
        own, other = (w.view(8, 1, 1, 1) for w in plan.blend.unbind(1))
        z = by_hand(pixel_values=own * x + other * x[plan.partner.long()]).logits
        y = mix_labels(y, plan)
        if many:
            loss = F.binary_cross_entropy_with_logits(z, y.double())
        else:
            loss = F.mse_loss(z.squeeze(1), y.double())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same(model, by_hand, rtol=0, atol=1e-6)
    assert by_hand.config.problem_type == problem


def test_a_loss_of_ones_own_and_other_names(tmp_path):
    calls = []

    def loss(outputs, target):
        calls.append((type(outputs).__name__, type(target)))
        return -(target.dense().double() * outputs.logits.log_softmax(1)).sum(1).mean()

    model, by_hand = vit(), vit()
    trainer(tmp_path, model, mixer(), loss=loss, num_train_epochs=1).train()
    train(by_hand, batches(16), 1, rule, K, logits=logits(by_hand))
    assert_same(model, by_hand)
    assert calls == [("ImageClassifierOutput", MixedTarget)] * 4


def test_what_knows_no_mixed_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="label_smoothing_factor: expected 0.*got 0.1; use label"):
        trainer(tmp_path, vit(), mixer(), label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="compute_loss_func: expected None.*use mixing_loss="):
        trainer(tmp_path, vit(), mixer(), compute_loss_func=lambda *args: None)
    with pytest.raises(TypeError, match="mixing: expected a mix that is a module.*got a function"):
        trainer(tmp_path, vit(), trainer)
    with pytest.raises(TypeError, match="mixing_loss: expected a function of"):
        trainer(tmp_path, vit(), mixer(), loss=3)
    with pytest.raises(ValueError, match="mixing_interval: expected one of"):
        trainer(tmp_path, vit(), mixer(), interval="batch")
    given = [{"pixel_values": sample["pixel_values"]} for sample in samples(8)]
    with pytest.raises(ValueError, match=r"inputs: expected labels under \['labels'\].*pixel_v"):
        trainer(tmp_path, vit(), mixer(), given=given).train()
