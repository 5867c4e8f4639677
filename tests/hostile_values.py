"""Hostile values for ``hostile.py``: each function makes one from a valid argument and a generator.

Nothing here needs memory for what it seems to hold: sizes beyond 2^31 are expanded or on meta.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

BIG = 2**31
NAMES = "float16 bfloat16 float32 float64 uint8 int8 int16 int32 int64 bool complex64 complex128"
NAMES += " uint16 uint32 uint64 float8_e4m3fn float8_e5m2"
DTYPES = tuple(getattr(torch, name) for name in NAMES.split())
INTS = (-1, 0, 1, 2, 5, 64, 65, 255, 2**16, BIG - 1, BIG, BIG + 1, 2**32, 2**63 - 1, -(2**63))
INTS += (2**63, 2**64, 2**100, -BIG, -BIG - 1, True, np.int64(3), np.uint8(200))
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, -0.0, 1e-320, -1.0, 2.0, 0.5)
FLOATS += (np.float32(0.3), np.float64("nan"), 1j)


class Lie(Exception):
    """What the lying objects raise."""


# ------------------------------------------------------------------ tensors


def another_dtype(t: Tensor, draw: random.Random) -> Tensor:
    return t.to(draw.choice(DTYPES))


def another_shape(t: Tensor, draw: random.Random) -> Tensor:
    ways: list[Callable[[], Tensor]] = [lambda: t.unsqueeze(-1), lambda: t.unsqueeze(0), t.flatten]
    ways += [
        lambda: t.reshape(-1)[:0],
        lambda: t.reshape((1,) * draw.choice((11, 20, 60)) + t.shape),
    ]
    ways += [lambda: t.reshape(t.shape + (1,) * draw.randrange(1, 13))]
    if t.ndim:
        dim = draw.randrange(t.ndim)
        count = t.shape[dim]
        ways += [lambda: t.narrow(dim, 0, draw.randrange(count + 1)), lambda: t.select(dim, 0)]
        ways += [
            lambda: torch.cat((t, t), dim),
            lambda: t.transpose(0, dim),
            lambda: t.narrow(dim, 0, 0),
        ]
    return draw.choice(ways)()


def another_layout(t: Tensor, draw: random.Random) -> Tensor:
    """The same values, or overlapping ones, at other strides."""
    way = draw.randrange(7)
    if way == 0 or not t.ndim:
        room = torch.cat((t.reshape(-1)[:1].repeat(draw.randrange(1, 9)), t.reshape(-1)))
        return room[-t.numel() :].view(t.shape) if t.numel() else t
    if way == 1:
        return t.narrow(draw.randrange(t.ndim), 0, 1).expand(t.shape) if t.numel() else t
    if way == 2:
        return torch.stack((t, t), -1)[..., 0]
    if way == 3:
        return t.mT.contiguous().mT if t.ndim > 1 else t.flip(0)
    flat = t.reshape(-1).clone()
    if way == 4:  # each element overlaps the next
        strides = [draw.choice((0, 1)) for _ in t.shape]
        return flat.as_strided(t.shape, strides)
    strides = list(t.contiguous().stride())
    dim = draw.randrange(t.ndim)
    shape = list(t.shape)
    if way == 5:  # nobody may follow this stride
        shape[dim], strides[dim] = draw.choice((0, 1)), draw.choice((2**62, 2**63 - 1, BIG, 0))
        return flat.as_strided(shape, strides)
    shape[dim] = min(shape[dim], 1)
    return flat.as_strided(shape, [2**61] * t.ndim if 0 in shape else strides)


def beyond_31_bits(t: Tensor, draw: random.Random) -> Tensor:
    """A batch of some 2^31 samples or more, which are one: no call may accept it and read all."""
    if not t.ndim or not t.numel():
        return t.new_zeros(1).expand(BIG + 1, 2)
    count = draw.choice((BIG - 1, BIG, BIG + 1, 2**32 + 1, 2**40))
    return t[:1].expand(count, *t.shape[1:])


def other_values(t: Tensor, draw: random.Random) -> Tensor:
    """Any bits, or the ends of the dtype's range; True and False stay these."""
    if t.dtype == torch.bool or not t.numel():
        return ~t if t.dtype == torch.bool else t
    if draw.random() < 0.5:
        size = t.numel() * t.element_size()
        return torch.frombuffer(bytearray(draw.randbytes(size)), dtype=t.dtype).view(t.shape)
    if t.is_floating_point():
        ends = [float("nan"), float("inf"), -float("inf"), torch.finfo(t.dtype).max, 0.0, -1.0]
    elif t.is_complex():
        ends = [complex("nan"), 0.0]
    else:
        ends = [torch.iinfo(t.dtype).min, torch.iinfo(t.dtype).max, 0, 7]
    return t.masked_fill(torch.rand(t.shape) < draw.choice((0.2, 1.0)), draw.choice(ends))


def lazy_view(t: Tensor, draw: random.Random) -> Tensor:
    """A negative view of the same values, or a conjugate view."""
    if t.dtype in (torch.float32, torch.float64) and draw.random() < 0.7:
        return torch.complex(torch.zeros_like(t), -t).conj().imag
    return t.to(torch.complex64).conj()


def another_kind(t: Tensor, draw: random.Random) -> Any:
    """Quantised, sparse, nested, of MKL-DNN, fake, or on another device."""
    ways: list[Callable[[], Any]] = [t.to_sparse, lambda: t.to("meta")]
    ways += [lambda: t.to_sparse_csr(), lambda: t.float().to_mkldnn()]
    ways += [lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8)]
    ways += [
        lambda: torch.quantize_per_channel(
            t.float(), torch.ones(len(t)), torch.zeros(len(t)), 0, torch.qint8
        )
    ]
    for layout in (torch.strided, torch.jagged):
        ways.append(lambda layout=layout: torch.nested.nested_tensor(list(t), layout=layout))
    ways.append(lambda: torch.empty(BIG + 3, *t.shape[1:], dtype=t.dtype, device="meta"))
    return draw.choice(ways)()


class Marked(Tensor):
    pass


class Refusing(Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise Lie(func.__name__)


class Empty(Tensor):
    """Says that it has no elements."""

    @property
    def shape(self):
        return torch.Size([0])

    def numel(self):
        return 0

    def __len__(self):
        return 0


class LongTensor(Tensor):
    """Says that it is longer than it is."""

    @property
    def shape(self):
        return torch.Size([BIG, *super().shape[1:]])

    def __len__(self):
        return BIG


def another_class(t: Tensor, draw: random.Random) -> Any:
    ways: list[Callable[[], Any]] = [
        lambda kind=kind: t.as_subclass(kind) for kind in (Marked, Refusing, Empty, LongTensor)
    ]
    ways += [lambda: torch.nn.Parameter(t.clone()), lambda: t.clone().requires_grad_() * 1]
    ways += [lambda: inference(t), lambda: t.clone().requires_grad_(), t.numpy, lambda: readonly(t)]
    ways += [lambda: t.numpy().astype(t.numpy().dtype.newbyteorder()), t.tolist]
    ways += [lambda: t.numpy().astype(object), lambda: np.flip(t.numpy()), lambda: list(t)]
    ways += [lambda: memoryview(t.numpy()), lambda: torch.nn.UninitializedParameter()]
    return draw.choice(ways)()


def inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def readonly(t: Tensor) -> np.ndarray:
    array = t.numpy().copy()
    array.flags.writeable = False
    return array


# ------------------------------------------------------------------ objects that lie


class Longer(Sequence):
    """Says that it has more items than it gives, or fewer."""

    def __init__(self, items, length):
        self.items, self.length = list(items), length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return self.items[i]


class Shrinking(list):
    """Loses an item whenever it is looked at."""

    def __iter__(self) -> Iterator:
        for i in range(len(self)):
            item = self[i] if i < len(self) else None
            del self[-1:]
            yield item

    def __len__(self):
        length = super().__len__()
        if length:
            list.pop(self)
        return length


class Raising:
    def raises(self, *_, **__):
        raise Lie("asked")

    __len__ = __iter__ = __getitem__ = __index__ = __float__ = __int__ = __bool__ = raises
    __array__ = __torch_function__ = __eq__ = raises
    __hash__ = object.__hash__


class Any_(int):
    """An int whose index is another type, and which compares with nothing."""

    def __index__(self):
        return BIG + 1

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def lying(value: Any, draw: random.Random) -> Any:
    items = (
        list(value)
        if isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.ndim)
        else [1, 2, 3]
    )
    itself: list = [1]
    itself.append(itself)
    ways = [lambda: Longer(items, draw.choice((0, 1000, 10**5))), lambda: Shrinking(items)]
    ways += [Raising, lambda: Any_(3), lambda: itself, lambda: iter(items)]
    return draw.choice(ways)()


def anything(value: Any, draw: random.Random) -> Any:
    ways = (None, "x", "", b"xy", [], (), {}, {1: 2}, object(), range(3), [None], [[1], [2, 3]])
    ways += ("x" * 10**5, [1] * 1000, [float("nan")] * 4, type, print, torch.float32, ...)
    return draw.choice((draw.choice(ways), draw.choice(INTS), draw.choice(FLOATS)))


# ------------------------------------------------------------------ the choice

FOR_TENSORS = (another_dtype, another_shape, another_layout, beyond_31_bits, other_values)
FOR_TENSORS += (lazy_view, another_kind, another_class, another_shape, another_layout, other_values)


def number(value: Any, draw: random.Random) -> Any:
    wide = draw.choice(INTS if isinstance(value, int) else FLOATS)
    return draw.choice(
        (wide, wide, draw.randrange(-4, 70), torch.tensor(2), torch.tensor([1.0, 2]))
    )


def element(value: Sequence, draw: random.Random) -> Any:
    """A list in which one item is hostile, or of another length."""
    items = list(value)
    way = draw.randrange(4)
    if way == 0 or not items:
        return items * draw.choice((0, 2, 30))
    at = draw.randrange(len(items))
    if way == 1:
        return items[:at]
    items[at] = hostile(items[at], draw)[1]
    return items


def hostile(value: Any, draw: random.Random) -> tuple[str, Any]:
    """The name of a way to spoil ``value``, and what that makes of it."""
    ways: tuple = (lying, anything)
    if isinstance(value, Tensor):
        plain = type(value) is Tensor and value.is_cpu and value.layout == torch.strided
        plain = plain and not value.is_quantized  # whose bits PyTorch takes from no buffer
        if not plain or value.numel() > 2**16 or value.is_nested:
            return "none", None  # spoiled already
        ways = (*FOR_TENSORS, lying, anything)
    elif isinstance(value, (int, float)):
        ways = (number, number, number, lying, anything)
    elif isinstance(value, (list, tuple)):
        ways = (element, element, element, lying, anything)
    way = draw.choice(ways)
    try:
        return way.__name__, way(value, draw)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return "none", None  # PyTorch has no such form of this tensor
