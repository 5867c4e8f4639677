"""What NaFlexMixup refuses: timm's types of errors, before anything is drawn."""

from __future__ import annotations

import pytest
import torch
from peers import timm
from test_timm_naflex import K, seed_all, state
from timm.data import naflex_mixup as theirs

import fused_mixup as fm
from fused_mixup import backends
from fused_mixup import timm as ours

assert timm is not None
IMAGE, LABELS = torch.ones(3, 8, 9), [1, 2]


@pytest.mark.parametrize(
    ("imgs", "targets", "error", "says"),
    [
        ([IMAGE, torch.ones(1, 8, 9)], LABELS, RuntimeError, r"imgs\[1\]: expected 3 channels"),
        ([IMAGE[0], IMAGE], LABELS, IndexError, r"imgs\[0\]: expected an image \[C, H, W\]"),
        ([IMAGE, IMAGE[None]], LABELS, ValueError, r"imgs\[1\]: expected an image \[C, H, W\]"),
        ([IMAGE, IMAGE[:, :0]], LABELS, ZeroDivisionError, r"imgs\[1\]: expected at least a"),
        ([IMAGE[:, :, :0], IMAGE], LABELS, ZeroDivisionError, r"imgs\[0\]: expected at least a"),
        ([IMAGE, IMAGE], [1], IndexError, "targets: expected 2, one for each image, got 1"),
        ([], [], IndexError, "targets: expected at least one"),
    ],
)
def test_timms_types_of_errors(imgs, targets, error, says):
    for of, message in ((theirs, None), (ours, says)):
        for kw in ({"cutmix_alpha": 0.0}, {"mixup_alpha": 0.0}):
            seed_all(1)
            before = state()
            with pytest.raises(error, match=message):
                of.NaFlexMixup(num_classes=K, **kw)(imgs, targets)
            assert of is theirs or state() == before


@pytest.mark.parametrize(
    ("imgs", "targets", "error", "says"),
    [
        ([IMAGE, IMAGE.double()], LABELS, TypeError, r"imgs\[1\]: expected torch.float32"),
        ([IMAGE.long()] * 2, LABELS, TypeError, "imgs: expected float16"),
        ([IMAGE, IMAGE.numpy()], LABELS, TypeError, r"imgs\[1\]: expected a tensor"),
        ([None, IMAGE], LABELS, TypeError, r"imgs\[0\]: expected a tensor"),
        ([IMAGE, IMAGE.to_sparse()], LABELS, TypeError, r"imgs\[1\]: expected a dense tensor"),
        ([IMAGE, IMAGE.to("meta")], LABELS, RuntimeError, r"imgs\[1\]: expected it on cpu"),
        ([IMAGE, IMAGE], [1, 2, 3], ValueError, r"expected class indices \[2\]"),
        ([IMAGE, IMAGE], [1, K], IndexError, "check num_classes"),
        ([IMAGE, IMAGE], [1, -1], IndexError, "check num_classes"),
        ([IMAGE, IMAGE], torch.tensor([0.5, 1]), TypeError, "fractions"),
        ([IMAGE, IMAGE], torch.ones(2, K), ValueError, "set multi_label=True"),
        ([IMAGE, IMAGE], ["a", "b"], TypeError, "targets: expected labels that are class"),
    ],
)
def test_what_else_is_refused(imgs, targets, error, says):
    seed_all(1)
    before = state()
    with pytest.raises(error, match=says):
        ours.NaFlexMixup(num_classes=K)(imgs, targets)
    assert state() == before


@pytest.mark.parametrize(
    ("kw", "error", "says"),
    [
        ({"num_classes": 0}, ValueError, "num_classes"),
        ({"mixup_alpha": -1.0}, ValueError, "mixup_alpha"),
        ({"cutmix_alpha": "a"}, TypeError, "cutmix_alpha: expected a number"),
        ({"prob": 2}, ValueError, r"prob: expected a number in \[0, 1\]"),
        ({"label_smoothing": 2.0}, ValueError, "label_smoothing"),
        ({"local_shuffle": 2.5}, TypeError, "local_shuffle: expected an int"),
        ({"sparse_targets": True, "multi_label": True}, ValueError, "sparse_targets"),
    ],
)
def test_bad_settings(kw, error, says):
    with pytest.raises(error, match=says):
        ours.NaFlexMixup(**({"num_classes": K} | kw))


def test_both_alphas_0_are_named_as_by_timm():
    for of in (theirs, ours):
        kw = {"num_classes": K, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}
        with pytest.raises(ValueError, match=r"alpha"):
            of.NaFlexMixup(**kw)([IMAGE, IMAGE], LABELS)
        assert len(of.NaFlexMixup(**kw, prob=0.0)([IMAGE, IMAGE], LABELS)[1]) == 2
        with pytest.raises(ValueError, match="at least two|[Aa]t least two"):
            of.mix_batch_variable_size([IMAGE])


def test_a_backend_without_the_op_says_so():
    if backends.reason_unavailable("triton", "CPU") is None:
        with fm.backend("triton"), pytest.raises(RuntimeError, match="triton backend is forced"):
            ours.NaFlexMixup(num_classes=K)([IMAGE, IMAGE], LABELS)
