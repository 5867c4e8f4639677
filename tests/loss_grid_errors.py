"""Compares losses of loss_grid_cases.py with their truth in float64, and with eager PyTorch."""

from __future__ import annotations

import torch
from loss_grid_cases import Case
from torch import Tensor

# The unit of errors: the arithmetic type's epsilon, relative to the terms that a row sums.
ACCURACY = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}


class Errors:
    """Our errors and eager PyTorch's, over all cases, in units of the allowed error."""

    def __init__(self) -> None:
        self.ours = self.eager = 0.0

    def check(self, case: Case, loss: Tensor, grad: Tensor, roundings: int = 1) -> None:
        """Compare with float64: NaN in the same places, and errors within eager's and a margin.

        Margin: 8 units in the last place of the largest term, for each term where they are summed
        (a row's loss, or an element's); and ``roundings`` of the gradient to its type.
        """
        true_loss, true_grad = case.by_functional(torch.float64)
        eager_loss, eager_grad = true_loss, true_grad
        if case.acc != torch.float64:
            eager_loss, eager_grad = case.by_functional(case.acc)
        assert loss.dtype == case.acc and loss.shape == true_loss.shape, case
        assert grad.dtype == case.logits.dtype and grad.shape == case.logits.shape, case
        unit = ACCURACY[case.acc] * case.size()
        terms = 1  # terms of that size are summed
        if case.options["reduction"] == "sum":
            terms = true_grad.numel() or 1
            if case.kind == "cross_entropy" or case.options["sum_classes"]:
                terms //= case.logits.shape[1]
        self._compare(case, "loss", loss, eager_loss, true_loss, 8 * unit * max(terms, 1), 1)
        # The gradient subtracts terms as large as the weights; eager's float64 has errors too.
        count = float(case.count()) if case.options["reduction"] == "mean" else 1.0
        scale = 1 / count if count else 1.0
        largest = case.largest_weight()
        margin = 8 * ACCURACY[case.acc] * largest * scale + 2.0**-50 * largest * scale
        if true_grad.numel():
            margin += 8 * unit * float(true_grad.abs().nan_to_num(0).max())
        tiny = torch.finfo(grad.dtype).smallest_normal * torch.finfo(grad.dtype).eps
        self._compare(case, "gradient", grad, eager_grad, true_grad, margin + tiny, roundings)

    def _compare(
        self,
        case: Case,
        what: str,
        ours: Tensor,
        eager: Tensor,
        truth: Tensor,
        margin: float,
        roundings: int,
    ) -> None:
        if truth.numel() == 0:
            return
        assert torch.equal(ours.isnan(), truth.isnan()), f"{what}, NaN: {case!r}"
        keep = ~truth.isnan()
        error = (ours.double() - truth).abs()[keep]
        eager_error = (eager.double() - truth).abs()[keep]
        rounding = roundings * torch.finfo(ours.dtype).eps / 2 * truth[keep].abs()
        bound = torch.maximum(rounding, eager_error) + margin
        wrong = error > bound
        assert not bool(wrong.any()), (
            f"{what}: off by {error[wrong][:4].tolist()}, allowed {bound[wrong][:4].tolist()}, of "
            f"{truth[keep][wrong][:4].tolist()}: {case!r}"
        )
        if roundings == 1 and case.acc != torch.float64 and bool(keep.any()):
            unit = rounding + margin
            self.ours += float((error / unit).mean())
            self.eager += float((eager_error / unit).mean())
