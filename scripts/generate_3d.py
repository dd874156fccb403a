"""Generate scenes, images or answers with a trained model.

    python3 scripts/generate_3d.py --config CONFIG [key=value ...]

Results are written as they come; the same command again goes on where it stopped.
"""

import argparse
from collections.abc import Sequence

import kyvo.cli
from kyvo.config import load_config
from kyvo.decoding import GenerationConfig, run_generation
from kyvo.files import file_identity
from kyvo.tensors import read_state_dict
from kyvo.training import find_weights, folder_lock, resolve_device


def main(argv: Sequence[str]) -> None:
    """Parse, generate, print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="yaml file of the run")
    parser.add_argument("overrides", nargs="*", help="key=value, such as num_samples=100")
    arguments = parser.parse_args(argv)
    config = load_config(GenerationConfig, arguments.config, arguments.overrides)
    device = resolve_device(config.device)
    weights, source = None, f"untrained, seed {config.seed}"
    if config.checkpoint is None:
        print("checkpoint: null: generating with an untrained model of random weights")
    else:
        path = find_weights(config.checkpoint)
        weights, source = read_state_dict(path, "checkpoint"), file_identity(path)
    with folder_lock(config.three_d_json_folder / config.run_identifier):
        summary = run_generation(config, weights, source, device)
    print(
        f"{summary.num_samples} samples ({summary.num_generated} generated now, "
        f"{summary.num_generated / summary.seconds:.1f} samples/s, "
        f"{summary.num_tokens / summary.seconds:,.0f} tokens/s on {device})"
    )
    report = summary.report
    if report.num_objects:
        print(f"objects read whole: {report.num_complete} of {report.num_objects}")
    for reason, count in report.reasons.most_common():
        print(f"  {count} x {reason}")
    print(f"results: {config.three_d_json_folder / config.run_identifier}")


if __name__ == "__main__":
    kyvo.cli.run(main)
