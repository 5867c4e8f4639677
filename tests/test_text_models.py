"""Mixing of text in models of transformers: against plain PyTorch, in float64."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from frameworks import require
from text_cases import spans_by_hand
from text_models import DECODERS, FAMILIES, TEXTS, batch, make

from fused_mixup import MixPlan
from fused_mixup.text import SentenceMixup, SSMix, TMix, WordMixup

require("transformers", "tokenizers")
pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("one_thread")]

CLASSIFIERS = [family for family in FAMILIES if family != "t5"]
LEFT = (*DECODERS, "xlnet")
HAVE_TYPES = ("bert", "albert", "deberta", "xlnet")
PLAN = MixPlan.per_sample(
    torch.tensor([0.7, 0.2, 0.5, 0.9, 0.35, 0.6], dtype=torch.float64),
    torch.tensor([1, 4, 0, 5, 3, 2]),
)


@pytest.fixture(autouse=True)
def _quiet():
    from transformers.utils import logging

    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inputs_of(family, side=None):
    made = batch(side or ("left" if family in LEFT else "right"))
    if family not in HAVE_TYPES:
        made.pop("token_type_ids")
    return made


def fixed(mixup, plan=PLAN):
    """The module with a plan of ours in place of its draws."""
    draw = mixup._draw

    def give(*arguments):
        draw(*arguments)
        return plan

    mixup._draw = give
    return mixup


def blended(h, dim=0, plan=PLAN):
    h = h.transpose(0, dim)
    w = plan.blend.to(h.dtype).view(len(h), 2, *[1] * (h.ndim - 1))
    return (w[:, 0] * h + w[:, 1] * h[plan.partner.long()]).transpose(0, dim)


def union(mask, plan=PLAN):
    return torch.maximum(mask, mask[plan.partner.long()])


def plain(model, made, **changes):
    return model(**{k: v for k, v in {**made, **changes}.items() if k != "labels"})


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def same_gradients(model, output, expected):
    weights = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (
        torch.autograd.grad(t.sin().sum(), weights, allow_unused=True) for t in (output, expected)
    )
    assert sum(g is not None for g in ours) > 10
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b)


# ------------------------------------------------------------------ BERT, written out


def bert_by_hand(model, made, layer, plan=PLAN):
    """The encoder layer by layer, with the state behind ``layer`` indexed and blended."""
    bert, mask = model.bert, union(made["attention_mask"])
    h = bert.embeddings(input_ids=made["input_ids"], token_type_ids=made["token_type_ids"])
    h = blended(h, plan=plan) if layer == 0 else h
    wide = (mask != 0)[:, None, None].expand(-1, 1, mask.shape[1], -1)
    for k, each in enumerate(bert.encoder.layer, 1):
        h = each(h, wide)
        h = blended(h, plan=plan) if k == layer else h
    return model.classifier(bert.pooler(h))


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_tmix_of_bert(layer):
    model, made = make("bert"), inputs_of("bert")
    output, target = fixed(TMix(model, (layer,)))(**made)
    expected = bert_by_hand(model, made, layer)
    close(output.logits, expected)
    same_gradients(model, output.logits, expected)
    hot = F.one_hot(made["labels"], 3).float()
    torch.testing.assert_close(target.dense(), blended(hot))


def test_word_mixup_of_bert_with_pairs():
    made = batch(texts=TEXTS, pairs=[*TEXTS[2:], *TEXTS[:2]])
    model, ids, mask = make("bert"), made["input_ids"], made["attention_mask"]
    assert made["token_type_ids"].any()
    output, _ = fixed(WordMixup(model))(**made)
    words = model.bert.embeddings.word_embeddings(ids) * mask[..., None]
    partner = PLAN.partner.long()
    types = torch.where(mask != 0, made["token_type_ids"], made["token_type_ids"][partner])
    h = model.bert.embeddings(inputs_embeds=blended(words), token_type_ids=types)
    wide = (union(mask) != 0)[:, None, None].expand(-1, 1, mask.shape[1], -1)
    for each in model.bert.encoder.layer:
        h = each(h, wide)
    expected = model.classifier(model.bert.pooler(h))
    close(output.logits, expected)
    same_gradients(model, output.logits, expected)


# ------------------------------------------------------------------ every family


@pytest.mark.parametrize("family", FAMILIES)
def test_word_mixup(family):
    model, made = make(family), inputs_of(family)
    mask = made["attention_mask"]
    mixup = fixed(WordMixup(model, num_classes=3))
    output, _ = mixup(**made)
    words = model.get_input_embeddings()(made["input_ids"]) * mask[..., None]
    changes = {"input_ids": None, "inputs_embeds": blended(words), "attention_mask": union(mask)}
    if family == "roberta":  # its padding index is 1
        changes["position_ids"] = torch.cumsum(union(mask), 1) * union(mask) + 1
    if family in HAVE_TYPES:  # 0 for single texts, also where the shorter one is padded
        own, partner = made["token_type_ids"], PLAN.partner.long()
        changes["token_type_ids"] = torch.where(mask != 0, own, own[partner])
    expected = plain(model, made, **changes)
    close(output[0], expected[0])
    same_gradients(model, output[0], expected[0])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_word_mixup_without_mixing_is_the_model(family, side):
    # RoBERTa takes its positions from the ids, which embeddings do not have. Classifiers may pool
    # a padded place, whose embedding is that of the padding token here and zero there.
    model, made = make(family).base_model, inputs_of(family, side)
    alone = WordMixup(model, num_classes=3)
    alone = fixed(alone, MixPlan.uniform(len(TEXTS), "flip", 1.0))
    valid = made["attention_mask"] != 0
    close(alone(**made)[0][0][valid], plain(model, made)[0][valid])


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_tmix_mixes_the_state_behind_a_layer(family, layer):
    model, made = make(family), inputs_of(family)
    dim = 1 if family == "xlnet" else 0
    states = []

    def watched(call):
        """The states behind all layers of a call, in the order of the calls."""
        states.clear()
        modules = tmix_modules(model)
        handles = [m.register_forward_hook(lambda m, a, out: states.append(out)) for m in modules]
        output = call()
        for handle in handles:
            handle.remove()
        first = [s if isinstance(s, torch.Tensor) else s[0] for s in states]
        return first, output[0]

    before, _ = watched(lambda: plain(model, made, attention_mask=union(made["attention_mask"])))
    tmix = fixed(TMix(model, (layer,), num_classes=3))
    after, output = watched(lambda: tmix(**made)[0])
    assert len(before) == len(after) == 3
    for k in range(layer - 1):
        assert torch.equal(before[k], after[k])
    close(after[layer - 1], blended(before[layer - 1], dim))
    assert not torch.allclose(after[layer], before[layer])
    loss = output.sin().sum()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def tmix_modules(model):
    from fused_mixup.text.blocks import find_blocks

    modules, count = find_blocks(model, None)
    assert count == 3
    return modules


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", [*CLASSIFIERS, "xlm-roberta", "camembert"])
def test_sentence_mixup(family, side):
    # The last layer is linear: mixing what enters it is mixing what leaves it.
    model, made = make(family), inputs_of(family, side)
    output, _ = fixed(SentenceMixup(model))(**made)
    expected = blended(plain(model, made).logits)
    close(output.logits, expected)
    same_gradients(model, output.logits, expected)


@pytest.mark.parametrize("family", [*CLASSIFIERS, "bart"])
def test_ssmix(family):
    model, made = make(family), inputs_of(family)
    words = model.model.encoder.embed_tokens if family == "bart" else model.get_input_embeddings()
    seen = []

    def keep(module, args, output):
        output.retain_grad()
        seen.append(output)

    handle = words.register_forward_hook(keep)
    F.cross_entropy(plain(model.eval(), made).logits, made["labels"]).backward()
    handle.remove()
    model.train().zero_grad()
    saliency = seen[0].grad.square().mean(2).sqrt()
    saliency = saliency.T if family == "xlnet" else saliency
    output, target = fixed(SSMix(model, share=0.3))(**made)
    rows = made["input_ids"], saliency, made["attention_mask"], PLAN.partner.tolist()
    moved, weight = spans_by_hand(*rows, share=0.3)
    assert (moved != made["input_ids"]).any()
    close(output.logits, plain(model, made, input_ids=moved).logits)
    torch.testing.assert_close(target.weight[:, 0], weight, rtol=0, atol=1e-6)


# ------------------------------------------------------------------ what else may be on


@pytest.mark.parametrize("way", [TMix, SentenceMixup, WordMixup])
def test_gradient_checkpointing(way):
    made, gradients = inputs_of("bert"), []
    for on in (False, True):
        model = make("bert")
        if on:
            model.gradient_checkpointing_enable()
        mixup = fixed(way(model, (2,)) if way is TMix else way(model))
        mixup(**made)[0].logits.sin().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for a, b in zip(*gradients, strict=True):
        close(a, b)


def test_hidden_states_that_are_recorded_are_mixed():
    model, made = make("bert"), inputs_of("bert")
    model.eval()
    plain(model, made, output_hidden_states=True)  # installs the recording hooks for good
    model.train()
    mask = union(made["attention_mask"])
    states = plain(model, made, attention_mask=mask, output_hidden_states=True).hidden_states
    mixed = fixed(TMix(model, (2,)))(**made, output_hidden_states=True)[0].hidden_states
    close(mixed[2], blended(states[2]))
    assert torch.equal(mixed[1], states[1])


@pytest.mark.parametrize("way", [WordMixup, TMix])
@pytest.mark.parametrize("family", DECODERS)
def test_decoders_with_right_padding_are_refused(family, way):
    model = make(family)
    mixup = way(model, (1,)) if way is TMix else way(model)
    for head in (model.score, torch.nn.Sequential(model.score)):  # the second as PEFT wraps it
        model.score = head
        with pytest.raises(ValueError, match="padding_side = 'left'"):
            mixup(**inputs_of(family, "right"))


def test_a_missing_mask_is_refused():
    made = inputs_of("roberta")
    made.pop("attention_mask")
    with pytest.raises(ValueError, match="pad_token_id"):
        WordMixup(make("roberta"))(**made)


def test_the_papers_layers_need_twelve():
    with pytest.raises(ValueError, match="layers: expected numbers from 0 to 3"):
        TMix(make("bert"))
    assert TMix(make("bert", num_hidden_layers=12)).layers == (7, 9, 12)


def test_an_encoder_without_logits_needs_num_classes():
    with pytest.raises(ValueError, match="num_classes=K"):
        WordMixup(make("t5"))(**inputs_of("t5"))
    with pytest.raises(ValueError, match=r"vector \[B, H\]"):
        SentenceMixup(make("t5"), num_classes=3)(**inputs_of("t5"))
