"""Token stores, the data set and its batches."""

from kyvo.data.batches import Batch, LossWeighting, collate, length_buckets, make_loader
from kyvo.data.dataset import KyvoDataset, kyvo_dataset
from kyvo.data.store import TokenStore, common_keys, open_store

__all__ = [
    "Batch",
    "KyvoDataset",
    "LossWeighting",
    "TokenStore",
    "collate",
    "common_keys",
    "kyvo_dataset",
    "length_buckets",
    "make_loader",
    "open_store",
]
