"""Whole generation runs, from their plans to their files."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from tqdm import tqdm

from kyvo.common.files import folder_lock
from kyvo.decoding.engine import Engine, GenerationSettings
from kyvo.decoding.grammar import output_automaton
from kyvo.decoding.numbers import number_values
from kyvo.decoding.plan import GenerationPlan
from kyvo.decoding.results import ResultsLog
from kyvo.models import KyvoModel, load_released, resolve_dtype
from kyvo.scenes import ParseReport


@dataclass(frozen=True)
class GenerationSummary:
    """What a run did."""

    num_samples: int
    num_generated: int
    num_tokens: int
    seconds: float
    report: ParseReport

    def __str__(self) -> str:
        lines = [
            f"{self.num_samples} samples ({self.num_generated} generated now, "
            f"{self.num_generated / self.seconds:.1f} samples/s, "
            f"{self.num_tokens / self.seconds:,.0f} tokens/s)"
        ]
        if self.report.num_objects:
            whole, seen = self.report.num_complete, self.report.num_objects
            lines.append(f"objects read whole: {whole} of {seen}")
        lines += [f"  {count} x {reason}" for reason, count in self.report.reasons.most_common()]
        return "\n".join(lines)


def run_generations(
    plans: Sequence[GenerationPlan],
) -> Iterator[tuple[GenerationPlan, GenerationSummary]]:
    """Run one plan after another; those of the same model share it, once loaded.

    They share its engine too, where they ask for the same outputs.
    """
    model, loaded = None, None
    engine, built = None, None
    for plan in plans:
        wanted = _model_identity(plan)
        if model is None or wanted != loaded:
            model = engine = None  # before the next one is loaded: there may be room for one only
            model, loaded = load_model(plan), wanted
        shape = _engine_identity(plan)
        if engine is None or shape != built:
            engine = None
            engine, built = make_engine(plan, model), shape
        yield plan, run_generation(plan, engine)


def run_generation(plan: GenerationPlan, engine: Engine) -> GenerationSummary:
    """Generate every sample that the run does not have yet, then write all result files.

    Raises:
        InputError: results of another setup are in the folder, or another run works there.
    """
    files = plan.files
    written = [files.three_d_folder, *([files.image_folder] if files.writes_images else [])]
    with ExitStack() as locks:
        for folder in written:
            locks.enter_context(folder_lock(folder, *plan.config.input_folders))
        return _run(plan, engine)


def load_model(plan: GenerationPlan) -> KyvoModel:
    """The plan's model, ready to decode; InputError if a weight is NaN or infinite."""
    config = plan.config
    torch.manual_seed(config.seed)
    model: KyvoModel = plan.builder.build(vocabulary=plan.codec.vocabulary)
    if plan.weights is not None:
        load_released(model, plan.weights)
    else:
        model.tok_embeddings.set_codebook(torch.from_numpy(plan.codebook))
    model.to(plan.device, resolve_dtype(config.precision)).eval()
    model.tok_embeddings.materialize_table()
    return model


def make_engine(plan: GenerationPlan, model: KyvoModel) -> Engine:
    """An engine for the plan's task, samples and settings."""
    config, reader = plan.config, plan.reader
    automaton = None
    if config.constrained:
        automaton = output_automaton(reader.task, plan.codec, reader.codes_per_image)
    settings = GenerationSettings(
        plan.codec.vocabulary.eos,
        config.max_new_tokens,
        config.sampling,
        automaton,
        config.quantization,
        config.compile,
        number_values(config.numbers, plan.codec.vocabulary),
    )
    return Engine(model, settings, plan.num_slots, plan.max_length)


def _run(plan: GenerationPlan, engine: Engine) -> GenerationSummary:
    log = ResultsLog(plan.log_path, plan.description, plan.dataset.keys)
    missing = [index for index in plan.indices if index not in log.done]
    begun = time.perf_counter()
    try:
        tokens = _generate(engine, plan, missing, log)
    finally:
        log.close()
    seconds = time.perf_counter() - begun
    report = plan.files.write({index: log.done[index] for index in plan.indices})
    return GenerationSummary(len(plan.indices), len(missing), tokens, seconds, report)


def _model_identity(plan: GenerationPlan) -> tuple[str, ...]:
    """Equal for plans that can share a loaded model."""
    parts = ("weights", "model", "vocabulary", "codebook", "precision")
    return (*(str(plan.description[part]) for part in parts), str(plan.device))


def _engine_identity(plan: GenerationPlan) -> tuple[str, ...]:
    """Equal for plans of one model that can share an engine."""
    parts = ("schema", "task", "max_new_tokens", "sampling", "constrained", "quantization")
    described = plan.description | {"schema": plan.codec.schema.name}
    shape = (plan.num_slots, plan.max_length, plan.reader.codes_per_image, plan.config.compile)
    return (*(str(described[part]) for part in parts), str(shape), plan.config.numbers)


def _generate(engine: Engine, plan: GenerationPlan, missing: list[int], log: ResultsLog) -> int:
    dataset, name = plan.dataset, plan.config.run_identifier
    # Threads, because a sample's image may have to be read and unpacked.
    with ThreadPoolExecutor() as pool:
        samples = [sample for _, sample in pool.map(dataset.__getitem__, missing)]
    prompts = [sample.tokens[: sample.prompt_length] for sample in samples]
    tokens = 0
    with tqdm(total=len(missing), desc=name, unit="sample", disable=None) as progress:
        images = [sample.pixels for sample in samples]
        for place, generated in engine.generate(prompts, missing, images):
            index = missing[place]
            log.add(index, dataset.keys[index].decode(), generated)
            tokens += len(generated.ids)
            progress.update()
    return tokens
