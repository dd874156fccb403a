"""Train the image tokenizer (a VQGAN) on folders of images.

Writes OUTPUT/metrics.jsonl, OUTPUT/codebook.npy, the model's folder OUTPUT/NAME, and checkpoints.
The same command again goes on where an interrupted run stopped.
"""

import argparse
from collections.abc import Sequence

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.training.vqgan import VQGANTrainingConfig, train_vqgan


def main(argv: Sequence[str]) -> None:
    """Parse ``argv``, train, and say where the model is."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(description=__doc__, epilog=kyvo.common.cli.OVERRIDES_HELP)
    parser.add_argument("--config", required=True, help="yaml file of the run")
    config = load_config(VQGANTrainingConfig, parser.parse_args(argv).config, overrides)
    train_vqgan(config)
    print(f"model: {config.output / config.name}")
    print(f"codebook: {config.output / 'codebook.npy'}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
