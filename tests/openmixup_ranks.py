"""What one rank of several does with ``dist_mode``, by OpenMixup's functions and ours."""

from __future__ import annotations

import hashlib

import torch
from openmixup_cases import flat, pretended_opencv, seed_all

from benchmarks import installed_openmixup
from fused_mixup import openmixup

CALLS = {
    "mixup": {},
    "cutmix": {"lam": 0.5, "return_mask": True},
    "fmix": {"size": (16, 16)},
    "gridmix": {"n_holes": (2, 3), "return_mask": True},
    "smoothmix": {"return_mask": True},
    "resizemix": {"lam": 0.4, "return_mask": True},
    "saliencymix": {"lam": 0.5},
    "transmix": {
        "mask": torch.ones(3, 1, 16, 16).tril(),
        "lam": 0.4,
        "attn": torch.arange(3 * 5 * 5.0).view(3, 1, 5, 5),
        "patch_shape": (2, 2),
    },
}


def batches(rank, views):
    generator = torch.Generator().manual_seed(rank)
    shape = (3, 2, 3, 16, 16) if views else (3, 3, 16, 16)
    return torch.randn(shape, generator=generator), torch.arange(3) + 10 * rank


def run(rank, theirs):
    """Digests of what each call returns, on this rank."""
    torch.distributed.init_process_group("gloo")
    found = []
    for name, keywords in CALLS.items():
        module = installed_openmixup.load_file(name) if theirs else None
        function = installed_openmixup.mix(name) if theirs else getattr(openmixup, name)
        more = {} if theirs else {"compat": True}
        for views in (False, True):
            for labelled in (True, False):
                x, y = batches(rank, views)
                seed_all(rank)  # every rank draws its own permutation; rank 0's is used
                with pretended_opencv(module if name == "saliencymix" else None):
                    result = function(
                        x, y if labelled else None, dist_mode=True, **keywords, **more
                    )
                found.append(f"{name} {views} {labelled} {digest(flat(result))}")
    torch.distributed.destroy_process_group()
    return found


def digest(values):
    text = hashlib.md5()
    for value in values:
        is_tensor = isinstance(value, torch.Tensor)
        data = value.contiguous().numpy().tobytes() if is_tensor else repr(value).encode()
        text.update(f"{type(value)} {getattr(value, 'dtype', '')}".encode() + data)
    return text.hexdigest()
