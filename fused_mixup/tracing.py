"""Every private PyTorch name that the package uses, and the fallback where it is missing.

Any release may remove such a name. Only this file looks them up, once each; without one the
package is slower or raises a clear error, but gives no wrong result:

    _compile._disable_dynamo                torch.compiler.disable, which imports the compiler
    _C._len_torch_dispatch_stack            no call counts as plain: no fast path
    _C._are_functorch_transforms_active     every call counts as transformed: slower, as correct
    _C._functorch.get_interpreter_stack     every transform counts as vmap: plain PyTorch
    _C._functorch.is_legacy_batchedtensor   PyTorch's own error for a batch of gradients
    _C._get_tracing_state                   torch.jit.is_tracing
    _C._AutoDispatchBelowAutograd           no_grad, which autograd registered on an op respects
    _C._autograd._get_current_graph_task_keep_graph     every backward copies, for a second run
    _C._current_graph_task_id               the engine is asked whether it takes a callback
    _C._autograd._top_saved_tensors_default_hooks       a draw in a recompute raises
    _C._autograd._pop_saved_tensors_default_hooks       regions around the innermost are not seen
    _C._autograd._push_saved_tensors_default_hooks      regions around the innermost are not seen
    _C._autograd._saved_tensors_hooks_is_enabled        regions around the innermost are not seen
    fx.traceback                            a draw that a compiled backward recomputes raises
    _subclasses.functional_tensor.FunctionalTensorMode      the same as without fx.traceback
    utils.checkpoint._CachingTorchDispatchMode              the same as without fx.traceback
    utils.checkpoint.CheckpointPolicy.MUST_SAVE             the same as without fx.traceback
    _subclasses.FakeTensor                  reading a fake tensor's values gets PyTorch's error
    compiler._is_exporting_flag             exported programs contain the op of compiled steps
    distributed.distributed_c10d._world     a compiled step has a graph break at the rank
    distributed.ProcessGroup._get_backend   blocks of ranks have PyTorch's own timeout
    forward_ad._current_level               a dual tensor is made, which fails outside a level
    _C._storage_Use_Count, _cdata           memory of results is not reused
    UntypedStorage._new_shared              memory is moved to shared memory after allocation
    utils.data._utils.collate               a full /dev/shm stops a worker with PyTorch's error
    Tensor._base                            the graph of the view is searched for the leaf
    _sample_dirichlet                       torch.distributions.Beta, which calls it
    Tensor._version                         every tensor counts as written to
    utils._pytree.tree_flatten, utils._pytree.tree_unflatten    nested inputs are refused
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.autograd import forward_ad


def _private(path: str) -> Any:
    """The attribute of ``torch`` with this dotted name, or None."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


# ------------------------------------------------------------------ compiled, traced, transformed

_disable_dynamo = _private("_compile._disable_dynamo")  # saves an import of 2 s
_dispatch_modes = _private("_C._len_torch_dispatch_stack") or (lambda: 1)
_interpreters = _private("_C._functorch.get_interpreter_stack")
_is_legacy_batch = _private("_C._functorch.is_legacy_batchedtensor") or (lambda x: False)
_fake = _private("_subclasses.FakeTensor") or ()
_tracing_state = _private("_C._get_tracing_state") or (lambda: torch.jit.is_tracing() or None)  # type: ignore[attr-defined]

# Whether a torch.func transform is active; True where that is unknown. Callers may choose between
# two correct code paths by it, but must not refuse a call because of it.
transforms_active: Callable[[], bool] = _private("_C._are_functorch_transforms_active") or (
    lambda: True
)


def in_vmap() -> bool:
    """Whether torch.func.vmap is active at any level, where values of tensors cannot be read.

    True in every transform of unknown kind: in compiled code, and in a PyTorch without a list.
    """
    if _interpreters is None or torch.compiler.is_compiling():
        return transforms_active()
    return any(level.key().name == "Vmap" for level in _interpreters() or ())


def is_batch(grad: Tensor) -> bool:
    """Whether a backward gets a batch of gradients at once (vmap, is_grads_batched)."""
    return in_vmap() or _is_legacy_batch(grad)


@_disable_dynamo or torch.compiler.disable
def call_eagerly(call: Callable[..., Any], *args: Any) -> Any:
    """Run ``call(*args)`` in eager mode, outside the graph of a compiled step.

    So it draws from the same generators, and λ and the box do not become constants of a graph.
    """
    return call(*args)


def is_plain() -> bool:
    """Whether a call is not compiled, traced, transformed or run under a mode (fake tensors)."""
    return not (
        torch.compiler.is_compiling()
        or _dispatch_modes()
        or transforms_active()
        or _tracing_state() is not None
    )


def has_host_values(t: Tensor) -> bool:
    """Whether values can be read without waiting: on the CPU, neither traced nor fake."""
    return t.is_cpu and not torch.compiler.is_compiling() and not isinstance(t, _fake)


def is_exporting() -> bool:
    """torch.compiler.is_exporting, which is True in any step that PyTorch < 2.13 compiles."""
    return getattr(torch.compiler, "_is_exporting_flag", False)


# ------------------------------------------------------------------ autograd

# A context in which ops run without the autograd registered on them.
skip_autograd: Callable[[], contextlib.AbstractContextManager] = (
    _private("_C._AutoDispatchBelowAutograd") or torch.no_grad
)

# Whether the running backward may run again (retain_graph), and so must keep its tensors.
backward_keeps_graph: Callable[[], bool] = _private(
    "_C._autograd._get_current_graph_task_keep_graph"
) or (lambda: True)

_graph_task = _private("_C._current_graph_task_id")  # -1 outside a backward


def in_backward() -> bool:
    """Whether this thread is inside a backward."""
    if _graph_task is not None:
        return _graph_task() != -1
    try:
        torch.autograd.Variable._execution_engine.queue_callback(lambda: None)
    except RuntimeError:  # "can only be installed during backward pass"
        return False
    return True


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open (torch.func.jvp, forward_ad)."""
    level = getattr(forward_ad, "_current_level", None)
    if level is not None:
        return level >= 0
    try:
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))
    except RuntimeError:  # no level
        return False
    return True


def leaf_under(x: Tensor) -> Tensor | None:
    """The leaf that requires grad whose memory ``x`` is a view of."""
    if hasattr(x, "_base"):
        base = x._base
        return base if base is not None and base.is_leaf and base.requires_grad else None
    node = x.grad_fn
    while node is not None and node.next_functions:  # views have one input
        node = node.next_functions[0][0]
    leaf = getattr(node, "variable", None)
    same = leaf is not None and leaf.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    return leaf if same else None


def write_count(x: Tensor) -> float:
    """A number that changes with each write to ``x``; NaN, which equals nothing, if unknown.

    PyTorch does not count writes to tensors of inference mode.
    """
    return getattr(x, "_version", float("nan"))


# ------------------------------------------------------------------ checkpoint

_top_hooks = _private("_C._autograd._top_saved_tensors_default_hooks")
_pop_hooks = _private("_C._autograd._pop_saved_tensors_default_hooks")
_push_hooks = _private("_C._autograd._push_saved_tensors_default_hooks")
_may_push = _private("_C._autograd._saved_tensors_hooks_is_enabled")


def checkpoint_regions() -> list[tuple[Any, Any]]:
    """The regions of torch.utils.checkpoint (not reentrant) around this call, innermost first.

    Each is a pair: the object that PyTorch keeps for the region from its forward on, and None, or
    in a recompute an object that belongs to this recompute alone.
    """
    hooks = [None if _top_hooks is None else _top_hooks(True)]
    if hooks[0] is None:
        return []
    if None not in (_pop_hooks, _push_hooks, _may_push) and _may_push():
        try:  # PyTorch shows the innermost hooks only
            while hooks[-1] is not None:
                _pop_hooks()
                hooks.append(_top_hooks(True))
        finally:
            for pack, unpack in filter(None, reversed(hooks)):
                _push_hooks(pack, unpack)
    regions = [_checkpoint_region(pair[0]) for pair in hooks if pair is not None]
    return [region for region in regions if region is not None]


def _checkpoint_region(pack: Any) -> tuple[Any, Any] | None:
    function = getattr(pack, "_torchdynamo_orig_callable", pack)
    name = getattr(function, "__qualname__", "")
    if getattr(function, "__module__", "") != "torch.utils.checkpoint":
        return None
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held = {freevar: cell.cell_contents for freevar, cell in cells}
    if name.startswith("_checkpoint_hook.") and "frame" in held:
        return held["frame"], None
    if name.startswith("_recomputation_hook.") and "target_frame_ref" in held:
        return held["target_frame_ref"](), pack
    return None


def never_recompute(op: str, library: torch.library.Library) -> None:
    """Make compiled steps save the result of ``op`` where they recompute a checkpoint's region."""
    trace = _private("fx.traceback")
    functional = _private("_subclasses.functional_tensor.FunctionalTensorMode")
    caching = _private("utils.checkpoint._CachingTorchDispatchMode")
    keep = _private("utils.checkpoint.CheckpointPolicy.MUST_SAVE")
    if trace is None or keep is None or not hasattr(trace, "current_meta"):
        return

    def tag_node(mode, func, types, args, kwargs):  # called when a node of the graph is made
        before = trace.current_meta
        trace.current_meta = {**before, "recompute": keep}
        try:
            return mode.__torch_dispatch__(func, types, args, kwargs or {})
        finally:
            trace.current_meta = before

    def set_policy(mode, func, types, args, kwargs):  # called for the policy (PyTorch >= 2.13)
        policy, mode.policy_fn = mode.policy_fn, lambda *args, **kwargs: keep
        try:
            return mode.__torch_dispatch__(func, types, args, kwargs or {})
        finally:
            mode.policy_fn = policy

    for mode, rule in ((functional, tag_node), (caching, set_policy)):
        if mode is not None:
            torch.library.register_torch_dispatch(op, mode, rule, lib=library)


# ------------------------------------------------------------------ distributed

_world = _private("distributed.distributed_c10d._world")
_backend_of = _private("distributed.ProcessGroup._get_backend") or (lambda *_: None)


def process_rank() -> int | None:
    """This process's rank in torch.distributed; None without a process group.

    A step that was compiled before there was a group recompiles: Dynamo takes is_initialized() for
    a constant, but guards an attribute that it reads.
    """
    distributed = torch.distributed
    if not distributed.is_available():
        return None
    if _world is not None and torch.compiler.is_compiling():
        there = _world.default_pg is not None
    else:
        there = call_eagerly(distributed.is_initialized)
    return distributed.get_rank() if there else None


def group_timeout(group: Any, device: torch.device) -> Any:
    """The timeout of a process group for a device; None where PyTorch does not tell it."""
    return getattr(getattr(_backend_of(group, device), "options", None), "_timeout", None)


# ------------------------------------------------------------------ memory


def keep_in_place(x: Tensor) -> None:
    """Tell compiled graphs that the address of ``x`` is fixed, as that of a buffer is."""
    x._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]


_use_count = _private("_C._storage_Use_Count")


def storage_users(storage: UntypedStorage) -> int | None:
    """How many tensors and storages of Python share this memory; None where that is unknown."""
    address = getattr(storage, "_cdata", None)
    return None if _use_count is None or address is None else _use_count(address)


def shared_storage(size: int) -> UntypedStorage:
    """Fresh memory of ``size`` bytes that other processes can map."""
    new_shared = getattr(UntypedStorage, "_new_shared", None)
    if new_shared is not None:
        return new_shared(size, device="cpu")
    return torch.empty(size, dtype=torch.uint8, device="cpu").share_memory_().untyped_storage()


# ------------------------------------------------------------------ others

collating = _private("utils.data._utils.collate")

sample_dirichlet = _private("_sample_dirichlet")


def sample_beta(concentration: Tensor) -> float:
    """λ ~ Beta(a, b) for ``concentration`` [[a, b]], from PyTorch's generator of the CPU."""
    if sample_dirichlet is not None:  # the call that Beta itself makes after 70 µs of Python
        return sample_dirichlet(concentration).tolist()[0][0]
    a, b = concentration.unbind(1)
    return torch.distributions.Beta(a, b).sample().item()


def _no_pytree(*_: Any) -> Any:
    raise TypeError("inputs: expected tensors, got nested ones, but this PyTorch has no pytree")


# torchvision walks its inputs with these two.
tree_flatten = _private("utils._pytree.tree_flatten") or _no_pytree
tree_unflatten = _private("utils._pytree.tree_unflatten") or _no_pytree
