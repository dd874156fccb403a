"""Token stores, the data set and its batches.

Nothing is imported here: the store, the tokenisation and the download need no torch.
"""
