"""The goals: numbers that the cases must reach, and the text of each.

A goal is reached where *all* its ``wants`` hold. ``against`` names a provider whose time over ours
must be at least ``number``. Other values of it: "floor", the least share of the copy floor; "us",
the most microseconds; "above us", the most microseconds above a bare launch; "MiB", the most extra
memory. A goal that no measured case names is listed as not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_MOST = ("us", "above us", "MiB")
BARE = "bare launch"
MIXING = "mixing the batch"
IMAGES = "images alone"
PLAIN = "plain MixUp"


@dataclass(frozen=True)
class Want:
    against: str
    number: float

    @property
    def text(self) -> str:
        if self.against == "floor":
            return f"≥ {self.number:.0%} of the copy floor"
        if self.against == "us":
            return f"≤ {self.number:g} µs"
        if self.against == "above us":
            return f"≤ {self.number:g} µs above a {BARE}"
        if self.against == "MiB":
            return f"≤ {self.number:g} MiB of extra memory"
        return f"≥ {self.number:g}× {self.against}"


@dataclass(frozen=True)
class Goal:
    device: str  # "cpu": 2 cores; "cuda": an H200 or its like
    text: str
    wants: tuple[Want, ...]


def _goal(device: str, text: str, **wants: float) -> Goal:
    names = {
        "timm_lines": "timm's lines",
        "elem_lines": "timm's elem lines",
        "torchvision_lines": "torchvision's lines",
        "compiled": "torch.compile",
        "copy": "copy of N",
        "bytes": "copy of the bytes",
        "flip": "mix_ flip",
        "above_us": "above us",
        "mib": "MiB",
        "liger": "Liger-Kernel",
        "loader": "timm's loader and mixer",
        "mixing": MIXING,
        "images": IMAGES,
        "mixup": PLAIN,
        "openmixup": "OpenMixup",
        "kornia": "Kornia",
        "keras": "Keras",
        "plain": "plain PyTorch",
    }
    return Goal(device, text, tuple(Want(names.get(k, k), v) for k, v in wants.items()))


GOALS: dict[str, Goal] = {
    "cpu flip": _goal("cpu", "mix_ flip", timm_lines=15, copy=1.2),
    "cpu permutation": _goal("cpu", "mix_ random permutation", flip=0.8),
    "cpu cutmix timm": _goal("cpu", "CutMix batch, timm's", timm_lines=15),
    "cpu cutmix torchvision": _goal("cpu", "CutMix batch, torchvision's", torchvision_lines=25),
    "cpu elem": _goal("cpu", "per-sample mode", elem_lines=12),
    "cpu manifold": _goal("cpu", "hidden state mixed, forward and backward", plain=4),
    "cpu normalise": _goal(
        "cpu", "uint8 → normalise → mix → bf16 → channels_last", eager=25, compiled=6, bytes=0.6
    ),
    # Within 20 % of that share.
    "cpu normalise variants": _goal("cpu", "the same of CutMix, NHWC, float32, erased", bytes=0.48),
    "cpu collate": _goal("cpu", "FastCollateMixup, 64 uint8 images", timm=8),
    "cpu naflex": _goal("cpu", "NaFlexMixup, 64 uint8 images of 128² to 384²", timm=6),
    "cpu cross-entropy": _goal(
        "cpu", "sparse cross-entropy forward and backward, 256×21843", timm_lines=8
    ),
    "cpu hard labels": _goal(
        "cpu", "cross-entropy with λ = 1 and ε = 0, 256×21843", **{"F.cross_entropy": 1.5}
    ),
    "cpu segmentation": _goal(
        "cpu", "cross-entropy of maps forward and backward, 8×21×256²", timm_lines=6
    ),
    "cpu linear": _goal("cpu", "linear and loss, 512×1024→100,000", timm_lines=1),
    "cpu binary": _goal("cpu", "binary cross-entropy forward and backward, 256×21843", timm=12),
    "cpu draw": _goal("cpu", "drawing a plan, 256 samples", mixing=10),
    **{
        f"cpu whole sample {mode}": _goal(
            "cpu", f"BatchMix of image, map, 50 boxes and label, {mode}", plain=12, images=0.8
        )
        for mode in ("CutMix", "MixUp")
    },
    "cpu fmix": _goal("cpu", "FMix, whole call", openmixup=20),
    "cpu gridmix": _goal("cpu", "GridMix, whole call", openmixup=15),
    "cpu smoothmix": _goal("cpu", "SmoothMix, whole call", openmixup=10),
    "cpu resizemix": _goal("cpu", "ResizeMix, whole call", openmixup=8),
    "cpu puzzlemix": _goal("cpu", "PuzzleMix behind its graph cut", openmixup=20),
    "cpu attentivemix": _goal("cpu", "AttentiveMix of a map 14², whole call", openmixup=12),
    **{
        f"cpu keras {name}": _goal("cpu", f"Keras' {name}, whole call, channels last", keras=8)
        for name in ("MixUp", "CutMix")
    },
    "cpu stored mask": _goal("cpu", "a stored mask 14², whole step", eager=12),
    "cpu mosaic": _goal("cpu", "mosaic 2×2, whole call", kornia=8),
    "cpu kornia mixup": _goal("cpu", "Kornia's MixUp, whole call", kornia=20),
    "cpu kornia cutmix": _goal("cpu", "Kornia's CutMix, whole call", kornia=20),
    # At most 1.3 times as long.
    "cpu mask flip": _goal("cpu", "mix_ by a mask, flip", mixup=0.77, mib=1),
    "cpu mask permutation": _goal("cpu", "mix by a mask, permutation", mixup=0.77),
    "cpu embeddings": _goal("cpu", "embeddings and masks of text, fwd+bwd", plain=4, eager=4),
    "cuda flip": _goal(
        "cuda", "mix_ flip, bf16, 1024×3×224²", floor=0.95, timm_lines=4.2, compiled=2.2, mib=1
    ),
    "cuda permutation 256": _goal("cuda", "mix_ random permutation, B = 256", floor=0.92),
    "cuda permutation 1024": _goal("cuda", "mix_ random permutation, B = 1024", floor=0.86),
    "cuda cutmix": _goal("cuda", "CutMix, r = 0.25", floor=0.75, timm_lines=3.8),
    "cuda elem": _goal("cuda", "per-sample mode, B = 256", elem_lines=60),
    "cuda normalise": _goal("cuda", "uint8 → … → bf16, same layout", floor=0.88, loader=8),
    "cuda normalise layout": _goal("cuda", "uint8 → … → bf16, changed layout", floor=0.8, loader=8),
    # The share counts 2N bytes: the forward writes the gradient.
    "cuda cross-entropy 65536×1000": _goal(
        "cuda", "sparse cross-entropy, 65536×1000", floor=0.83, timm_lines=5, compiled=1.4
    ),
    "cuda cross-entropy 16384×21841": _goal(
        "cuda", "sparse cross-entropy, 16384×21841", floor=0.9, timm_lines=5, compiled=1.4
    ),
    "cuda cross-entropy 8192×131072": _goal(
        "cuda", "sparse cross-entropy, 8192×131072", floor=0.88, timm_lines=5, compiled=1.4
    ),
    "cuda hard labels": _goal("cuda", "cross-entropy with λ = 1 and ε = 0", liger=1.8),
    "cuda launch-bound": _goal(
        "cuda", "cross-entropy 1024×1000, called from Python", us=25, timm_lines=5
    ),
    "cuda launch-bound graph": _goal("cuda", "cross-entropy 1024×1000, in a CUDA graph", us=8),
    "cuda draw": _goal("cuda", "drawing a plan on the device", us=3),
    "cuda host op": _goal("cuda", "host cost of one op call", above_us=4),
    "cuda host both": _goal("cuda", "host cost of forward and backward", above_us=12),
}


# The README's table: name of the row, op and variant of its case, baseline.
README_ROWS = (
    ("MixUp, flipped batch", "mix_", "flip", "timm's lines"),
    ("MixUp, any permutation", "mix_", "permutation", "eager"),
    ("CutMix, a quarter of each image", "mix_", "CutMix ¼", "timm's lines"),
    ("cross-entropy and gradient", "soft_target_cross_entropy", "fwd+bwd", "timm's lines"),
    ("BCE and gradient", "soft_target_binary_cross_entropy", "fwd+bwd", "timm"),
    ("collating uint8 images", "timm.FastCollateMixup", "MixUp, HWC arrays", "timm"),
)

# A run on a GPU measures these cases first; on a CPU a rehearsal runs them.
HEADLINES = frozenset(
    {
        *("cuda flip", "cuda permutation 1024", "cuda cutmix", "cuda elem"),
        *("cuda cross-entropy 65536×1000", "cuda cross-entropy 16384×21841"),
        *("cpu flip", "cpu permutation", "cpu cutmix timm", "cpu elem"),
        *("cpu cross-entropy", "cpu hard labels"),
    }
)


def figure(want: Want, row: dict) -> float | None:
    """The figure of a results row that ``want`` asks for, or None where it was not measured."""
    providers = row["providers"]
    ours = providers.get("ours")
    if ours is None:
        return None
    if want.against == "floor":
        return ours.get("share_of_floor")
    if want.against == "us":
        return ours["median_ms"] * 1e3
    if want.against == "MiB":
        return ours.get("extra_mib")
    against = BARE if want.against == "above us" else want.against
    if against not in providers:
        return None
    if want.against == "above us":
        return (ours["median_ms"] - providers[against]["median_ms"]) * 1e3
    return providers[against]["median_ms"] / ours["median_ms"]


def judge(report: dict) -> list[dict]:
    """Each goal of the run's device with its figures: reached, missed or not measured.

    Where several rows have a goal, each row gets a verdict of its own.
    """
    found: list[dict] = []
    for name, goal in GOALS.items():
        if goal.device != report["settings"]["device"]:
            continue
        rows = [row for row in report["results"] if name in row["goals"]]
        for row in rows or [None]:
            parts, verdicts = [], []
            for want in goal.wants:
                got = figure(want, row) if row else None
                wanted = {"want": want.text, "number": want.number, "against": want.against}
                parts.append({**wanted, "got": got})
                if got is None:
                    verdicts.append("not measured")
                else:
                    good = got <= want.number if want.against in AT_MOST else got >= want.number
                    verdicts.append("reached" if good else "missed")
            verdict = next((v for v in ("missed", "not measured") if v in verdicts), "reached")
            case = row["case"] if row else None
            found.append(
                {"goal": name, "text": goal.text, "case": case, "parts": parts, "verdict": verdict}
            )
    return found
