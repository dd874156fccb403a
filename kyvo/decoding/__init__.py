"""Generation: the engine, sampling, constraints, and what comes out."""

from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.engine import DecodeEngine
from kyvo.decoding.generation import Generator
from kyvo.decoding.outputs import Output, OutputReader
from kyvo.decoding.results import ResultFiles, ResultsLog
from kyvo.decoding.run import GenerationSummary, run_generation
from kyvo.decoding.sampling import GREEDY, Sampling

__all__ = [
    "GREEDY",
    "DecodeEngine",
    "GenerationConfig",
    "GenerationSummary",
    "Generator",
    "Output",
    "OutputReader",
    "ResultFiles",
    "ResultsLog",
    "Sampling",
    "run_generation",
]
