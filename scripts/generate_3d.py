"""Generate scenes, images or answers with a trained model.

    python3 scripts/generate_3d.py --config CONFIG [CONFIG ...] [key=value ...]

Results are written as they come; the same command again goes on where it stopped. Several configs
are all checked first, then run one after another; they share the model where they can.
"""

import argparse
from collections.abc import Sequence

import kyvo.common.cli
from kyvo.decoding import plan_generations, run_generations


def main(argv: Sequence[str]) -> None:
    """Parse, check, generate, print what came out."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=kyvo.common.cli.OVERRIDES_HELP
    )
    parser.add_argument(
        "--config", nargs="+", action="extend", required=True, help="yaml files of the runs"
    )
    plans = plan_generations((path, overrides) for path in parser.parse_args(argv).config)
    for plan in plans:
        print(plan.summary())
    for plan, summary in run_generations(plans):
        print(f"{plan.config.run_identifier}: {summary}")
        print(f"results: {plan.files.three_d_folder}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
