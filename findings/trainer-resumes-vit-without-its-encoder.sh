#!/usr/bin/env bash
# transformers 5.24.0: Trainer.train(resume_from_checkpoint=…) of a ViT keeps the encoder it started with.
#
# save_pretrained writes the layers of ViT, DeiT, BEiT, DINOv2 and Swin under the names of version 4
# (vit.encoder.layer.0.attention.attention.key.weight); from_pretrained translates them back, the
# Trainer's own loading does not. It logs missing and unexpected keys and trains on, with the head,
# the optimizer and the step of the checkpoint, and the encoder of the model it was given: new random
# weights, in the usual script. One would guess that a Trainer reads what it has written.
# BERT, RoBERTa, DistilBERT, ModernBERT, DeBERTa-v2, ALBERT, XLNet, ConvNeXt and ResNet have one set of
# names. Upstream: huggingface/transformers#43701, of vision-language models. Give the Trainer Model.from_pretrained(checkpoint), and resume as well.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import sys, warnings, torch, transformers
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification as ViT
transformers.logging.set_verbosity_error(); warnings.simplefilter("ignore")
config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                   image_size=8, patch_size=4, num_labels=3)
data = [{"pixel_values": torch.rand(3, 8, 8), "labels": i % 3} for i in range(8)]
def train(model, steps, resume=None):
    args = TrainingArguments(sys.argv[1], max_steps=steps, save_steps=2, save_strategy="steps", report_to=[],
                             use_cpu=True, disable_tqdm=True, logging_strategy="no", learning_rate=0.0)
    Trainer(model, args, train_dataset=data).train(resume_from_checkpoint=resume)
    return model
first = train(ViT(config), 2)
checkpoint = sys.argv[1] + "/checkpoint-2"
resumed = train(ViT(config), 4, checkpoint)  # learning rate 0: weights stay as they are loaded
loaded = train(ViT.from_pretrained(checkpoint), 4, checkpoint)
def same(model, part):
    return all(torch.equal(p, q) for (name, p), (_, q) in
               zip(first.named_parameters(), model.named_parameters()) if part in name)
print(f"transformers {transformers.__version__}: equal to the checkpoint after resuming: head {same(resumed, 'classifier')}, "
      f"encoder {same(resumed, 'vit.layers')}; with from_pretrained {same(loaded, 'vit.layers')}")
sys.exit(not (same(resumed, "classifier") and not same(resumed, "vit.layers") and same(loaded, "vit.layers")))
P
"$dir/v/bin/python" "$dir/f.py" "$dir/out"
# seen: transformers 5.24.0: equal to the checkpoint after resuming: head True, encoder False; with from_pretrained True
