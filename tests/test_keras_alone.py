"""Without Keras, or with another of its backends, fused_mixup works; fused_mixup.keras says why."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_KERAS = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras":
            raise ModuleNotFoundError("No module named 'keras'", name="keras")
sys.meta_path.insert(0, Block())
"""
OTHER_BACKEND = """
import sys, types
keras = sys.modules["keras"] = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "jax")
"""
OLD = """
import sys, types
keras = sys.modules["keras"] = types.ModuleType("keras")
keras.__version__ = "3.6.0"
keras.backend = types.SimpleNamespace(backend=lambda: "torch")
keras.layers = types.SimpleNamespace()
"""
IMPORT = """
import fused_mixup
assert "MixPlan" in dir(fused_mixup)
try:
    import fused_mixup.keras
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (WITHOUT_KERAS, "got No module named 'keras'; pip install keras, and set KERAS_BACKEND"),
        (OTHER_BACKEND, "got 'jax'; set KERAS_BACKEND=torch before Keras is imported"),
        (OLD, "got 3.6.0; pip install --upgrade keras"),
    ],
)
def test_the_error_says_what_is_missing(before, said):
    code = [sys.executable, "-c", before + IMPORT]
    run = subprocess.run(code, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    assert line.startswith("fused_mixup.keras: expected ") and said in line
