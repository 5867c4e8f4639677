#!/usr/bin/env bash
# Keras 3.15.1: a saved model forgets how far its random numbers are; a resumed training repeats them.
#
# The state of a layer's SeedGenerator is one of model.variables, so one would guess that model.save
# keeps it as it keeps other variables that are not trained. It is in no file: after load_model, and
# after load_weights into a new model, a layer with a seed starts with its first dropout mask (or
# flip, or CutMix) again. Only backend torch was tried.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"; "$dir/v/bin/pip" install --quiet torch==2.13.0 numpy keras==3.15.1 2> /dev/null
cat > "$dir/f.py" <<'P'
import os, sys, tempfile
os.environ["KERAS_BACKEND"] = "torch"
import keras, torch

x, again = torch.ones(4, 8, 8, 3), {}
for make in (keras.layers.Dropout, keras.layers.GaussianNoise):
    layers = lambda: [keras.Input((8, 8, 3)), make(0.5, seed=1)]
    model = keras.Sequential(layers())
    first = model(x, training=True)
    assert not torch.equal(model(x, training=True), first)
    assert len(model.variables) == 1 and model.variables[0].numpy().tolist() == [1, 2]
    folder = tempfile.mkdtemp()
    model.save(f"{folder}/m.keras")
    model.save_weights(f"{folder}/m.weights.h5")
    other = keras.Sequential(layers())
    other.load_weights(f"{folder}/m.weights.h5")
    loaded = keras.saving.load_model(f"{folder}/m.keras")
    again[make.__name__] = [torch.equal(m(x, training=True), first) for m in (loaded, other)]
print(f"keras {keras.__version__}: the first draws come again after load_model, load_weights:", again)
sys.exit(not all(map(all, again.values())))
P
"$dir/v/bin/python" "$dir/f.py"
# seen: keras 3.15.1: the first draws come again after load_model, load_weights: {'Dropout': [True, True], 'GaussianNoise': [True, True]}
