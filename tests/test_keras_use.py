"""``fused_mixup.keras`` in programs: model.fit, saved models, other kinds of input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import installed_peers

keras = installed_peers.keras()
if isinstance(keras, str):
    pytest.skip(keras, allow_module_level=True)
import fused_mixup.keras as ours  # noqa: E402

NAMES = ("MixUp", "CutMix", "RandomErasing")
K = 4


class Batches(keras.utils.PyDataset):
    """Four batches, mixed as they are read."""

    def __init__(self, mixer):
        super().__init__()
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, K, 64)
        self.images = rng.random((64, 8, 8, 3), np.float32) + self.labels[:, None, None, None]
        self.mixer = mixer

    def __len__(self):
        return 4

    def __getitem__(self, k):
        rows = slice(16 * k, 16 * k + 16)
        hot = np.eye(K, dtype=np.float32)[self.labels[rows]]
        batch = self.mixer({"images": self.images[rows], "labels": hot})
        return batch["images"], batch["labels"]


def train(layers, mixer, epochs=6):
    """The losses of a training that mixes in its data set and erases in its model."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.RandomErasing(seed=1, factor=(0.5, 0.5), value_range=(0, 4)),
            keras.layers.Flatten(),
            keras.layers.Dense(K),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    data = Batches(getattr(layers, mixer)(seed=2))
    history = model.fit(data, epochs=epochs, verbose=0, shuffle=False).history["loss"]
    return model, history


def test_fit_learns_what_it_learns_with_keras():
    model, losses = train(ours, "MixUp")
    assert losses[-1] < losses[0]
    assert losses == train(keras.layers, "MixUp")[1]
    x = torch.rand(3, 8, 8, 3)
    erasing = model.layers[0]
    assert isinstance(erasing, ours.RandomErasing)
    assert torch.equal(erasing(x, training=False), x)
    assert np.array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))


def test_fit_with_cutmix():
    assert len(train(ours, "CutMix", 1)[1]) == 1


def test_a_model_is_saved_and_loaded(tmp_path):
    model, _ = train(ours, "MixUp", 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is ours.RandomErasing
    # Keras saves the seed and not the state of the draws (findings/).
    assert loaded.layers[0].generator.state.value.tolist() == [1, 0]


def test_every_layer_has_an_entry_in_the_documentation():
    page = Path(__file__).parent.parent / "docs" / "api" / "keras.md"
    if not page.exists():
        pytest.skip("needs the source tree")
    entries = re.findall(r"^::: fused_mixup\.keras\.(\w+)$", page.read_text("utf-8"), re.MULTILINE)
    assert sorted(entries) == sorted(ours.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_keras_own(name):
    theirs, layer = getattr(keras.layers, name)(seed=3), getattr(ours, name)
    config = theirs.get_config()
    assert layer.from_config(config).get_config() == config
    kept = layer.from_config({**config, "compat": True})
    assert kept.compat and layer.from_config(kept.get_config()).compat
    assert isinstance(kept, type(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_other_kinds_of_input(name):
    layer = lambda: getattr(ours, name)(seed=4)  # noqa: E731
    x = (255 * torch.rand(5, 9, 7, 3)).to(torch.uint8)
    out = layer()(x)
    assert out.dtype == torch.float32 and out.is_contiguous()
    assert torch.equal(layer()(x.numpy()), out)
    # Strides as they come: a crop, a channels_first tensor seen as channels_last.
    wide = torch.zeros(5, 20, 20, 3, dtype=torch.uint8)
    wide[:, 3:12, 4:11] = x
    assert torch.equal(layer()(wide[:, 3:12, 4:11]), out)
    assert torch.equal(layer()(x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)), out)
    if name == "RandomErasing":  # the others cannot draw for no images
        assert layer()(x[:0]).shape == (0, 9, 7, 3)
    assert layer()(x[0]).shape == (9, 7, 3)
    kept = layer()({"images": x, "name": x[0]}, training=False)
    assert torch.equal(kept["images"].to(torch.uint8), x) and torch.equal(kept["name"], x[0])
    given = x.float()
    before = given.clone()
    layer()(given)
    assert torch.equal(given, before)
    state = torch.get_rng_state()
    layer()(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_images(name):
    options = {"fill_value": 0.0} if name == "RandomErasing" else {}
    x = torch.rand(3, 8, 8, 3, requires_grad=True)
    getattr(ours, name)(seed=5, **options)(x).sum().backward()
    assert x.grad.shape == x.shape and 0 < float(x.grad.sum()) <= x.numel() + 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_symbolic_shapes(name):
    layer = getattr(ours, name)()
    inputs = {"images": keras.Input((8, 8, 3)), "labels": keras.Input((K,))}
    out = layer(inputs)
    assert out["images"].shape == (None, 8, 8, 3) and out["labels"].shape == (None, K)

    class Wrapped(keras.Model):  # Keras traces its call without values
        def __init__(self):
            super().__init__()
            self.layer, self.dense = layer, keras.layers.Dense(2)

        def call(self, x, training=False):
            return self.dense(self.layer(x, training=True))

    assert Wrapped()(keras.Input((8, 8, 3))).shape == (None, 8, 8, 2)
