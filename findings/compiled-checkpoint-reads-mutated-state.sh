#!/usr/bin/env bash
# PyTorch 2.13.0: a compiled checkpoint recomputes with the counter that its forward has mutated.
#
# A custom op returns a value that depends on a counter, and adds one to the counter in place (as a
# random stream does). In a compiled checkpointed region the counter is incremented once, as it
# should be. But the recompute in the backward reads the counter after the increment, so that the
# gradient belongs to another value than the loss. No warning, no error; the schema says Tensor(a!)
# and opcheck passes. One would guess that an input which the graph mutates is saved before the
# mutation where a recompute needs it.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import logging, sys, torch
from torch.utils.checkpoint import checkpoint
logging.disable(logging.ERROR)

@torch.library.custom_op("finding::next_scale", mutates_args={"counter"})
def next_scale(counter: torch.Tensor) -> torch.Tensor:
    value = 2.0 ** counter.double()  # 1, 2, 4, 8, ...
    counter.add_(1)
    return value

@next_scale.register_fake
def _(counter):
    return counter.new_empty(counter.shape, dtype=torch.float64)

def step(x, counter):
    # squared, so that the backward needs a tensor of the region, and recomputes it
    return checkpoint(lambda x: (x * next_scale(counter)) ** 2, x, use_reentrant=False).sum()

def run(f):
    x, counter = torch.ones((), dtype=torch.float64, requires_grad=True), torch.ones(1, dtype=torch.int64)
    loss = f(x, counter)
    loss.backward()
    return loss.item(), x.grad.item(), counter.item()

loss, gradient, counter = run(torch.compile(step, backend="aot_eager"))
print(f"torch {torch.__version__}: loss {loss} (scale 2), gradient {gradient} where 8.0 is right, counter {counter}")
sys.exit((loss, gradient, counter) != (4.0, 32.0, 2))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: torch 2.13.0+cpu: loss 4.0 (scale 2), gradient 32.0 where 8.0 is right, counter 2
