"""Tests run the Triton kernels on a GPU, or without one in Triton's interpreter."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = (torch.float16, torch.bfloat16)
# The interpreter uses NumPy, which warns of operations that tests do on purpose: 0 * inf, log 0.
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")

if INTERPRETED:
    import triton_programs

    triton_programs.watch()

    # The interpreter patches Triton's language again for every function that a kernel calls, which
    # takes half of its time: once per module is enough.
    from triton.runtime import interpreter

    _patched: set[str] = set()

    def _call(self, *args, **kwargs):
        module = self.fn.__module__
        if module not in _patched:
            interpreter._patch_lang(self.fn)
            _patched.add(module)
        return self.rewrite()(*args, **kwargs)

    _run = interpreter.InterpretedFunction.run

    def _launch(self, *args, **kwargs):
        _patched.clear()  # a launch undoes its patches when it ends
        return _run(self, *args, **kwargs)

    # It also works out whether each sum of integers overflows, and reports it in debug mode alone.
    interpreter.interpreter_builder.options = dataclasses.replace(
        interpreter.interpreter_builder.options, sanitize_overflow=False
    )
    interpreter.InterpretedFunction.__call__ = _call
    interpreter.InterpretedFunction.run = _launch
