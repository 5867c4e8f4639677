"""ManifoldMixup around compiled models: the numbers of the step by hand, and how many graphs."""

from __future__ import annotations

import pytest
import torch
from manifold_cases import IMAGES, LABELS, LAYERS, Net, check_step, net_by_hand

import fused_mixup as fm
from fused_mixup import ManifoldMixup

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _own_graphs():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counted:
    """A backend that counts the graphs it gets; ``aot`` traces their backward too."""

    def __init__(self, aot):
        self.aot, self.graphs = aot, 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        if not self.aot:
            return graph
        from torch._dynamo.backends.debugging import aot_eager

        return aot_eager(graph, inputs)


@pytest.mark.parametrize(
    ("region", "aot", "options"),
    [
        (None, False, {"per": "sample", "cutmix": 1.0}),
        pytest.param(None, True, {}, marks=pytest.mark.proof),
        pytest.param(False, True, {}, marks=pytest.mark.proof),
        pytest.param(False, True, {"per": "sample", "cutmix": 1.0}, marks=pytest.mark.proof),
    ],
)
def test_one_graph_for_each_layer(region, aot, options):
    net, backend = Net(region), Counted(aot)
    model = torch.compile(net, fullgraph=True, backend=backend)
    with ManifoldMixup(model, LAYERS, seed=1, **options) as manifold:
        drawn = [check_step(net, manifold, net_by_hand, IMAGES, LABELS) for _ in range(16)]
        assert set(drawn) == {"input", *LAYERS}  # each often, with other λ and boxes
        assert backend.graphs == 4
        net.eval()
        assert torch.equal(manifold(IMAGES, LABELS)[0], net(IMAGES))


@pytest.mark.parametrize("options", [{}, {"per": "sample", "cutmix": 1.0}], ids=str)
def test_batches_of_other_sizes_share_a_graph(options):
    net, backend = Net(), Counted(aot=False)
    model = torch.compile(net, fullgraph=True, backend=backend)
    with ManifoldMixup(model, ["b"], include_input=False, **options) as manifold:
        for size in (6, 6, 3, 3, 4, 4, 5, 5):  # the first call with a shape may run without a graph
            check_step(net, manifold, net_by_hand, IMAGES[:size], LABELS[:size])
    assert backend.graphs == 2


def test_boxes_have_the_sizes_of_inputs_that_are_keywords():
    class Named(Net):
        def forward(self, image):
            return super().forward(image)

    net, options = Named(), {"include_input": False, "alpha": 0.0, "cutmix": 1.0, "per": "sample"}
    large = IMAGES.repeat(1, 1, 2, 2)
    seen = []
    for model in (net, torch.compile(net, backend="eager")):
        with ManifoldMixup(model, ["a"], seed=1, **options) as manifold:
            for image in (IMAGES, IMAGES, large, large):
                logits, _ = manifold(image=image, labels=LABELS)
                seen.append((logits, manifold.last_plan))
    for (logits, plan), (same, its_plan) in zip(seen[:4], seen[4:], strict=True):
        assert plan == its_plan
        torch.testing.assert_close(logits, same, rtol=0, atol=1e-12)


@pytest.mark.proof
def test_a_model_compiled_in_place():
    net = Net()
    net.compile(fullgraph=True, backend="aot_eager")
    with ManifoldMixup(net, LAYERS, seed=1, compiled=True) as manifold:
        for _ in range(10):
            check_step(net, manifold, net_by_hand, IMAGES, LABELS)


@pytest.mark.proof
def test_a_compiled_block_inside_a_checkpoint():
    net = Net(False)
    net.b = torch.compile(net.b, backend="aot_eager")
    with ManifoldMixup(net, ["b", "c"], include_input=False, per="sample") as manifold:
        for _ in range(6):
            check_step(net, manifold, net_by_hand, IMAGES, LABELS)


@pytest.mark.proof
def test_a_layer_inside_a_compiled_block_inside_a_checkpoint_is_refused():
    net = Net(False)
    net.b = torch.nn.Sequential(net.b)
    net.b = torch.compile(net.b, backend="aot_eager")
    with (
        ManifoldMixup(net, ["b.0"], include_input=False) as manifold,
        pytest.raises(RuntimeError, match="name the compiled block itself"),
    ):
        manifold(IMAGES, LABELS)


@pytest.mark.proof
def test_a_model_that_was_compiled_before_its_hooks_were_set():
    net = Net()
    model = torch.compile(net, backend="aot_eager")
    model(IMAGES)
    with ManifoldMixup(model, ["b"], include_input=False) as manifold:
        manifold(IMAGES, LABELS)  # which checks the layer
        with pytest.raises(RuntimeError, match="make ManifoldMixup before the model is called"):
            manifold(IMAGES, LABELS)


@pytest.mark.proof
def test_a_compiled_step_runs_the_call_outside_its_graph():
    net = Net()
    manifold = ManifoldMixup(net, LAYERS)

    def step(x, labels):
        logits, target = manifold(x * 1.0, labels)
        return fm.soft_target_cross_entropy(logits, target)

    compiled = torch.compile(step, backend="aot_eager")
    for _ in range(6):
        loss = compiled(IMAGES, LABELS)
        logits = net_by_hand(net, IMAGES, manifold.last_layer, manifold.last_plan)
        target = fm.MixedTarget.from_labels(LABELS, manifold.last_plan, 5)
        torch.testing.assert_close(loss, fm.soft_target_cross_entropy(logits, target))
