"""Metrics: Jaccard of scenes, SSIM and L2 of images, accuracy of answers."""

from kyvo.metrics.answers import AnswerScores, score_answers
from kyvo.metrics.images import ImagePair, ImageScores, score_images
from kyvo.metrics.jaccard import (
    JaccardScores,
    SceneScore,
    TauScores,
    parse_taus,
    score_scenes,
)
from kyvo.metrics.matching import Matches, match_objects
from kyvo.metrics.scene_files import METHODS, Evaluation, ScenePair, load_evaluation

__all__ = [
    "METHODS",
    "AnswerScores",
    "Evaluation",
    "ImagePair",
    "ImageScores",
    "JaccardScores",
    "Matches",
    "ScenePair",
    "SceneScore",
    "TauScores",
    "load_evaluation",
    "match_objects",
    "parse_taus",
    "score_answers",
    "score_images",
    "score_scenes",
]
