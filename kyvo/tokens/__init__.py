"""Ids: the vocabulary that owns them, text as ids, and the order of a sample's segments."""
