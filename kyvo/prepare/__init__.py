"""Making and checking data: download, tokenisation of worlds, validation, statistics.

Nothing is imported here: the download and the tokenisation need no torch.
"""
