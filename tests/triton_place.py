"""Where the Triton kernels run in tests: on a GPU, or without one under Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = (torch.float16, torch.bfloat16)
# The interpreter computes with numpy, which warns of what the tests do on purpose: 0 * inf, log 0.
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")

if INTERPRETED:
    # For every function that a kernel calls, the interpreter patches Triton's language once more,
    # which takes half of its time: once per module is enough.
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
        _patched.clear()  # a launch takes back what it patched when it ends
        return _run(self, *args, **kwargs)

    interpreter.InterpretedFunction.__call__ = _call
    interpreter.InterpretedFunction.run = _launch
