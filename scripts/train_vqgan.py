"""Train the image tokenizer (a VQGAN) on folders of pictures.

Writes OUTPUT/metrics.jsonl, OUTPUT/codebook.npy and the model's run folder OUTPUT/NAME.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.cli
from kyvo.config import load_config
from kyvo.images.training import VQGANTrainingConfig, train_vqgan


def main(argv: Sequence[str]) -> None:
    """Parse ``argv``, train, and say where the model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="yaml file of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to the config: max_steps=100"
    )
    arguments = parser.parse_args(argv)
    config = load_config(VQGANTrainingConfig, arguments.config, arguments.overrides)
    train_vqgan(config)
    print(f"model: {config.output / config.name}")
    print(f"codebook: {config.output / 'codebook.npy'}")


if __name__ == "__main__":
    kyvo.cli.run(main)
