"""Kinds of entries: each is mixed as the table says, found by its type, its name, or said."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import pytest
import torch
from kinds_by_hand import (
    SHAPES,
    SPACE,
    K,
    by_weights,
    classes,
    generator,
    images,
    map_target,
    mixed,
    mixer,
    random_batches,
)

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget
from fused_mixup.kinds import KINDS

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------ every kind, by hand


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.proof)])
def test_values_are_mixed_as_by_hand(kind, count):
    for options, sizes, b in random_batches(count, seed=len(kind)):
        x = torch.randn(b, *SHAPES[kind](*sizes), generator=generator(b))
        first = {"image": torch.rand(b, 3, *sizes[:2])} if kind == "soft_map" else {}
        batch = {**first, "entry": x.clone()}
        out, plans = BatchMix(kinds={"entry": kind}, **options).with_plans(batch)
        plan = plans["entry"]
        d = SPACE[kind] if options.get("cutmix_alpha") else 0
        assert plan.spatial_dims == d
        torch.testing.assert_close(out["entry"].double(), mixed(x, plan), rtol=1e-5, atol=1e-6)
        drawn = BatchMix(**options).draw(b, x.shape[x.ndim - d :] if d else (1,))
        assert plan == drawn


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.proof)])
def test_class_maps_become_one_target_as_by_hand(count):
    for options, (n, m, *_), b in random_batches(count, seed=7):
        wide = (torch.uint8, torch.int64, torch.int32, torch.int16)[b % 4]
        maps = torch.randint(0, K, (b, n, m), generator=generator(b)).to(wide)
        maps[torch.rand(b, n, m, generator=generator(b + 1)) < 0.2] = 255 % 128 if b % 2 else 99
        ignored = 255 % 128 if b % 2 else 99
        batch = {"image": torch.rand(b, 3, n, m), "mask": maps.clone()}
        out, plans = BatchMix(K, ignore_index=ignored, **options).with_plans(batch)
        expected = map_target(maps, plans["mask"], K, ignored)
        got = out["mask"]
        if options["mixup_alpha"]:
            assert isinstance(got, MixedTarget) and got.labels.dtype == wide
            assert got.num_classes == K and got.ignore_index == ignored
            torch.testing.assert_close(got.dense(torch.float64), expected, rtol=1e-6, atol=1e-7)
            logits = torch.randn(b, K, n, m, generator=generator(b))
            loss = fm.soft_target_cross_entropy(logits, got, reduction="sum")
            by_hand = -(expected * logits.double().log_softmax(1)).sum()
            torch.testing.assert_close(loss.double(), by_hand, rtol=1e-5, atol=1e-4)
        else:
            assert got is batch["mask"] and got.dtype == wide
            for c in range(K):
                assert torch.equal((got == c).double(), expected[:, c])


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.proof)])
def test_labels_of_every_form_follow_the_share_as_by_hand(count):
    for options, (n, m, *_), b in random_batches(count, seed=9):
        pick = generator(b)
        batch = {
            "image": torch.rand(b, 3, n, m),
            "label": torch.randint(0, K, (b,), generator=pick),
            "targets": {
                "hot": torch.randint(0, 2, (b, K), generator=pick).float(),
                "value": torch.randn(b, dtype=torch.float64, generator=pick),
            },
        }
        out, plans = BatchMix({"label": K, "targets": None}, **options).with_plans(batch)
        plan = plans["image"]
        hot = torch.nn.functional.one_hot(batch["label"], K).double()
        close = {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(out["label"].dense().double(), by_weights(hot, plan), **close)
        for name in ("hot", "value"):
            expected = by_weights(batch["targets"][name], plan)
            torch.testing.assert_close(out["targets"][name].double(), expected, **close)
            same = fm.mix_labels(batch["targets"][name], plan)
            assert torch.equal(out["targets"][name], same)


# ------------------------------------------------------------------ how kinds are found


@dataclasses.dataclass(frozen=True)
class Sample:
    image: torch.Tensor
    label: torch.Tensor
    path: list[str]


Views = collections.namedtuple("Views", ["images", "depth"])


def test_structures_keep_their_form():
    plan = mixer().draw(4, (8, 8))
    expected = fm.mix(images(), plan)
    paths = ["a"] * 4
    made = Sample(images(), classes(), paths)
    out = mixer()(made)
    assert type(out) is Sample and torch.equal(out.image, expected) and out.path is paths
    assert torch.equal(out.label.weight, plan.weight) and torch.equal(made.label, classes())
    nested = {
        "views": Views(images(), images(seed=1)),
        "info": {"target": (classes(), {"path": paths}), "id": torch.arange(4)},
        "more": [images(seed=2), paths],
    }
    said = {"more.0": "image", "info.target.0": "labels"}
    out = mixer(kinds=said)(nested)
    assert type(out["views"]) is Views and torch.equal(out["views"].images, expected)
    assert torch.equal(out["views"].depth, fm.mix(images(seed=1), plan))
    assert torch.equal(out["more"][0], fm.mix(images(seed=2), plan)) and out["more"][1] is paths
    assert isinstance(out["info"]["target"][0], MixedTarget)
    assert out["info"]["target"][1]["path"] is paths
    assert out["info"]["id"] is nested["info"]["id"]
    assert list(out) == list(nested) and type(out["info"]["target"]) is tuple


def test_one_tensor_for_each_sample():
    plan = mixer().draw(4, (8, 8))
    maps = torch.arange(4 * 64, dtype=torch.int32).view(4, 8, 8) % K
    for kind in (list, tuple):
        out = mixer()({"image": kind(images()), "label": classes(), "mask": kind(maps)})
        assert type(out["image"]) is kind and type(out["mask"]) is kind
        assert torch.equal(torch.stack(list(out["image"])), fm.mix(images(), plan))
        assert torch.equal(torch.stack(list(out["mask"])), fm.paste_(maps.clone(), plan))
        hot = torch.eye(4)  # as many classes as samples: no heads
        for labels, expected in (
            (kind([0, 1, 2, 3]), classes()),
            (kind(classes().unbind()), classes()),
            (kind(hot.unbind()), None),
        ):
            _, target = mixer()((kind(images()), labels))
            if expected is None:
                assert torch.equal(target, fm.mix_labels(hot, plan))
            else:
                assert torch.equal(target.labels, expected)
    both = mixer(mixup_alpha=1.0)({"image": list(images()), "mask": list(maps)})
    assert both["mask"].labels.shape == (4, 8, 8)
    gradients = [x.requires_grad_() for x in images()]
    torch.stack(mixer()({"image": gradients, "label": classes()})["image"]).sum().backward()
    assert all(x.grad is not None for x in gradients)


def test_names_and_what_is_said():
    waves = torch.rand(4, 100)
    for name in KINDS["audio"].names:
        out = BatchMix(K)({name: waves.clone(), "label": classes()})
        assert not torch.equal(out[name], waves)
    seen = images(seed=1)
    batch = {"image": images(), "label": classes(), "thermal": seen.clone()}
    with pytest.raises(ValueError, match=r"batch\['thermal'\]: expected an entry of a known kind"):
        mixer()(batch)
    out = mixer(kinds={"thermal": "image"})(batch)
    assert torch.equal(out["thermal"], fm.mix(seen, mixer().draw(4, (8, 8))))
    kept = mixer(kinds={"thermal": "keep"})({**batch, "thermal": seen})
    assert kept["thermal"] is seen
    with pytest.raises(ValueError, match=r"batch\['a'\]\['b'\].*kinds={'a.b': …}"):
        mixer()({"image": images(), "label": classes(), "a": {"b": seen}})
    assert (
        mixer(kinds={"a.b": "keep"})({"image": images(), "label": classes(), "a": {"b": seen}})[
            "a"
        ]["b"]
        is seen
    )
    with pytest.raises(ValueError, match=r"kinds\['image'\]: expected one of .*'picture'"):
        mixer(kinds={"image": "picture"})
    with pytest.raises(TypeError, match="kinds: expected a dict"):
        mixer(kinds=["image"])
    with pytest.raises(ValueError, match="kinds: expected 3 in the batch"):
        mixer(kinds={3: "image"})((images(), classes()))


def test_tokens_are_refused():
    ids = torch.randint(0, 100, (4, 12))
    batch = {"image": images(), "label": classes(), "input_ids": ids}
    mix = mixer()
    with pytest.raises(TypeError, match=r"tokens\['input_ids'\]: .*embeddings.*'keep'"):
        mix(batch)
    assert torch.equal(mix.state, fm.plan_state(3))
    assert mixer(kinds={"input_ids": "keep"})(batch)["input_ids"] is ids


# ------------------------------------------------------------------ the table


def test_the_documentation_has_the_table():
    text = (Path(__file__).parents[1] / "docs" / "kinds.md").read_text()
    for kind, row in KINDS.items():
        names = ", ".join(f"`{name}`" for name in row.names)
        line = f"| `{kind}` | {row.shape} | {row.mixup} | {row.cutmix} | {names} |"
        assert line.replace("| |", "|  |") in text.replace("| |", "|  |"), kind
