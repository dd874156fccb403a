"""Score recognised ships: the Jaccard index by a rule for harbours.

python3 docs/own-scenes/score.py FOLDER  (of a run: predicted_scenes_*.json, groundtruth_scenes_*)
"""

import sys
from pathlib import Path

from kyvo.metrics.jaccard import score_scenes
from kyvo.metrics.matching import MatchingRule, Tolerance
from kyvo.metrics.scene_files import Evaluation, ScenePair, read_predicted_scenes

# Ships are the same if type and flag are equal, the positions (two numbers) lie closer than tau,
# and the heading (the third number) is right within 20 degrees the short way round.
RULE = MatchingRule(
    words=("type", "flag_color"),
    numbers=(("position", 2), ("heading", 1)),
    distance_axes=2,
    tolerances=(Tolerance(slice(2, 3), 20, period=360),),
)


def main(argv: list[str]) -> None:
    """Pair the run's scenes by key and print the figures; tau in hundreds of metres."""
    folder = Path(argv[0])
    predicted = read_predicted_scenes(next(folder.glob("predicted_scenes_*.json")))
    truth = read_predicted_scenes(next(folder.glob("groundtruth_scenes_*.json")))
    pairs = tuple(ScenePair(key, predicted.get(key), ships) for key, ships in truth.items())
    print(score_scenes(Evaluation("harbour", RULE, pairs), taus=(0.5, 1.0)).summary())


if __name__ == "__main__":
    main(sys.argv[1:])
