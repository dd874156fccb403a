"""Train the small text tokenizer that ships with the package, on the world's own sentences.

python3 scripts/train_mini_tokenizer.py --output kyvo/tokens/mini_tokenizer.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import kyvo.common.cli
from kyvo.common.files import atomic_file
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.world.sentences import sample_sentences


def main(argv: Sequence[str]) -> None:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="tokenizer file to write")
    parser.add_argument("--sentences", type=int, default=60_000, help="sentences to train on")
    arguments = parser.parse_args(argv)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=get_vocabulary("mini").num_text,
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_sentences(arguments.sentences), trainer)
    with atomic_file(arguments.output) as temporary:
        tokenizer.save(str(temporary))
    print(f"{tokenizer.get_vocab_size()} tokens: {arguments.output}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
