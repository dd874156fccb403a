"""A whole generation run, from its config to its files."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kyvo.data import KyvoDataset
from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.generation import Generator
from kyvo.decoding.outputs import OutputReader
from kyvo.decoding.results import ResultFiles, ResultsLog
from kyvo.errors import InputError
from kyvo.grammar import output_automaton
from kyvo.images.codebook import load_codebook
from kyvo.models import KyvoModel, load_released_state, resolve_dtype
from kyvo.scenes import ParseReport, SceneCodec, get_schema
from kyvo.text import load_text_tokenizer
from kyvo.vocabulary import get_vocabulary


@dataclass(frozen=True)
class GenerationSummary:
    """What a run did."""

    num_samples: int
    num_generated: int
    num_tokens: int
    seconds: float
    report: ParseReport


def run_generation(
    config: GenerationConfig, weights: dict[str, Tensor] | None, source: str, device: torch.device
) -> GenerationSummary:
    """Generate every sample that the run still lacks, then write all result files.

    Args:
        weights: the model's weights under the released names; None: random ones of the seed.
        source: names the weights in errors and in the results' log.
    """
    vocabulary = get_vocabulary(config.vocabulary)
    dataset: KyvoDataset = config.dataset.build(vocabulary=vocabulary)
    if len(dataset.builders) != 1:
        raise InputError("dataset: generation needs one task, not UNIFIED.")
    tokenizer = load_text_tokenizer(config.tokenizer, vocabulary)
    codec = SceneCodec(get_schema(config.scene_schema), vocabulary, tokenizer)
    codebook = load_codebook(config.codebook, vocabulary.num_image_codes)
    model = _build_model(config, weights, source, codebook, device)
    reader = _reader(dataset, codec)
    three_d_folder = config.three_d_json_folder / config.run_identifier
    files = ResultFiles(
        config.run_identifier,
        three_d_folder,
        config.image_embeddings_folder / config.run_identifier,
        reader,
        dataset,
        codebook,
    )
    wanted = _wanted(config, dataset)
    files.check_names(wanted)
    log = ResultsLog(three_d_folder / "results.jsonl", _description(config, source))
    missing = [i for i in wanted if i not in log.done]
    generator = Generator(
        model,
        vocabulary.eos,
        config.max_new_tokens,
        config.batch_size,
        config.sampling,
        output_automaton(reader.task, codec, reader.codes_per_image)
        if config.constrained
        else None,
    )
    begun = time.perf_counter()
    try:
        tokens = _generate(generator, dataset, missing, log)
    finally:
        log.close()
    seconds = time.perf_counter() - begun
    report = files.write({i: log.done[i] for i in wanted})
    return GenerationSummary(len(wanted), len(missing), tokens, seconds, report)


def _build_model(
    config: GenerationConfig,
    weights: dict[str, Tensor] | None,
    source: str,
    codebook: np.ndarray,
    device: torch.device,
) -> KyvoModel:
    torch.manual_seed(config.seed)
    model: KyvoModel = config.model.build(vocabulary=get_vocabulary(config.vocabulary))
    if weights is not None:
        load_released_state(model, weights, source)
    own = model.tok_embeddings.vqgan_codebook.weight
    if weights is None:
        model.tok_embeddings.set_codebook(torch.from_numpy(codebook))
    # A model trained in bfloat16 holds a rounded codebook.
    elif own.shape != codebook.shape or not np.allclose(own.float(), codebook, 1e-2, 1e-2):
        raise InputError(
            f"codebook: {config.codebook} is not the one that {source} was trained with. "
            "Give the codebook of the same VQGAN."
        )
    model.place(device, resolve_dtype(config.precision)).eval()
    model.tok_embeddings.freeze_table()
    return model


def _reader(dataset: KyvoDataset, codec: SceneCodec) -> OutputReader:
    builder = dataset.builders[0]
    lengths = [int(st.lengths[0]) for s, st in dataset.stores.items() if s.modality == "image"]
    return OutputReader(builder.task, codec, lengths[0] if lengths else 0, builder.centre_first)


def _description(config: GenerationConfig, source: str) -> dict[str, object]:
    """What results must share to stand in one log."""
    return {
        "weights": source,
        "model": f"{config.model.path} {dict(config.model.arguments)}",
        "vocabulary": config.vocabulary,
        "dataset": {k: str(v) for k, v in config.dataset.arguments.items()},
        "max_new_tokens": config.max_new_tokens,
        "sampling": str(config.sampling),
        "constrained": config.constrained,
        "precision": config.precision,
    }


def _wanted(config: GenerationConfig, dataset: KyvoDataset) -> list[int]:
    count = len(dataset) if config.num_samples is None else config.num_samples
    chosen = list(range(len(dataset)))[config.first_sample : config.first_sample + count]
    if not chosen:
        raise InputError(
            f"first_sample {config.first_sample}: the data set has {len(dataset)} samples. "
            "Choose a smaller first_sample, and num_samples of 1 or more."
        )
    return chosen


def _generate(
    generator: Generator, dataset: KyvoDataset, missing: list[int], log: ResultsLog
) -> int:
    samples = [dataset[i][1] for i in missing]
    prompts = [sample.tokens[: sample.prompt_length] for sample in samples]
    tokens = 0
    with tqdm(total=len(missing), unit="sample", disable=None) as progress:
        for place, ids in generator.generate(prompts, missing):
            index = missing[place]
            log.add(index, dataset.keys[index].decode(), ids)
            tokens += len(ids)
            progress.update()
    return tokens
