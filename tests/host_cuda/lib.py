"""Loads the compiled harness, chooses the variant that the ops call, and sets it up."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from functools import cache

from . import build

_variant = os.environ.get("FUSED_MIXUP_HOST_VARIANT", "plain")


@cache
def load(variant: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(build.build(variant)))
    lib.host_error.restype = ctypes.c_char_p
    for name in ("host_launched", "host_launches", "host_bulk_loaded", "host_long_div"):
        if hasattr(lib, name):  # a variant may have no kernels
            getattr(lib, name).restype = ctypes.c_int64
    return lib


def library() -> ctypes.CDLL:
    """The variant in use: FUSED_MIXUP_HOST_VARIANT, unless inside :func:`variant`."""
    return load(_variant)


@contextmanager
def variant(name: str):
    """Inside the context the ops run this variant of the harness (see build.VARIANTS)."""
    global _variant
    before, _variant = _variant, name
    try:
        yield library()
    finally:
        _variant = before


class LaunchError(RuntimeError):
    """A launch that failed, with what the harness says of it."""


def check(code: int) -> None:
    if code != 0:
        raise LaunchError(f"launch failed with {code}: {library().host_error().decode()}")


def set_order(order: int) -> None:
    """Run blocks and threads 0 forward, 1 in reverse, 2 shuffled."""
    library().host_set_order(ctypes.c_int64(order))


@contextmanager
def drop_barrier(file: str, line: int):
    """Inside the context the barrier, warp operation or copies_done() of this line does nothing."""
    lib = library()
    lib.host_drop(file.encode(), ctypes.c_int64(line))
    try:
        yield
    finally:
        lib.host_drop(b"", ctypes.c_int64(0))


@contextmanager
def resident_clusters(count: int):
    """Inside the context ``count`` clusters run at once, not two; more rows come one by one."""
    lib = library()
    lib.host_set_resident_clusters(ctypes.c_int64(count))
    try:
        yield
    finally:
        lib.host_set_resident_clusters(ctypes.c_int64(2))


@contextmanager
def dependent_launches():
    """Inside the context mixes are launched to start while the kernel in front still runs."""
    lib = library()
    lib.host_set_starts_early(ctypes.c_int64(1))
    try:
        yield
    finally:
        lib.host_set_starts_early(ctypes.c_int64(0))


@contextmanager
def max_count(count: int):
    """Inside the context samples of more than ``count`` vectors, not 2^31, are split in halves."""
    lib = library()
    lib.host_set_max_count(ctypes.c_int64(count))
    try:
        yield
    finally:
        lib.host_set_max_count(ctypes.c_int64(2**31))


@contextmanager
def enough_blocks(blocks: int):
    """Inside the context a block does several rounds from 2 * ``blocks`` blocks on, not 8192."""
    lib = library()
    lib.host_set_enough_blocks(ctypes.c_int64(blocks))
    try:
        yield
    finally:
        lib.host_set_enough_blocks(ctypes.c_int64(4096))


def long_div(n: int, divisor: int) -> int:
    """LongDiv of geometry.cuh, and below 2^31 its FastDiv."""
    return library().host_long_div(ctypes.c_int64(n), ctypes.c_int64(divisor))


@contextmanager
def all_tickets_taken():
    """Inside the context calls make a ticket of their own memory zero."""
    library().host_take_all_tickets(ctypes.c_int64(1))
    try:
        yield
    finally:
        library().host_take_all_tickets(ctypes.c_int64(0))


def launches() -> int:
    """How many kernels have been launched so far."""
    return library().host_launches()


def bulk_loaded() -> int:
    """How many bytes bulk copies have loaded since the last call."""
    return library().host_bulk_loaded()


def forget_launches() -> None:
    """Let :func:`kernels` count the launches from here on."""
    library().host_forget_launched()


def kernels() -> tuple[set[str], set[str]]:
    """(every instantiation of a kernel in the library, those that were launched), by name."""
    lib = library()
    command = ["nm", "--demangle", str(build.build(_variant))]
    symbols = {}
    for line in subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        address, kind, name = [*line.split(" ", 2), "", ""][:3]
        if kind in "tT" and address:
            symbols[name] = int(address, 16)
    base = ctypes.cast(lib.host_error, ctypes.c_void_p).value - symbols["host_error"]
    room = 4096
    addresses = (ctypes.c_void_p * room)()
    count = lib.host_launched(addresses, ctypes.c_int64(room))
    assert count <= room
    launched = {addresses[k] - base for k in range(count)}
    compiled = {
        name: at
        for name, at in symbols.items()
        if "fused_mixup::" in name and "_kernel" in name.split("(")[0] and "{lambda" not in name
    }
    return set(compiled), {name for name, at in compiled.items() if at in launched}
