"""Which backend is forced, for each thread and each asyncio task.

A ``ContextVar`` holds the forced backend. A new thread starts with the default of the process
(FUSED_MIXUP_BACKEND), a task with the backend forced where it was made, a forked process with that
of the thread that forked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import torch

BACKENDS = ("native", "triton", "reference")

_NAMES = ("auto", *BACKENDS)

# Whether this process has ever forced a backend. Until then calls skip the lookup; Dynamo, which
# cannot trace a ContextVar, guards on this flag.
ever_forced = False

_process = "auto"  # the backend outside every backend()


class _Entry:
    """An open ``with backend(…)``."""

    __slots__ = "is_open", "name"

    def __init__(self, name: str) -> None:
        self.name, self.is_open = name, True


_entered: ContextVar[tuple[_Entry, ...]] = ContextVar("fused_mixup_backend", default=())


def forced() -> str:
    """The backend that is forced here, or ``"auto"``."""
    return next((entry.name for entry in reversed(_entered.get()) if entry.is_open), _process)


def force_in_process(name: str) -> None:
    """Set the backend outside every :class:`backend`; called once, when the package is imported."""
    global _process
    check_name(name)
    _process = name
    if name != "auto":
        _notice()


def _notice() -> None:
    global ever_forced
    ever_forced = True


def check_name(name: str) -> None:
    if name not in _NAMES:
        raise ValueError(
            f"backend: expected one of {_NAMES}, got {name!r} (argument or FUSED_MIXUP_BACKEND)"
        )


class backend:
    """Force a backend for every op called inside, in this thread (or asyncio task).

    Other threads keep their backend; a new thread, and a data loader's worker that was not forked
    inside, starts with that of FUSED_MIXUP_BACKEND. A backward uses the backend of its forward, in
    whichever thread it runs. Code compiled before is affected too: it recompiles once when the
    process first forces a backend, and from then on looks the backend up at run time, so its
    backward uses the one that is forced where the backward runs.

    Contexts nest, may be left in another order than they were entered, and decorate functions,
    coroutines and generators.

    Args:
        name: ``"auto"``, ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: an unknown name.
        RuntimeError: from the op called inside, where that backend cannot run.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self._own: list[_Entry] = []

    def __enter__(self) -> None:
        _notice()
        entry = _Entry(self.name)
        self._own.append(entry)
        _entered.set((*_entered.get(), entry))

    def __exit__(self, *_: object) -> None:
        # A ContextVar's token would not do: another thread may close a generator, and two of them
        # may exit in the order in which they entered.
        entered = _entered.get()
        here = [entry for entry in entered if entry in self._own]
        entry = (here or self._own)[-1]
        self._own.remove(entry)
        entry.is_open = bool(here)  # contexts copied from this one still hold the entry
        _entered.set(tuple(other for other in entered if other is not entry))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = self.name
        if inspect.isasyncgenfunction(function):
            raise TypeError(
                "backend: expected a function, coroutine or generator to decorate, got an "
                "asynchronous generator; use `with fused_mixup.backend(…):` in it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with backend(name):
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return (yield from _force_steps(name, function(*args, **kwargs)))

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with backend(name):
                    return function(*args, **kwargs)

        return wrapper


def _force_steps(name: str, generator: Generator[None, None, None]) -> Generator[None, None, None]:
    """Run ``generator`` with the backend forced in its steps, and not between them."""
    step: Callable[[], Any] = functools.partial(next, generator)
    while True:
        try:
            with backend(name):
                value = step()
        except StopIteration as stop:
            return stop.value
        try:
            step = functools.partial(generator.send, (yield value))
        except GeneratorExit:
            with backend(name):
                generator.close()
            raise
        except BaseException as error:
            step = functools.partial(generator.throw, error)


# ------------------------------------------------------------------ autograd


def remembers_backend(setup: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of a forward that takes ``ctx`` first: keep the forced backend in ``ctx``."""

    def remember(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx.backend = forced() if ever_forced else "auto"
        return setup(ctx, *args, **kwargs)

    return remember


def recalls_backend(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a backward: force the backend of its forward, in whichever thread it runs."""

    def recall(ctx: Any, *grads: Any) -> Any:
        if not ever_forced or torch.compiler.is_compiling():
            return backward(ctx, *grads)
        with backend(ctx.backend):
            return backward(ctx, *grads)

    return recall
