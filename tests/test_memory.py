"""Memory of results: reused once no tensor refers to it, and never before."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, backends, memory

SIZE = torch.Size((2, 3))
FLIP = MixPlan.uniform(8, "flip", 0.3)
needs_native = pytest.mark.skipif(
    backends.reason_unavailable("native", "CPU") is not None,
    reason=str(backends.reason_unavailable("native", "CPU")),
)


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    memory.empty_cache()
    monkeypatch.setattr(memory, "_LEAST", 0)  # csrc/cpu has a separate bound
    yield
    memory.empty_cache()


@pytest.fixture
def made(monkeypatch):
    """The sizes of new allocations."""
    sizes, real = [], memory._fresh_storage

    def fresh(size):
        sizes.append(size)
        return real(size)

    monkeypatch.setattr(memory, "_fresh_storage", fresh)
    return sizes


def images(channels=3):
    return torch.rand(8, channels, 260, 260)


HOLDERS = {
    "view": lambda x: x[1:].flatten(),
    "detached": lambda x: x.detach(),
    "array": lambda x: x.numpy(),
    "view of an array": lambda x: x.numpy()[1:, 0],
    "capsule": lambda x: torch.utils.dlpack.to_dlpack(x),
    "storage": lambda x: x.untyped_storage(),
    "data": lambda x: x.data,
    "parameter": lambda x: torch.nn.Parameter(x.float()) if x.is_floating_point() else x.T,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_is_used_again_when_nobody_holds_it(hold, made):
    x = memory.recycled_tensor(SIZE)
    assert x.shape == SIZE and x.dtype == torch.uint8 and not x._is_view()
    address, held = x.data_ptr(), hold(x)
    del x
    y = memory.recycled_tensor(SIZE)
    assert made == [6, 6] and y.data_ptr() != address
    del held
    gc.collect()
    z = memory.recycled_tensor(torch.Size((3, 2)))
    assert made == [6, 6] and z.data_ptr() == address


def test_memory_of_four_results_is_kept(made):
    held = [memory.recycled_tensor(torch.Size((4,))) for _ in range(10)]
    del held
    assert len(memory._kept) == 4
    held = [memory.recycled_tensor(torch.Size((4,))) for _ in range(10)]
    assert len(made) == 16
    del held
    memory.recycled_tensor(torch.Size((5,)))  # another size takes no room from the first
    assert len(made) == 17 and len(memory._kept) == 5
    memory.recycled_tensor(torch.Size((4,)))
    memory.recycled_tensor(torch.Size((5,)))  # both sizes now have a kept block
    assert len(made) == 17
    memory.empty_cache()
    memory.recycled_tensor(torch.Size((4,)))
    assert len(made) == 18


def test_memory_of_batches_of_changing_sizes_is_used_again(made):
    sizes = [8, 12, 16, 20, 24, 32]  # as resolutions that take turns
    for _ in range(3):
        for size in sizes:
            memory.recycled_tensor(torch.Size((size,)))
    assert made == sizes
    assert sorted(kept.nbytes() for kept in memory._kept) == sizes


def test_kept_memory_is_limited_by_the_largest_result(made):
    for size in range(100, 200):
        memory.recycled_tensor(torch.Size((size,)))
        sizes = [kept.nbytes() for kept in memory._kept]
        assert sum(sizes) <= 8 * max(sizes) and sizes[-1] == size
    memory.recycled_tensor(torch.Size((1,)))
    assert [kept.nbytes() for kept in memory._kept][-1] == 1
    for _ in range(3):  # the last one is kept, whatever its size
        held = [memory.recycled_tensor(torch.Size((10**4,))) for _ in range(9)]
        del held
        assert [kept.nbytes() for kept in memory._kept].count(10**4) == 4


def test_memory_of_small_and_large_results_is_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "_LEAST", 4)
    monkeypatch.setattr(memory, "_MOST", 6)
    for size in (3, 4, 6, 7):
        assert memory.recycled_tensor(torch.Size((size,))).shape == (size,)
    assert [kept.nbytes() for kept in memory._kept] == [4, 6]


@needs_native
@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_what_goes_wrong_with_kept_memory_reaches_nobody(error, monkeypatch):
    def fail(size):
        raise error

    x = images()
    want = fm.mix(x, FLIP)
    memory.empty_cache()
    monkeypatch.setattr(memory, "_fresh_storage", fail)
    assert torch.equal(fm.mix(x, FLIP), want)


def test_shared_or_resized_memory_is_not_used_again(made):
    x = memory.recycled_tensor(SIZE).share_memory_()
    assert x.is_shared()
    del x
    x = memory.recycled_tensor(SIZE)  # another process may read the first result
    assert made == [6, 6]
    x.untyped_storage().resize_(60)
    del x
    memory.recycled_tensor(SIZE)
    assert made == [6, 6, 6]


def test_threads_never_share_memory():
    wrong = []

    def work(value):
        for _ in range(300):
            x = memory.recycled_tensor(torch.Size((1000,)))
            x.fill_(value)
            if not bool((x == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ------------------------------------------------------------------ mix


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_mix_uses_memory_of_a_result_that_is_gone(dtype, channels, memory_format):
    x = (images(3 if channels == 3 else 6) * 255).to(dtype)
    if channels == 1:
        x = x.reshape(8, 1, -1, 260)
    x = x.contiguous(memory_format=memory_format)
    want = torch.empty_like(x)
    fm.mix(x, FLIP, out=want)
    kept = fm.mix(x, FLIP)
    (address,) = {fm.mix(x, FLIP).data_ptr() for _ in range(3)}
    got = fm.mix(x, FLIP)
    assert got.data_ptr() == address != kept.data_ptr() and address % 64 == 0
    for result in (kept, got):
        assert result.stride() == torch.empty_like(x).stride() and not result._is_view()
        assert result.dtype == dtype and torch.equal(result, want)
    assert torch.equal(pickle.loads(pickle.dumps(got)), want)
    assert torch.equal(copy.deepcopy(got), want)
    with torch.inference_mode():
        assert torch.equal(fm.mix(x, FLIP), want)


@needs_native
def test_results_are_tensors_like_any_other(made):
    x = images()
    with torch.no_grad():
        result = fm.mix(x.clone().requires_grad_(), FLIP)
    assert made and not result.requires_grad
    leaf = result.requires_grad_()
    (leaf * 2).sum().backward()
    assert bool((leaf.grad == 2).all())
    result = fm.mix(x, FLIP)
    result.resize_(16, 3, 260, 260)
    result = fm.mix(x, FLIP)
    result.untyped_storage().resize_(0)
    assert torch.equal(fm.mix(x, FLIP), fm.mix(x, FLIP, out=torch.empty_like(x)))


class Marked(torch.Tensor):
    pass


@needs_native
@pytest.mark.parametrize(
    "prepare",
    [lambda x: x.clone().requires_grad_(), lambda x: x.as_subclass(Marked), torch.nn.Parameter],
    ids=["requires grad", "subclass", "parameter"],
)
def test_results_of_any_kind_of_tensor_are_kept(prepare, made):
    x = prepare(images())
    want = (x * 0.3 + x.flip(0) * 0.7).detach()
    addresses = set()
    for _ in range(3):
        result = fm.mix(x, FLIP)
        addresses.add(result.data_ptr())
        assert torch.allclose(result.detach(), want) and result.requires_grad == x.requires_grad
        if x.requires_grad:
            x.grad = None
            result.square().sum().backward()
            back = result.detach() * 0.3 + result.detach().flip(0) * 0.7
            assert torch.allclose(x.grad, 2 * back)
            assert x.grad.data_ptr() in {kept.data_ptr() for kept in memory._kept}
        del result
    # One allocation for the batch; one for the gradient, which is held while the next is mixed.
    assert len(made) == (2 if x.requires_grad else 1) and len(addresses) <= 2


@pytest.mark.parametrize(
    "prepare",
    [lambda x: x[:, :, :50, :50].contiguous(), lambda x: x.transpose(2, 3)],
    ids=["small", "transposed"],
)
def test_other_results_lie_in_memory_of_pytorch(prepare, made):
    x = prepare(images())
    want = x * 0.3 + x.flip(0) * 0.7
    result = fm.mix(x, FLIP)
    assert torch.allclose(result, want) and not made
    assert result.stride() == torch.empty_like(x).stride()


@needs_native
def test_large_results_are_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 2**21)
    x = images()
    assert torch.allclose(fm.mix(x, FLIP), x * 0.3 + x.flip(0) * 0.7) and not memory._kept


def test_other_backends_make_their_own_results(made):
    with fm.backend("reference"):
        fm.mix(images(), FLIP)
    assert not made


@needs_native
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_graphs_hold_no_memory_of_ours(made):
    x = images()
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        fm.mix(x, FLIP)
    assert not made
    want = fm.mix(x, FLIP, out=torch.empty_like(x))
    traced = torch.jit.trace(lambda t: fm.mix(t, FLIP), x, check_trace=False)
    compiled = torch.compile(lambda t: fm.mix(t, FLIP), fullgraph=True, backend="aot_eager")
    for graph in (traced, compiled):
        first, second = graph(x), graph(x)
        assert first.data_ptr() != second.data_ptr()
        assert torch.equal(first, want) and torch.equal(second, want)


@needs_native
@pytest.mark.parametrize("mode", [{}, {"grad_in_forward": True}], ids=["separate", "forward"])
@pytest.mark.parametrize(
    "loss", [fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy]
)
def test_gradients_of_losses_lie_in_memory_of_gradients_that_are_gone(loss, mode, made):
    logits = torch.randn(64, 5000, requires_grad=True)
    target = MixedTarget.from_labels(torch.arange(64), MixPlan.uniform(64, "flip", 0.3), 5000)
    grads = []
    for _ in range(3):
        logits.grad = None
        loss(logits, target, **mode).backward()
        grads.append(logits.grad.clone())
    assert made == [logits.nbytes]
    address = logits.grad.data_ptr()
    loss(logits, target, **mode).backward()  # this adds to the gradient that x holds
    assert len(made) == 2 and logits.grad.data_ptr() == address
    assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])
    assert torch.equal(logits.grad, grads[0] * 2)


def test_empty_cache_keeps_its_earlier_name():
    assert memory.let_go is memory.empty_cache
