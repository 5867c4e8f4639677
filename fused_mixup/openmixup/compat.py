"""Which behaviour a caller asks for: ours, or that of a version of OpenMixup."""

from __future__ import annotations

from ..arguments import kind

VERSIONS = ("0.2.9", "0.2.10")


def check_compat(compat: bool | str) -> bool | str:
    """False, or the version whose behaviour is reproduced; True stands for the last one."""
    if compat is False or (isinstance(compat, str) and compat in VERSIONS):
        return compat
    if compat is True:
        return VERSIONS[-1]
    raise ValueError(f"compat: expected True, False or one of {list(VERSIONS)}, got {kind(compat)}")
