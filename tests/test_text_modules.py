"""WordMixup, SentenceMixup, TMix and SSMix around a small model, against the plain ways."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from text_cases import LENGTHS, B, H, Reader, T, by_hand, spans_by_hand, text_batch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fused_mixup import MixedTarget
from fused_mixup.text import SentenceMixup, SSMix, TMix, WordMixup

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batch():
    return text_batch()


def blended(h, plan):
    w = plan.blend.to(h.dtype).view(B, 2, *[1] * (h.ndim - 1))
    return w[:, 0] * h + w[:, 1] * h[plan.partner.long()]


def same_gradients(model, output, expected):
    ours, plain = (
        torch.autograd.grad(t.sin().sum(), [*model.parameters()]) for t in (output, expected)
    )
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_word_mixup(batch):
    model = Reader()
    mixup = WordMixup(model, seed=3)
    output, target = mixup(**batch)
    mixed, mask = by_hand(model.words(batch["input_ids"]), batch["attention_mask"], mixup.last_plan)
    expected = model(inputs_embeds=mixed, attention_mask=mask)["logits"]
    torch.testing.assert_close(output["logits"], expected, rtol=0, atol=1e-12)
    assert target == MixedTarget.from_labels(batch["labels"], mixup.last_plan, 3)
    same_gradients(model, output["logits"], expected)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_tmix(batch, layer):
    model = Reader()
    tmix = TMix(model, (layer,), blocks="layers")
    output, target = tmix(**batch)
    plan, mask = tmix.last_plan, batch["attention_mask"]
    assert (plan.weight[:, 0] >= plan.weight[:, 1]).all() and tmix.last_layer == layer
    tmix.close()
    mask = torch.maximum(mask, mask[plan.partner.long()])[..., None].double()
    h = model.words(batch["input_ids"])
    h = blended(h, plan) if layer == 0 else h
    for k, each in enumerate(model.layers, 1):
        h = each(h, mask)
        h = blended(h, plan) if k == layer else h
    expected = model.classifier((h * mask).sum(1) / mask.sum(1))
    torch.testing.assert_close(output["logits"], expected, rtol=0, atol=1e-12)
    same_gradients(model, output["logits"], expected)


def test_sentence_mixup(batch):
    model = Reader()
    mixup = SentenceMixup(model)
    assert mixup.layer == "classifier"
    output, _ = mixup(**batch)
    mixup.close()
    vectors = []
    handle = model.classifier.register_forward_pre_hook(lambda m, args: vectors.append(args[0]))
    model(batch["input_ids"], batch["attention_mask"])
    handle.remove()
    expected = model.classifier(blended(vectors[0], mixup.last_plan))
    torch.testing.assert_close(output["logits"], expected, rtol=0, atol=1e-12)
    same_gradients(model, output["logits"], expected)


def test_ssmix(batch):
    model = Reader()
    ssmix = SSMix(model, share=0.4)
    output, target = ssmix(**batch)
    e = model.words(batch["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=e, attention_mask=batch["attention_mask"])["logits"]
    (g,) = torch.autograd.grad(F.cross_entropy(logits, batch["labels"]), e)
    saliency = g.square().mean(-1).sqrt()
    partner = ssmix.last_plan.partner.tolist()
    moved = spans_by_hand(batch["input_ids"], saliency, batch["attention_mask"], partner, share=0.4)
    expected = model(moved[0], batch["attention_mask"])["logits"]
    assert torch.equal(output["logits"], expected)
    torch.testing.assert_close(target.weight[:, 0], moved[1], rtol=0, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())
    again, _ = SSMix(model, share=0.4)(**batch, saliency=saliency)
    assert torch.equal(again["logits"], expected)


WAYS = {
    "word": WordMixup,
    "sentence": SentenceMixup,
    "tmix": lambda model, **options: TMix(model, (1, 2, 3), blocks="layers", **options),
    "ssmix": SSMix,
}


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_is_the_plain_model(batch, way):
    model = Reader()
    mixup = WAYS[way](model)
    state = mixup.state.clone()
    for part in (model, mixup):
        part.eval()
        output, labels = mixup(**batch)
        assert labels is batch["labels"] and torch.equal(mixup.state, state)
        plain = model(batch["input_ids"], batch["attention_mask"])
        assert torch.equal(output["logits"], plain["logits"])
        e = model.words(batch["input_ids"])
        given = {"inputs_embeds": e, "attention_mask": batch["attention_mask"]}
        assert torch.equal(mixup(**given)[0]["logits"], plain["logits"])
        part.train()


def test_eval_of_the_model_inside_a_wrapper(batch):
    model = Reader()
    mixup = WordMixup(nn.DataParallel(model))
    model.eval()
    assert mixup(**batch)[1] is batch["labels"]


@pytest.mark.parametrize("way", WAYS)
def test_streams_resume(batch, way):
    model = Reader()
    mixup = WAYS[way](model, seed=7, prob=0.9)
    mixup(**batch)
    saved = pickle.loads(pickle.dumps(mixup.state_dict()))
    assert list(saved) == ["_extra_state"]  # the model's weights are not this module's
    first = [mixup(**batch)[0]["logits"] for _ in range(4)]
    del mixup
    assert not model.classifier._forward_pre_hooks and not model.layers[1]._forward_hooks
    other = WAYS[way](model, seed=1, prob=0.9)
    other.load_state_dict(saved)
    assert all(torch.equal(a, other(**batch)[0]["logits"]) for a in first)
    off = WAYS[way](model, off_after_epoch=2)
    off.set_epoch(2)
    plain = model(batch["input_ids"], batch["attention_mask"])["logits"]
    torch.testing.assert_close(off(**batch)[0]["logits"], plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", ["tmix", "sentence"])
def test_hooks_of_copies_end_with_them(batch, way):
    model = Reader()
    mixup = WAYS[way](model, seed=2)
    for make_copy in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        other = make_copy(mixup)
        copied, first = other.model, other(**batch)[0]["logits"]
        assert hooks_of(copied) == hooks_of(model) > 0
        again = WAYS[way](Reader(), seed=2)
        again.model.load_state_dict(model.state_dict())
        assert torch.equal(first, again(**batch)[0]["logits"])
        del other
        assert hooks_of(copied) == 0
    del mixup
    assert hooks_of(model) == 0


def hooks_of(model):
    modules = list(model.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@pytest.mark.parametrize("way", ["tmix", "sentence"])
def test_copies_of_the_model_are_plain(batch, way):
    model = Reader()
    mixup = WAYS[way](model)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    mixed = mixup(**batch)[0]["logits"]
    plain = [m(batch["input_ids"], batch["attention_mask"])["logits"] for m in (model, *copies)]
    assert torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2])
    assert not torch.equal(plain[0], mixed)
    file = io.BytesIO()
    torch.save(copy.deepcopy(mixup), file)
    mixup.close()
    with pytest.raises(RuntimeError, match="after close"):
        mixup(**batch)


def test_a_call_inside_another_is_refused(batch):
    model = Reader()
    tmix = WAYS["tmix"](model)
    inside = model.words.register_forward_hook(lambda *_: tmix(**batch))
    with pytest.raises(RuntimeError, match="a call inside another"):
        tmix(**batch)
    inside.remove()
    tmix(**batch)


def test_layers_are_drawn_alike_often(batch):
    tmix = WAYS["tmix"](Reader())
    drawn = []
    for _ in range(60):
        tmix(**batch)
        drawn.append(tmix.last_layer)
    assert min(drawn.count(k) for k in (1, 2, 3)) > 8


@pytest.mark.parametrize("way", ["tmix", "sentence"])
def test_batches_of_other_sizes_share_a_graph(batch, way):
    torch.compiler.reset()
    model, graphs = Reader(), []
    compiled = torch.compile(
        model, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph
    )
    layers = {"layers": (2,), "blocks": "layers"} if way == "tmix" else {}
    make = {"tmix": TMix, "sentence": SentenceMixup}[way]
    mixup, plain = make(compiled, seed=1, **layers), make(model, seed=1, **layers)
    for size in (5, 4, 3, 2, 5):
        rows = {key: value[:size] for key, value in batch.items()}
        torch.testing.assert_close(mixup(**rows)[0]["logits"], plain(**rows)[0]["logits"])
    assert len(graphs) == 2
    plain.close()
    assert torch.equal(
        compiled(**without(rows, "labels"))["logits"], model(**without(rows, "labels"))["logits"]
    )
    torch.compiler.reset()


def test_hooks_do_nothing_after_an_error(batch):
    model = Reader()
    tmix = WAYS["tmix"](model)
    broken = model.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tmix(**batch)
    broken.remove()
    plain = model(batch["input_ids"], batch["attention_mask"])["logits"]
    tmix.close()
    assert torch.equal(plain, model(batch["input_ids"], batch["attention_mask"])["logits"])


@pytest.mark.proof
def test_checkpoints_around_a_layer_are_refused(batch):
    model = Reader()
    model.run = lambda layer, *x: checkpoint(layer, *x, use_reentrant=False, early_stop=False)
    tmix = TMix(model, (2,), blocks="layers")
    output, _ = tmix(**batch)
    with pytest.raises(RuntimeError, match="gradient_checkpointing_enable"):
        output["logits"].sum().backward()


def without(batch, name):
    return {key: value for key, value in batch.items() if key != name}


def change(name, value):
    return lambda batch: {**batch, name: value(batch)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda b: without(b, "labels"), ValueError, "labels: expected labels"),
        (change("labels", lambda b: b["labels"][:2]), ValueError, "5 of them"),
        (change("labels", lambda b: [0] * 5), TypeError, "labels: expected int64 class indices"),
        (change("input_ids", lambda b: torch.rand(B, T)), TypeError, "mix_embeddings"),
        (change("input_ids", lambda b: b["input_ids"][0]), ValueError, r"\[B, T\]"),
        (change("attention_mask", lambda b: 0 * b["attention_mask"]), ValueError, "5 of 5"),
        (change("attention_mask", lambda b: b["attention_mask"][:, 1:]), ValueError, "shape"),
        (change("cu_seq_lens_q", lambda b: LENGTHS), ValueError, "DataCollatorWithPadding"),
        (change("position_ids", lambda b: torch.arange(T).expand(B, T) % 3), ValueError, "packed"),
        (lambda b: without(b, "input_ids"), TypeError, "input_ids: expected a tensor"),
        (change("inputs_embeds", lambda b: torch.rand(B, T, H)), ValueError, "mix_embeddings"),
    ],
)
def test_calls_refused(batch, way, change, error, words):
    mixup = WAYS[way](Reader())
    state = mixup.state.clone()
    with pytest.raises(error, match=words):
        mixup(**change(batch))
    assert torch.equal(mixup.state, state)  # nothing was drawn


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: WordMixup(nn.Linear(2, 2)), TypeError, "get_input_embeddings"),
        (lambda: WordMixup("bert"), TypeError, "nn.Module"),
        (lambda: WordMixup(Reader(), alpha=-1.0), ValueError, "mixup_alpha"),
        (lambda: WordMixup(Reader(), pairing="best"), ValueError, "pairing"),
        (lambda: TMix(Reader(), (4,), blocks="layers"), ValueError, "0 to 3.*nearest is 3"),
        (lambda: TMix(Reader(), (), blocks="layers"), ValueError, "layers"),
        (lambda: TMix(Reader(), (1,), blocks="layer"), ValueError, "nearest are.*layers"),
        (lambda: TMix(Reader(), (1,)), ValueError, "blocks="),
        (lambda: SentenceMixup(Reader(), "classifer"), ValueError, "nearest are.*classifier"),
        (lambda: SentenceMixup(nn.Tanh()), ValueError, "nn.Linear"),
        (lambda: SSMix(Reader(), share=2.0), ValueError, "share"),
    ],
)
def test_makes_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_layer_that_is_not_called(batch):
    model = Reader()
    model.spare = nn.ModuleList([nn.Linear(H, H)])
    with pytest.raises(RuntimeError, match="no call"):
        TMix(model, (1,), blocks="spare")(**batch)
    with pytest.raises(ValueError, match=r"vector \[B, H\]"):
        SentenceMixup(model, "layers.1")(**batch)
