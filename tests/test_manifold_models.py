"""ManifoldMixup on networks of torchvision, timm and transformers, against the step by hand."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from manifold_cases import B, blend, check_step, hooks_of
from torch.utils.checkpoint import checkpoint

from benchmarks import installed_peers
from fused_mixup import ManifoldMixup

K = 4
LABELS = torch.arange(B) % K
pytestmark = pytest.mark.usefixtures("one_thread")


def require(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    installed_peers.fit_torchvision()
    return pytest.importorskip(package)


def at(name, layer, plan, h):
    return blend(h, plan) if name == layer else h


# ------------------------------------------------------------------ torchvision


def resnet_by_hand(net, x, layer, plan):
    x = at("input", layer, plan, x)
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = at(name, layer, plan, getattr(net, name)(x))
    return net.fc(net.avgpool(x).flatten(1))


@pytest.mark.parametrize(
    ("layout", "steps"),
    [
        (torch.channels_last, 2),
        pytest.param(torch.channels_last, 8, marks=pytest.mark.proof),
        pytest.param(torch.contiguous_format, 8, marks=pytest.mark.proof),
    ],
)
def test_torchvision_resnet(layout, steps):
    models = require("torchvision").models
    net = models.resnet18(num_classes=K).double().to(memory_format=layout)
    names = ["layer1", "layer2", "layer3"]
    manifold = ManifoldMixup(net, names, cutmix=1.0, per="sample", pairing="shuffle", seed=6)
    x = torch.randn(B, 3, 16, 16, dtype=torch.float64).to(memory_format=layout)
    drawn = {check_step(net, manifold, resnet_by_hand, x, LABELS, K) for _ in range(steps)}
    assert len(drawn) >= min(steps, 3) and hooks_of(net) == 0


# ------------------------------------------------------------------ timm


def vit(timm):
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=K, **sizes).double().train()


def vit_by_hand(net, x, layer, plan):
    x = net._pos_embed(net.patch_embed(at("input", layer, plan, x)))
    x = net.norm_pre(net.patch_drop(x))
    for i, block in enumerate(net.blocks):
        x = at(f"blocks.{i}", layer, plan, block(x))
    return net.forward_head(net.norm(x))


@pytest.mark.parametrize("regions", [False, True])
def test_timm_vit(regions):
    net = vit(require("timm"))
    net.set_grad_checkpointing(regions)
    manifold = ManifoldMixup(net, ["blocks.0", "blocks.1"], per="sample", seed=1)
    x = torch.randn(B, 3, 16, 16, dtype=torch.float64)
    drawn = {check_step(net, manifold, vit_by_hand, x, LABELS, K) for _ in range(6)}
    assert drawn == {"input", "blocks.0", "blocks.1"}


def test_timm_skips_the_hooks_of_a_sequence_under_checkpointing():
    net = vit(require("timm"))
    manifold = ManifoldMixup(net, ["blocks"], include_input=False)
    x = torch.randn(B, 3, 16, 16, dtype=torch.float64)
    manifold(x, LABELS)
    net.set_grad_checkpointing()
    with pytest.raises(RuntimeError, match="'blocks' to be called in the forward, got no call"):
        manifold(x, LABELS)


# ------------------------------------------------------------------ transformers

IDS = torch.randint(5, 50, (B, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[2, 5:] = 0
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 50}
SIZES |= {"intermediate_size": 24, "num_labels": K, "max_position_embeddings": 16}
SIZES |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LAYERS = ["bert.embeddings", *(f"bert.encoder.layer.{i}" for i in range(3))]


def bert():
    transformers = require("transformers")
    config = transformers.BertConfig(**SIZES)
    return transformers.BertForSequenceClassification(config).double().train()


def bert_by_hand(net, ids, layer, plan):
    h = at("bert.embeddings", layer, plan, net.bert.embeddings(ids))
    mask = MASK[:, None, None, :].bool().expand(B, 1, 9, 9)
    for i, block in enumerate(net.bert.encoder.layer):
        h = at(f"bert.encoder.layer.{i}", layer, plan, block(h, mask))
    return net.classifier(net.dropout(net.bert.pooler(h)))


@pytest.mark.proof
@pytest.mark.parametrize("regions", [None, False, True], ids=["plain", "checkpoint", "reentrant"])
@pytest.mark.parametrize("compiles", [False, True])
def test_bert(regions, compiles):
    net = bert()
    if regions is not None:
        options = {"use_reentrant": regions}
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    torch.compiler.reset()
    model = torch.compile(net, backend="aot_eager") if compiles else net
    options = {"include_input": False, "per": "sample", "pairing": "derangement", "seed": 2}
    with ManifoldMixup(model, LAYERS, **options) as manifold:
        for recorded in (False, True):  # transformers records hidden states by hooks of its own
            for _ in range(5 + 4 * compiles):
                given = {"attention_mask": MASK, "output_hidden_states": recorded}
                check_step(net, manifold, bert_by_hand, IDS, LABELS, K, **given)


@pytest.mark.proof
def test_a_checkpoint_of_transformers_around_the_hooked_module():
    """Modules inside a layer run again in the backward; the layer itself does not."""
    grads = []
    for regions in (False, True):
        torch.manual_seed(0)
        net = bert()
        if regions:
            options = {"use_reentrant": False}
            net.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        inner = [f"bert.encoder.layer.{i}.attention" for i in range(3)]
        manifold = ManifoldMixup(net, inner, include_input=False, per="sample", seed=3)
        total = sum(manifold(IDS, LABELS)[0].logits.square().sum() for _ in range(4))
        total.backward()
        grads.append([p.grad for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def hidden_of(net, name, call):
    """What layer ``name`` returns first in a call, behind the hook that mixes it."""
    seen = []
    layer = net.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    torch.manual_seed(1)  # of dropout
    call(IDS, LABELS, attention_mask=MASK)
    handle.remove()
    return seen[0]


@pytest.mark.proof
def test_other_families():
    transformers = require("transformers")
    xlnet = transformers.XLNetModel(
        transformers.XLNetConfig(vocab_size=50, d_model=16, n_layer=2, n_head=2, d_inner=24)
    )
    options = {"include_input": False, "num_classes": K}
    with pytest.raises(ValueError, match="set batch_dim=1"):
        ManifoldMixup(xlnet, ["layer.0"], **options)(IDS, LABELS)
    output, _ = ManifoldMixup(xlnet, ["layer.0"], batch_dim=1, **options)(IDS, LABELS)
    assert output.last_hidden_state.shape == (B, 9, 16)
    albert = transformers.AlbertModel(transformers.AlbertConfig(embedding_size=8, **SIZES))
    name = next(n for n, _ in albert.named_modules() if n.endswith("albert_layers.0"))
    with pytest.raises(RuntimeError, match="called once in a forward, got a second call"):
        ManifoldMixup(albert, [name], **options)(IDS, LABELS)
    deberta = transformers.DebertaV2Model(transformers.DebertaV2Config(**SIZES))
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, num_heads=2, num_layers=2, d_ff=24)
    )
    for net, name in ((deberta, "encoder.layer.1"), (t5, "encoder.block.0")):
        manifold = ManifoldMixup(net, [name], per="sample", **options)
        mixed = hidden_of(net, name, manifold)
        plain = hidden_of(net, name, lambda ids, _, **given: net(ids, **given))  # noqa: B023
        torch.testing.assert_close(mixed, blend(plain, manifold.last_plan))


@pytest.mark.proof
def test_torch_checkpoint_around_a_stage():
    models = require("torchvision").models
    net = models.resnet18(num_classes=K).double().eval()  # running statistics, as it runs twice
    net.training = True
    stage = net.layer2
    net.layer2 = _Region(stage)
    manifold = ManifoldMixup(net, ["layer2.stage", "layer3"], include_input=False, per="sample")
    x = torch.randn(B, 3, 16, 16, dtype=torch.float64)

    def by_hand(net, x, layer, plan):
        layer = "layer2" if layer == "layer2.stage" else layer
        return resnet_by_hand(net, x, layer, plan)

    drawn = {check_step(net, manifold, by_hand, x, LABELS, K) for _ in range(5)}
    assert drawn == {"layer2.stage", "layer3"}
    manifold.close()
    assert hooks_of(net) == 0


class _Region(torch.nn.Module):
    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        return checkpoint(self.stage, x, use_reentrant=False)
