"""Figures of merit: Jaccard of scenes, SSIM and L2 of images, accuracy of answers."""

from kyvo.metrics.answers import AnswerScores, score_answers
from kyvo.metrics.images import ImageScore, ImageScores, image_similarity, score_images
from kyvo.metrics.jaccard import (
    PAPER_TAUS,
    JaccardScores,
    SceneScore,
    TauScores,
    parse_taus,
    score_scenes,
)
from kyvo.metrics.matching import RULES, Matches, MatchingRule, Tolerance, match_objects
from kyvo.metrics.scene_files import DATASETS, METHODS, Evaluation, ScenePair, load_evaluation

__all__ = [
    "DATASETS",
    "METHODS",
    "PAPER_TAUS",
    "RULES",
    "AnswerScores",
    "Evaluation",
    "ImageScore",
    "ImageScores",
    "JaccardScores",
    "Matches",
    "MatchingRule",
    "ScenePair",
    "SceneScore",
    "TauScores",
    "Tolerance",
    "image_similarity",
    "load_evaluation",
    "match_objects",
    "parse_taus",
    "score_answers",
    "score_images",
    "score_scenes",
]
