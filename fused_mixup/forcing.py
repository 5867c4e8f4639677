"""Which backend is forced where a call is made: per thread, per asyncio task.

What is forced stands in a ``ContextVar``. A new thread starts with the default of the process
(FUSED_MIXUP_BACKEND), a task with what held where it was made, a forked process with what held in
the thread that forked.
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

# Whether anything was forced in this process so far. Until then the ops are called as they are;
# and Dynamo, which cannot trace a ContextVar, guards on it.
ever_forced = False

_process = "auto"  # what holds outside of every backend()


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
    """What holds outside of every :class:`backend`; called once, when the package is imported."""
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

    Other threads keep what they have; a new thread starts with FUSED_MIXUP_BACKEND's, and workers
    of a data loader that are not forked inside know that variable alone. A backward uses what its
    forward used, wherever it runs. It also reaches code compiled before, which is compiled once
    more where a backend is forced for the first time in the process; such code asks at run time,
    so that its backward uses what is forced where the backward runs.

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
        # Without the token of a ContextVar: a generator may be closed by another thread, and two
        # of them may leave in the order in which they came.
        entered = _entered.get()
        here = [entry for entry in entered if entry in self._own]
        entry = (here or self._own)[-1]
        self._own.remove(entry)
        entry.is_open = bool(here)  # still in the contexts that were copied from this one
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
            async def inside(*args: Any, **kwargs: Any) -> Any:
                with backend(name):
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def inside(*args: Any, **kwargs: Any) -> Any:
                return (yield from _steps_inside(name, function(*args, **kwargs)))

        else:

            @functools.wraps(function)
            def inside(*args: Any, **kwargs: Any) -> Any:
                with backend(name):
                    return function(*args, **kwargs)

        return inside


def _steps_inside(name: str, generator: Generator[None, None, None]) -> Generator[None, None, None]:
    """``generator``, with the backend forced while it runs and not between its steps."""
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
    """For a function of a forward that takes ``ctx`` first: what is forced is kept in ``ctx``."""

    def remember(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx.backend = forced() if ever_forced else "auto"
        return setup(ctx, *args, **kwargs)

    return remember


def recalls_backend(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For a backward: what its forward remembered is forced, in whichever thread it runs."""

    def recall(ctx: Any, *grads: Any) -> Any:
        if not ever_forced or torch.compiler.is_compiling():
            return backward(ctx, *grads)
        with backend(ctx.backend):
            return backward(ctx, *grads)

    return recall
