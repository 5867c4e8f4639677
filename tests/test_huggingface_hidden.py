"""MixupTrainerMixin with mixes that call the model: hidden states of a ViT, embeddings of BERT."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from frameworks import require, run_ranks
from loops_by_hand import data
from test_huggingface_mixin import SIZE, K, assert_same, trainer, vit

from fused_mixup import MixedTarget, draw_plan, plan_settings, plan_state
from fused_mixup.manifold import ManifoldMixup
from fused_mixup.text import TMix, WordMixup

require("transformers", "accelerate")
pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def blend(h, plan, weights=None):
    weights = plan.blend if weights is None else weights
    own, other = (w.to(h).view(-1, *[1] * (h.ndim - 1)) for w in weights.unbind(1))
    return own * h + other * h[plan.partner.long()]


def soft_loss(logits, labels, plan):
    y = F.one_hot(labels, logits.shape[1]).to(logits)
    return -(blend(y, plan, plan.weight) * F.log_softmax(logits, 1)).sum(1).mean()


def by_sgd(model, losses):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for loss in losses:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_vit_with_a_hidden_state_mixed(tmp_path):
    model, by_hand = vit(), vit()
    names = ["vit.embeddings", "vit.layers.0"]
    manifold = ManifoldMixup(model, names, alpha=1.0, seed=1)
    drawn = []
    forward = manifold.forward

    def recorded(*args, **kwargs):
        made = forward(*args, **kwargs)
        drawn.append((manifold.last_layer, manifold.last_plan))
        return made

    manifold.forward = recorded
    made = trainer(tmp_path, model, manifold, 16, num_train_epochs=2)
    made.train()
    assert len(drawn) == 8 and {layer for layer, _ in drawn} == {"input", *names}
    images, labels = data(16, K, size=SIZE)

    def loss(step):
        layer, plan = drawn[step]
        rows = slice(4 * (step % 4), 4 * (step % 4) + 4)
        h = images[rows]
        inner = by_hand.vit
        parts = [("input", lambda x: x), ("vit.embeddings", inner.embeddings)]
        parts += [(f"vit.layers.{i}", block) for i, block in enumerate(inner.layers)]
        for name, part in parts:
            h = part(h)
            h = blend(h, plan) if name == layer else h
        logits = by_hand.classifier(inner.layernorm(h)[:, 0])
        return soft_loss(logits, labels[rows], plan)

    by_sgd(by_hand, [lambda step=step: loss(step) for step in range(8)])
    assert_same(model, by_hand)
    found = made.evaluate()
    with torch.no_grad():
        expected = F.cross_entropy(model(pixel_values=images).logits, labels)
    assert found["eval_loss"] == pytest.approx(expected.item(), rel=1e-6) and len(drawn) == 8


def bert(**config):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    sizes |= {"intermediate_size": 16, "num_labels": 3, "max_position_embeddings": 16}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(9)
    return BertForSequenceClassification(BertConfig(**{**sizes, **config})).double()


def sentences(count=12, length=6):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, 40, (count, length), generator=generator)
    mask = (torch.arange(length) < 3 + torch.arange(count)[:, None] % 4).long()
    return ids * mask, mask, torch.arange(count) % 3


def text_samples():
    keys = "input_ids", "attention_mask", "labels"
    return [dict(zip(keys, row, strict=True)) for row in zip(*sentences(), strict=True)]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_text_classifier_with_its_words_mixed(tmp_path, accumulate):
    # BERT takes **kwargs: the Trainer does not divide its own loss by the micro-batches.
    model, by_hand = bert(), bert()
    options = {"gradient_accumulation_steps": accumulate, "num_train_epochs": 2}
    made = trainer(
        tmp_path, model, WordMixup(model, alpha=1.0, seed=3), given=text_samples(), **options
    )
    made.train()
    state, settings = plan_state(3, 0), plan_settings(mixup_alpha=1.0)
    ids, mask, labels = sentences()
    losses = []

    def loss(rows):
        plan = draw_plan(4, (), state=state, settings=settings)
        e = by_hand.get_input_embeddings()(ids[rows]) * mask[rows, :, None]
        both = torch.maximum(mask[rows], mask[rows][plan.partner.long()])
        logits = by_hand(inputs_embeds=blend(e, plan), attention_mask=both).logits
        return soft_loss(logits, labels[rows], plan)

    rows = [slice(4 * (i % 3), 4 * (i % 3) + 4) for i in range(6)]
    groups = [rows[i : i + accumulate] for i in range(0, 6, accumulate)]
    losses = [lambda g=g: sum(loss(r) for r in g) / len(g) for g in groups]
    by_sgd(by_hand, losses)
    assert_same(model, by_hand)
    assert made.evaluate()["eval_loss"] > 0


def test_a_text_mix_resumes_to_the_bit(tmp_path):
    options = {"given": text_samples(), "save_strategy": "steps", "save_steps": 4}
    options |= {"num_train_epochs": 3}

    def run(model, checkpoint=None, **more):
        mix = TMix(model, layers=[1, 2], alpha=0.5, num_classes=3, seed=2)
        trainer(tmp_path, model, mix, **options, **more).train(resume_from_checkpoint=checkpoint)
        return mix

    whole, resumed = bert(), bert()
    mix = run(whole)
    run(bert(), max_steps=4)
    again = run(resumed, str(tmp_path / "checkpoint-4"))
    assert_same(resumed, whole, rtol=0, atol=0)
    assert torch.equal(mix.state, again.state)


def test_a_model_that_the_trainer_compiles(tmp_path):
    made = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        torch.compiler.reset()
        model = vit()
        names = ["vit.embeddings", "vit.layers.0"]
        mixing = ManifoldMixup(model, names, seed=1, per="sample")
        trainer(tmp_path, model, mixing, 16, num_train_epochs=2, **options).train()
        made.append(model)
        assert len(mixing._hooks._handles) == (len(names) if options else 0)
    assert_same(*made)


def test_a_mix_of_another_model_is_refused(tmp_path):
    mixing = ManifoldMixup(vit(), ["vit.embeddings"])
    with pytest.raises(ValueError, match="mixing: expected a ManifoldMixup of the Trainer's model"):
        trainer(tmp_path, vit(), mixing).train()


def in_ddp(rank, folder):
    model = vit()
    manifold = ManifoldMixup(model, ["vit.embeddings", "vit.layers.0"], alpha=1.0)
    made = trainer(folder, model, manifold, 16, num_train_epochs=2)
    made.train()
    wrapper = type(manifold.model).__name__
    return wrapper, manifold.rank, [p.double().sum().item() for p in model.parameters()]


def test_two_processes_of_ddp_end_with_the_same_weights(tmp_path):
    (wrapper, zero, weights), (_, one, other) = run_ranks(in_ddp, str(tmp_path))
    assert wrapper == "DistributedDataParallel" and (zero, one) == (0, 1)
    assert weights == other
    before = [p.double().sum().item() for p in vit().parameters()]
    assert weights != before


def test_a_target_of_a_mix_that_calls_the_model():
    model = bert().train()
    ids, mask, labels = sentences()
    _, target = WordMixup(model)(input_ids=ids, attention_mask=mask, labels=labels)
    assert isinstance(target, MixedTarget) and target.num_classes == 3
