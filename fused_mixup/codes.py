"""Integers that Python, C++ and Triton share, by their names.

C++ defines them in ``csrc/common`` (draw.h, layout.h, arguments.h); tests compare the two.
"""

from __future__ import annotations

# How the kernels find the partner of sample i in a batch of B.
TENSOR, FLIP, ROLL, SELF = range(4)  # partner[i], B-1-i, (i-1) mod B, i
PAIRINGS = {"tensor": TENSOR, "flip": FLIP, "roll": ROLL, "self": SELF}
# Only draw_plan knows these; the plan that it draws holds them as a tensor.
SHUFFLE, DERANGEMENT, CROSS_CLASS = range(4, 7)
DRAWN_PAIRINGS = {
    "flip": FLIP,
    "roll": ROLL,
    "shuffle": SHUFFLE,
    "derangement": DERANGEMENT,
    "cross_class": CROSS_CLASS,
}

# How a loss is reduced: to one number for the batch, or not, to one for each row.
MEAN, SUM, NONE = range(3)
REDUCTIONS = {"mean": MEAN, "sum": SUM, "none": NONE}

# How mix_rectangles finds the values of a rectangle in its source: as they are, the nearest, or
# interpolated, with align_corners False or True.
RAW, RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_ALIGNED = range(4)
RESAMPLES = {
    "none": RAW,
    "nearest": RESIZE_NEAREST,
    "bilinear": RESIZE_BILINEAR,
    "bilinear_aligned": RESIZE_ALIGNED,
}
MAX_RECTANGLES = 4  # of a sample

IGNORE_INDEX = -100  # PyTorch's default
NO_IGNORE = -(2**63)  # for ops: no label is ignored

MAX_DIMS = 12  # dims of a sample that kernels can walk; kMaxDims in csrc/common/layout.h
MAX_SPATIAL = 3  # dims of a box
MAX_CHANNELS = 64  # of images that are normalised; kMaxChannels in csrc/common/layout.h

# ------------------------------------------------------------------ masks

# ``code`` of a sample's mask: 0 for none, else its form + what follows + MASK_INVERT for 1 - m.
MASK_SEPARABLE, MASK_STORED = 1, 2  # Σ_k rows[k, y] · columns[k, x]; a map, upsampled
# m = s; 1 where s is above the threshold; 1 where the whole number s is odd; 1 / (1 + exp(-s)).
MASK_IDENTITY, MASK_THRESHOLD, MASK_PARITY, MASK_SIGMOID = 0, 4, 8, 12
MASK_INVERT = 16
MASK_FORM, MASK_FUNCTION = 3, 12  # the bits of a code that tell them
MASK_RANK = 4  # products in the sum of a separable mask, at most
MASK_SCALE = 1 << 24  # masks are summed as whole numbers of 2^-24, in any order to the same bits
NEAREST, BILINEAR = range(2)
INTERPOLATIONS = {"nearest": NEAREST, "bilinear": BILINEAR}

# ------------------------------------------------------------------ draw_plan, see docs/drawing.md

# How samples share their draws.
BATCH, PAIR, SAMPLE = range(3)
PER = {"batch": BATCH, "pair": PAIR, "sample": SAMPLE}

# The position of each word in a state.
VERSION_WORD, SEED_WORD, STREAM_WORD, STEP_WORD = range(4)
STATE_WORDS = 4
STATE_VERSION = 0x464D_0001

# The position of each number in ``settings``. α <= 0 turns a mode off, MINMAX_HIGH = 0 the bounds.
MIXUP_ALPHA, CUTMIX_ALPHA, SWITCH_PROB, PROB, MINMAX_LOW, MINMAX_HIGH = range(6)
SETTINGS = 6

# What each draw of a sample is for: the low half of the counter's second word.
DRAW_MODE, DRAW_PLACE, DRAW_SIDE, DRAW_BOOST, DRAW_ORDER, DRAW_SHIFT = range(6)
DRAW_GAMMA = 16  # 16 + 2·attempt + 0 or 1 for the first or the second gamma deviate

# An attempt fails with a probability below 0.049, all of them with one below 1e-31.
MAX_ATTEMPTS = 24

MAX_BATCH = 1 << 16  # an index fills the low 16 bits of a sorting key

# ------------------------------------------------------------------ draw_erasing, likewise

# What fills the erased boxes: given values, a colour for each box, noise for each pixel.
CONST, RAND, PIXEL = range(3)
ERASE_MODES = {"const": CONST, "rand": RAND, "pixel": PIXEL}

# The position of each number in the ``settings`` of draw_erasing.
ERASE_PROB, AREA_LOW, AREA_HIGH, ASPECT_LOW, ASPECT_HIGH = range(5)
ERASE_SETTINGS = 5

# These draws share counters with those of draw_plan, and so have other numbers.
DRAW_ERASE, DRAW_NOISE = 64, 65
DRAW_ERASED_BOX = 128  # 128 + 16·box + attempt
DRAW_COLOR = 4096  # 4096 + 32·box + channel div 2

ERASE_ATTEMPTS = 10  # as in timm; a box that no attempt fits into the image is left out
MAX_ERASED = 64  # boxes of a sample

# ------------------------------------------------------------------ draw_variants, likewise

VARIANTS = {
    "mixup": 0,
    "cutmix": 1,
    "hmix": 2,
    "gridmix": 3,
    "smoothmix": 4,
    "gmix": 5,
    "fmix": 6,
    "specmix": 7,
    "cutmix_seg": 8,
    "resizemix": 9,
}
MIXUP, CUTMIX, HMIX, GRIDMIX, SMOOTHMIX, GMIX, FMIX, SPECMIX, CUTMIX_SEG, RESIZEMIX = range(10)

# The products in the sum of their masks, where they have one; cutmix_seg has one for each box.
VARIANT_RANKS = {GRIDMIX: 1, SMOOTHMIX: 1, GMIX: 1, FMIX: 3, SPECMIX: 1, CUTMIX_SEG: 1}

# ``settings`` of draw_variants: the probability that a row is mixed, then for each variant the
# running sum of the variants' probabilities, α, and eight numbers of its own.
VARIANT_NUMBERS = 10
MAX_VARIANTS = 16
MAX_MASK_SIZE = 1 << 16  # of a side of an image whose mask is drawn

DRAW_SHAPE, DRAW_BANDS = 6, 7
DRAW_SQUARE = 8  # 8 + box of cutmix_seg, up to 11
DRAW_FREQUENCY = 8192  # 8192 + frequency of fmix

# ------------------------------------------------------------------ draw_neighbors, likewise

GAUSSIAN, TOPHAT = range(2)
NEIGHBOR_KERNELS = {"gaussian": GAUSSIAN, "tophat": TOPHAT}
DRAW_NEIGHBOR = 66
WEIGHT_SCALE = 1 << 32  # weights are whole numbers, summed in any order to the same bits
MAX_POOL = 1 << 30  # so that their sum has 63 bits

# ------------------------------------------------------------------ mix_normalize

NOISE_TAG = 0x4E4F4953  # the last word of the counter of noise
