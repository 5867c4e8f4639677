"""Small models of transformers with random weights, and a tokenizer trained on a few sentences."""

from __future__ import annotations

from functools import cache

import torch

TEXTS = [
    "the film was a joy from its first scene to the last",
    "a dull plot",
    "nobody who saw it wanted the evening to end",
    "two hours that nobody gives back",
    "bright, quick and funny",
    "the actors do what they can with very little",
]
LABELS = [1, 0, 1, 0, 1, 2]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 120}
WIDE = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64, "num_labels": 3}


@cache
def tokenizer(side="right"):
    """A word-piece tokenizer as BERT's, trained here; padded on ``side``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        padding_side=side,
    )


def batch(side="right", texts=TEXTS, pairs=None):
    """input_ids, token_type_ids and attention_mask [B, T], and labels [B]."""
    rows = (texts,) if pairs is None else (texts, pairs)
    made = tokenizer(side)(*rows, padding=True, return_tensors="pt", return_token_type_ids=True)
    return {**made, "labels": torch.tensor(LABELS[: len(texts)])}


def make(family, dtype=torch.float64, **options):
    """A model of ``family`` in float64, with dropout off so that it can be called again."""
    import transformers as tf

    pad = {"pad_token_id": 1}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = {**WIDE, **pad, **quiet}
    llama = {**WIDE, **pad, "num_key_value_heads": 1, "attention_dropout": 0.0}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2}
    gpt = {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64, "num_labels": 3}
    gpt |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    modern = {"attention_dropout": 0.0, "mlp_dropout": 0.0, "embedding_dropout": 0.0}
    modern |= {"classifier_dropout": 0.0, "local_attention": 8}
    xlnet = {"d_model": 32, "n_layer": 3, "n_head": 2, "d_inner": 48, "dropout": 0.0}
    xlnet |= {"summary_last_dropout": 0.0, "num_labels": 3}
    bart = {"d_model": 32, "dropout": 0.0, "attention_dropout": 0.0, "num_labels": 3}
    for half in ("encoder", "decoder"):
        bart |= {f"{half}_layers": 1, f"{half}_attention_heads": 2, f"{half}_ffn_dim": 48}
    models = {
        "bert": ("Bert", bert),
        "roberta": ("Roberta", bert),
        "xlm-roberta": ("XLMRoberta", bert),
        "camembert": ("Camembert", bert),
        "bart": ("Bart", {**bart, "vocab_size": 120, "eos_token_id": 3, **pad}),
        "modernbert": ("ModernBert", {**WIDE, **pad, **modern}),
        "albert": ("Albert", {**bert, "embedding_size": 16, "classifier_dropout_prob": 0.0}),
        "deberta": ("DebertaV2", {**bert, "relative_attention": True, "pooler_dropout": 0.0}),
        "xlnet": ("XLNet", {**xlnet, "vocab_size": 120, **pad}),
        "gpt2": ("GPT2", {**gpt, "vocab_size": 120, **pad}),
        "llama": ("Llama", llama),
        "t5": ("T5", {**t5, "vocab_size": 120, "dropout_rate": 0.0, **pad}),
    }
    name, config = models[family]
    config = getattr(tf, f"{name}Config")(**{**config, **options})
    kind = "EncoderModel" if family == "t5" else "ForSequenceClassification"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(tf, f"{name}{kind}")(config)
    return model.to(dtype).train()


FAMILIES = ("bert", "roberta", "modernbert", "albert", "deberta", "xlnet", "gpt2", "llama", "t5")
DECODERS = ("gpt2", "llama")
