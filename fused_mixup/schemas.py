"""The schema of every op, and what its arguments mean.

Arguments that recur:
    partner   int32 [B] on the device of x, or None where ``pairing`` (see ``codes.py``) is a rule
    blend     float64 [B, 2];  box  int32 [B, 2·D];  weight  float32 [B, 2].  Where these are one
              row on the CPU (stride 0, or B <= 1) kernels on any device take it by value.
    logits    [B, K, d1…]: a row for each sample and position, the classes along dim 1
    target    of the logits' shape, in their dtype or float32 where that is a half type (then
              partner_labels and weight are None); or int64 labels [B, d1…]
    class_weight, pos_weight  [K], in the arithmetic type (float64 for float64, else float32)
    ignore_index  NO_IGNORE for none. Terms with such a label are left out; a row without others
              (of weight other than 0) has loss 0 and gradient 0, and does not count
    target_smoothing, label_smoothing  ε of the sparse target, and ε on top of any target
    focal_gamma  γ >= 0: the loss of a class of probability p is (1-p)^γ (-log p)
    z_loss  z >= 0: a row that is not ignored has the loss z · logsumexp(logits)² on top
    reduction 0 mean, 1 sum, 2 none
    grad_loss in the arithmetic type: [], or of the loss's shape for reduction none
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

_TARGET = "Tensor target, Tensor? partner_labels, Tensor? weight, Tensor? class_weight"
_CROSS_ENTROPY = (
    f"{_TARGET}, int ignore_index, float target_smoothing, float label_smoothing, "
    "float focal_gamma, float z_loss, int reduction"
)
_BINARY = (
    f"{_TARGET}, Tensor? pos_weight, float target_smoothing, float? target_threshold, "
    "float focal_gamma, int reduction, bool sum_classes"
)


_PLAN = "Tensor? partner, Tensor blend, Tensor box, int pairing"
_MASK = (
    "Tensor? code, Tensor? threshold, Tensor? rows, Tensor? columns, Tensor? map, int interpolation"
)


class MaskArguments(NamedTuple):
    """The mask of each sample over the last two dims [H, W]; dim 0 may be one row, expanded."""

    code: Tensor | None  # int32 [B], see codes.py; None: no sample has one
    threshold: Tensor | None  # float32 [B]
    rows: Tensor | None  # float32 [B, R, H], R <= MASK_RANK; None: no mask is separable
    columns: Tensor | None  # float32 [B, R, W]
    map: Tensor | None  # [B, h, w], bool, uint8 or a float; None: no mask is stored
    interpolation: int  # of the map to [H, W]


class CrossEntropyArguments(NamedTuple):
    """What every op of the cross-entropy takes after the logits; two ops take ``ranks`` too."""

    target: Tensor  # [B, K, …], or int64 [B, …]
    partner_labels: Tensor | None  # int64 [B, …]
    weight: Tensor | None  # float32 [B, 2]
    class_weight: Tensor | None  # [K]
    ignore_index: int
    target_smoothing: float
    label_smoothing: float
    focal_gamma: float
    z_loss: float
    reduction: int


def focal_everywhere(a: CrossEntropyArguments) -> bool:
    """Whether more classes than two labels have a focal term: the kernels have no such sweep.

    It would need the normaliser of the row before its terms, and a power for each class. (No
    property of the class: PyTorch 2.10's Dynamo cannot trace one.)
    """
    smooth = a.target_smoothing != 0 or a.label_smoothing != 0
    return a.focal_gamma != 0 and (a.partner_labels is None or smooth)


def has_many_labels(weight: Tensor | None) -> bool:
    """Whether rows have k > 2 labels: weight is [B, k], and partner_labels [B, k-1, d1…].

    The kernels take two: ``losses/many_labels.py`` is made of them; plain PyTorch takes any.
    """
    return weight is not None and weight.shape[1] > 2


class BinaryCrossEntropyArguments(NamedTuple):
    """What every op of the binary cross-entropy takes after the logits."""

    target: Tensor  # [B, K, …], or int64 [B, …]
    partner_labels: Tensor | None  # int64 [B, …]
    weight: Tensor | None  # float32 [B, 2]
    class_weight: Tensor | None  # [K]
    pos_weight: Tensor | None  # [K]
    target_smoothing: float
    target_threshold: float | None
    focal_gamma: float
    reduction: int
    sum_classes: bool


SCHEMAS = {
    # Returns partner, weight, blend, box; docs/drawing.md specifies every bit. state int64 [4] on
    # the device of the plan; settings float64 [6] there or on the CPU; labels int64 [B] for
    # CROSS_CLASS, partner int32 [B] for TENSOR, else None. samples int32 [B]: the samples' indices
    # in a larger batch, in which partners are given; each draws what it would draw there. The
    # kernel advances the state.
    "draw_plan": "(Tensor(a!) state, Tensor settings, Tensor? labels, Tensor? partner, "
    "SymInt batch_size, SymInt[] spatial, int per, int pairing, bool correct_lam, "
    "bool symmetric, Tensor? samples=None) -> (Tensor, Tensor, Tensor, Tensor)",
    # The same with the variants ``kinds`` (codes.py), of which each unit draws one. settings are
    # float64 [1 + 10 M]. Returns after box [B, 4] the mask: code int32 [B], threshold float32 [U],
    # rows float32 [U, rank, height], columns float32 [U, rank, width], where U is 1 for BATCH and
    # else B; and int32 [B, 4], [0, 4] without RESIZEMIX, the box that takes the whole partner.
    "draw_variants": "(Tensor(a!) state, Tensor settings, Tensor? labels, Tensor? partner, "
    "int[] kinds, SymInt batch_size, SymInt height, SymInt width, int rank, int per, int pairing, "
    "bool correct_lam, bool symmetric, Tensor? samples=None) -> (Tensor partner, Tensor weight, "
    "Tensor blend, Tensor box, Tensor code, Tensor threshold, Tensor rows, Tensor columns, "
    "Tensor resize_box)",
    # Returns box int32 [B, max_count, 4], value, noise, as in Erasing: value float32 [1, 1, C] of
    # ``fill`` for CONST, [B, max_count, channels] for RAND, else [0]; noise int64 [B] for PIXEL,
    # else [0]. state and settings (float64 [5]) as above; samples below ``clean`` have no boxes.
    "draw_erasing": "(Tensor(a!) state, Tensor settings, float[] fill, SymInt batch_size, "
    "SymInt height, SymInt width, int max_count, int channels, int erase_mode, SymInt clean) "
    "-> (Tensor box, Tensor value, Tensor noise)",
    # Returns int32 [B]: for each of labels [B, D] (float32, float64) a sample of pool [N, D] (None:
    # of labels) whose label is near by. settings float64 [1]: the bandwidth.
    "draw_neighbors": "(Tensor(a!) state, Tensor settings, Tensor labels, Tensor? pool, "
    "int kernel) -> Tensor",
    "mix_": "(Tensor(a!) x, Tensor? partner, Tensor blend, Tensor box, int pairing) -> ()",
    "mix": "(Tensor x, Tensor? partner, Tensor blend, Tensor box, int pairing) -> Tensor",
    "mix_out": "(Tensor x, Tensor? partner, Tensor blend, Tensor box, int pairing, "
    "Tensor(a!) out) -> ()",
    # grad_j = own part of j, plus the partner parts of the rows i whose partner is j, which are
    # i in sources[offsets[j]:offsets[j+1]] (None where pairing is a rule). As the transpose of
    # `mix` it reads the partner weight and the box of row i, not of row j.
    "mix_backward": "(Tensor grad, Tensor? partner, Tensor? sources, Tensor? offsets, "
    "Tensor blend, Tensor box, int pairing) -> Tensor",
    "paste_": "(Tensor(a!) x, Tensor? partner, Tensor box, int pairing) -> ()",
    # out [n, …] takes the first n of the len(samples) mixes; the plan has a row for each sample.
    "mix_samples": "(Tensor[] samples, Tensor? partner, Tensor blend, Tensor box, int pairing, "
    "Tensor(a!) out) -> ()",
    # images: B of [C, Hi, Wi], of one C. In region int32 [B, 6] (top, left, the same two in the
    # partner, height, width; what lies outside of either is left out) each is blended with its
    # partner. out [N], the elements of all, takes one after the other, [C, H, W] or [H, W, C].
    "mix_ragged": "(Tensor[] images, Tensor partner, Tensor blend, Tensor region, "
    "bool channels_last, Tensor(a!) out) -> ()",
    # out [B, C, H, W], float16, bfloat16 or float32, takes the normalised, mixed and erased images.
    # images: one tensor [B, C, H, W], or on the CPU B tensors [C, H, W]; uint8, float16, bfloat16
    # or float32. mean, std: one for each channel, in the units of the images. flip bool [B].
    # erase_box int32 [B, N, 4]; what fills them is erase_value float32 [B or 1, N or 1, C or 1], or
    # noise of erase_noise int64 [B] (docs/drawing.md); a later box covers an earlier one. first:
    # mix, then normalise. The order: flip, mix and normalise, erase, one rounding.
    "mix_normalize": "(Tensor[] images, Tensor? partner, Tensor blend, Tensor box, int pairing, "
    "float[] mean, float[] std, Tensor? flip, Tensor? erase_box, Tensor? erase_value, "
    "Tensor? erase_noise, bool first, Tensor(a!) out) -> ()",
    # out [B, …, H', W'] = x, or with ``fill`` a canvas of any size, under up to four rectangles of
    # each sample: source_box[i, k] of sample source[i, k] of other [M, …] (or x) goes to box[i, k],
    # a later one over an earlier one. source int32 [B, R]; boxes int32 [B, R, 4], top, left,
    # bottom, right. scale float32 [B, R, 2]: steps in the source for each step, where the ratio of
    # the sizes does not tell. resample: see codes.py.
    "mix_rectangles": "(Tensor x, Tensor? other, Tensor source, Tensor source_box, Tensor box, "
    "Tensor? scale, int resample, float? fill, Tensor(a!) out) -> ()",
    # out = x whose patches are taken from elsewhere: patch j of sample i is patch index[i, j] of
    # sample[i, j], zeros where index is below 0; with a mask [B, mh, mw] float32 it is blended with
    # those that partner and partner_index name. index int32 [B, gh, gw], None for j; sample int32
    # [B] or [B, gh, gw], None for i.
    "mix_patches": "(Tensor x, Tensor? sample, Tensor? index, Tensor? partner, "
    "Tensor? partner_index, Tensor? mask, Tensor(a!) out) -> ()",
    # ------------------------------------------------------------ masks
    # x_p in box_i, else m x_i + (1 - m) x_p with the mask m of sample i, or, where its code is 0,
    # the blend of `mix`.
    "mix_masked": f"(Tensor x, {_PLAN}, {_MASK}) -> Tensor",
    # The partners are taken from other [M, …] where it is given. clean: out [2B, …] takes x, and
    # behind it the mixed batch.
    "mix_masked_out": f"(Tensor x, Tensor? other, {_PLAN}, {_MASK}, bool clean, "
    "Tensor(a!) out) -> ()",
    # In place; pairing is FLIP or SELF.
    "mix_masked_": f"(Tensor(a!) x, {_PLAN}, {_MASK}) -> ()",
    # The transpose of mix_masked; sources and offsets as in mix_backward.
    "mix_masked_backward": "(Tensor grad, Tensor? partner, Tensor? sources, Tensor? offsets, "
    f"Tensor blend, Tensor box, int pairing, {_MASK}) -> Tensor",
    # float32 [B]: the mean of m over [height, width], of its values rounded to 2^-24; 1 where the
    # code is 0.
    "mask_mean": "(Tensor code, Tensor threshold, Tensor? rows, Tensor? columns, Tensor? map, "
    "int interpolation, SymInt height, SymInt width) -> Tensor",
    "mix_targets": "(Tensor labels, Tensor? partner, Tensor weight, int pairing, "
    "int num_classes, float label_smoothing, ScalarType dtype) -> Tensor",
    # int64 [2]: the smallest and the largest of labels […], integers, that are not ignore_index;
    # (0, -1) where there are none.
    "label_bounds": "(Tensor labels, int ignore_index) -> Tensor",
    # ------------------------------------------------------------ boxes
    # boxes [B, N, 4] (x1, y1, x2, y2), float32 or float64; count int32 or int64 [B], None for N;
    # box int32 [B, 0 or 4]. Returns boxes [B, 2·N, 4] that are seen, the sample's own first;
    # source int32 [B, 2·N], their places in [own | partner's]; weight float32 [B, 2·N]; count int32
    # [B]. What lies behind the count of a sample is 0, in source -1.
    "mix_boxes": "(Tensor boxes, Tensor? count, Tensor? partner, Tensor blend, Tensor box, "
    "int pairing, float min_visible) -> (Tensor boxes, Tensor source, Tensor weight, Tensor count)",
    # The same for boxes [T, 4] of B samples, one after the other: returns boxes [M, 4], source
    # int64 [M] (rows of the argument), weight [M], count int32 [B].
    "mix_boxes_packed": "(Tensor boxes, int[] counts, Tensor? partner, Tensor blend, Tensor box, "
    "int pairing, float min_visible) -> (Tensor boxes, Tensor source, Tensor weight, Tensor count)",
    # ------------------------------------------------------------ losses
    # After the loss: stats [3, B, d1…] (max z, log Σ exp(z - max z) and what multiplies the softmax
    # in the gradient: Σ w t', or with γ and z Σ w t' h(p) + 2 z logsumexp (reference/focal.py), so
    # that the backward is one sweep for dense targets too); count [], the number of rows that are
    # not ignored; label_ranks int32 [2, B, d1…] of both labels if ``ranks``, else [0]. Kernels
    # refuse γ where focal_everywhere() holds; the reference takes it.
    "soft_target_cross_entropy": f"(Tensor logits, {_CROSS_ENTROPY}, bool ranks) "
    "-> (Tensor loss, Tensor stats, Tensor count, Tensor label_ranks)",
    "soft_target_cross_entropy_backward": "(Tensor grad_loss, Tensor logits, Tensor stats, "
    f"Tensor count, {_CROSS_ENTROPY}) -> Tensor",
    # Writes the gradient over the logits.
    "soft_target_cross_entropy_backward_": "(Tensor grad_loss, Tensor(a!) logits, Tensor stats, "
    f"Tensor count, {_CROSS_ENTROPY}) -> ()",
    # Computes the gradient for an upstream gradient of one in the same pass as the loss.
    "soft_target_cross_entropy_grad": f"(Tensor logits, {_CROSS_ENTROPY}, bool ranks) "
    "-> (Tensor loss, Tensor grad, Tensor label_ranks)",
    # x *= factor, a scalar on the device of x; a factor of exactly one writes nothing.
    "scale_": "(Tensor(a!) x, Tensor factor) -> ()",
    # Returns int32 [1 or 2, B, d1…]: how many classes rank ahead of each label.
    "label_ranks": "(Tensor logits, Tensor labels, Tensor? partner_labels) -> Tensor",
    "soft_target_binary_cross_entropy": f"(Tensor logits, {_BINARY}) -> Tensor",
    "soft_target_binary_cross_entropy_backward": "(Tensor grad_loss, Tensor logits, "
    f"{_BINARY}) -> Tensor",
    "soft_target_binary_cross_entropy_backward_": "(Tensor grad_loss, Tensor(a!) logits, "
    f"{_BINARY}) -> ()",
    "soft_target_binary_cross_entropy_grad": f"(Tensor logits, {_BINARY}) "
    "-> (Tensor loss, Tensor grad)",
}

# The inputs of these ops live on the host: they have native kernels on the CPU and no device
# kernels; elsewhere they fall back to the reference.
CPU_ONLY = frozenset({"label_bounds", "mix_boxes_packed", "mix_ragged", "mix_samples"})

# These have no kernel in a backend (name, device); the reference runs on that device instead.
_TRITON = frozenset({("triton", "CPU"), ("triton", "CUDA")})
WITHOUT_KERNEL = {"draw_variants": _TRITON, "draw_neighbors": _TRITON}
