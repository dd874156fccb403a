"""Reading for training and generation: token stores, the data set and its batches.

Nothing is imported here: the store needs no torch.
"""
