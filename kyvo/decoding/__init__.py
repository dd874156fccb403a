"""Generation: the engine, sampling, constraints, and what comes out."""

from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.engine import Engine, GenerationSettings
from kyvo.decoding.numbers import Numbers, number_values
from kyvo.decoding.outputs import Generated, Output, OutputReader
from kyvo.decoding.plan import GenerationPlan, plan_generation, plan_generations
from kyvo.decoding.results import ResultFiles, ResultsLog
from kyvo.decoding.run import GenerationSummary, load_model, run_generation, run_generations
from kyvo.decoding.sampling import GREEDY, Sampling

__all__ = [
    "GREEDY",
    "Engine",
    "Generated",
    "GenerationConfig",
    "GenerationPlan",
    "GenerationSettings",
    "GenerationSummary",
    "Numbers",
    "Output",
    "OutputReader",
    "ResultFiles",
    "ResultsLog",
    "Sampling",
    "load_model",
    "number_values",
    "plan_generation",
    "plan_generations",
    "run_generation",
    "run_generations",
]
