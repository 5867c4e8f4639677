"""The saliency by which SSMix chooses spans: labels, precision, and what the model does not get."""

from __future__ import annotations

import pytest
import torch
from text_cases import B, H, Reader, T, text_batch
from torch import nn

from fused_mixup.text import SSMix
from fused_mixup.text.token_saliency import token_saliency

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batch():
    return text_batch()


def test_ssmix_keeps_its_own_inputs_in_evaluation(batch):
    model = Reader()
    ssmix = SSMix(model)
    own = {"saliency": torch.rand(B, T), "special_tokens_mask": torch.zeros(B, T)}
    ssmix(**batch, **own)
    plain = model.eval()(batch["input_ids"], batch["attention_mask"])["logits"]
    assert torch.equal(ssmix(**batch, **own)[0]["logits"], plain)


def test_saliency_leaves_ignored_samples_out(batch):
    model, labels = Reader(), batch["labels"].clone()
    labels[1] = -1
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    found = token_saliency(model, labels, given, 0, -1)
    kept = torch.tensor([0, 2, 3, 4])
    rest = {key: value[kept] for key, value in given.items()}
    torch.testing.assert_close(found[kept], token_saliency(model, labels[kept], rest, 0, -1))
    assert (found[1] == 0).all()
    batch["labels"] = labels
    assert SSMix(model, ignore_index=-1)(**batch)[1].labels[1] == -1


def test_saliency_of_small_gradients_in_half_precision():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(30, H, dtype=torch.float16)
            self.last = nn.Linear(H, 3, dtype=torch.float16)
            nn.init.constant_(self.last.weight, 0.0)
            nn.init.constant_(self.last.weight[0], 1e-4)  # its square is 0 in float16

        def get_input_embeddings(self):
            return self.words

        def forward(self, input_ids):
            e = self.words(input_ids)
            return self.last((e * torch.arange(1, T + 1)[:, None]).sum(1))

    found = token_saliency(
        Half(), torch.zeros(B).long(), {"input_ids": torch.ones(B, T).int()}, 0, -1
    )
    assert (found[:, 0] > 0).all() and (found.diff() > 0).all()


@pytest.mark.parametrize("labels", [torch.rand(B), torch.rand(B, 1), {"kind": torch.zeros(B)}])
def test_labels_without_a_saliency(batch, labels):
    ssmix = SSMix(Reader())
    batch["labels"] = labels
    with pytest.raises(ValueError, match="labels: expected class indices .* give saliency="):
        ssmix(**batch)
    output, target = ssmix(**batch, saliency=torch.rand(B, T))
    assert type(target) is type(labels)


def test_embeddings_that_are_not_called(batch):
    model = Reader()
    model.words.forward = None
    model.forward = lambda input_ids, attention_mask: {"logits": torch.rand(B, 3)}
    with pytest.raises(RuntimeError, match=r"got no call, so no saliency; give saliency="):
        SSMix(model)(**batch)
