"""Mixing of text: embeddings, sentence vectors, hidden layers and spans of tokens."""

from .embeddings import mix_embeddings
from .sentence import SentenceMixup
from .ssmix import SSMix, span_plan
from .tmix import TMix
from .word import WordMixup

__all__ = ["SSMix", "SentenceMixup", "TMix", "WordMixup", "mix_embeddings", "span_plan"]
