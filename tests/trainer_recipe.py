"""The recipe of docs/frameworks.md for Hugging Face's Trainer, copied unchanged."""

from transformers import Trainer

from fused_mixup import soft_target_cross_entropy


class MixTrainer(Trainer):
    loss_is_scaled_for_ga = False  # a mean of this micro-batch: the Trainer divides it

    def __init__(self, *args, mixer, **kwargs):
        super().__init__(*args, **kwargs)
        self.mixer = mixer.to(self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:  # the same collator serves evaluation
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        inputs["pixel_values"], target = self.mixer(inputs["pixel_values"], inputs.pop("labels"))
        outputs = model(**inputs)
        loss = soft_target_cross_entropy(outputs["logits"], target)
        return (loss, outputs) if return_outputs else loss
