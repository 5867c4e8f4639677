"""Recorded sounds of percussion, from the package FoxDot (CC BY-SA 4.0), which nothing imports.

It holds some 300 recordings, in a folder for each kind; 133 of them are of the seven kinds here.
Other packages of audio fetch their recordings from a network when they are asked for them.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

RATE = 16000
# Folders of FoxDot/snd, which are named by the key that plays a sound.
KINDS = {
    "kick": "a/upper v/lower v/upper w/upper x/lower x/upper",
    "snare": "d/upper i/lower i/upper o/lower o/upper u/lower",
    "hi-hat": "_/colon _/equals _/hyphen a/lower n/lower n/upper",
    "clap": "_/asterix h/upper",
    "tom": "m/lower m/upper",
    "tabla": "p/lower p/upper",
    "metal": "r/lower r/upper t/upper",
}


def folder() -> Path | None:
    """Where the recordings lie; None where the package is not installed."""
    spec = importlib.util.find_spec("FoxDot")  # importing it would look for a synthesizer
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(p, "snd") for p in places if Path(p, "snd").is_dir()), None)


@cache
def recordings(length: int) -> tuple[Tensor, Tensor]:
    """(waves [N, length] float32 at 16 kHz, each with its loudest sample at ±1; labels [N])."""
    place = folder()
    if place is None:
        raise SystemExit("examples.audio needs the recordings of FoxDot; pip install FoxDot")
    waves, labels = [], []
    for label, names in enumerate(KINDS.values()):
        for path in sorted(file for name in names.split() for file in (place / name).glob("*.wav")):
            waves.append(read(path, length))
            labels.append(label)
    return torch.stack(waves), torch.tensor(labels)


def read(path: Path, length: int) -> Tensor:
    """The first ``length`` samples of a recording, in mono, followed by silence where it ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
        rate, values = wavfile.read(path)
    values = values.astype(np.float64)
    mono = values.mean(1) if values.ndim == 2 else values
    step = gcd(rate, RATE)
    mono = resample_poly(mono, RATE // step, rate // step)[:length]
    mono = mono / max(np.abs(mono).max(), 1e-9)
    return torch.from_numpy(np.pad(mono, (0, length - len(mono)))).float()
