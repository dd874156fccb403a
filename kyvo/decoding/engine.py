"""The decoding engine: built once, it continues any number of prompts.

The engine holds the model with fused projections, the KV cache, the slots' state and, on a GPU,
the recorded CUDA graphs. Each ``generate`` admits prompts into slots, runs steps, and asks the
device now and then which slots have ended.

Shapes: B slots of a batch, R of them that are admitted, L new tokens, D width, I ids of the head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kyvo.common.errors import InputError
from kyvo.data.batches import stack_pixels
from kyvo.decoding.fusion import fuse_projections
from kyvo.decoding.grammar import Automaton
from kyvo.decoding.numbers import expected_numbers
from kyvo.decoding.outputs import Generated
from kyvo.decoding.quantization import Quantization, quantize
from kyvo.decoding.sampling import GREEDY, Sampling
from kyvo.decoding.scheduler import Scheduler
from kyvo.decoding.state import DecodeState, GrammarMask
from kyvo.models import CacheStep, KVCache, KyvoModel
from kyvo.models.llama import allow_graphs

PREFILL_TOKENS = 1 << 15
"""Tokens of prompts, padding included, that go through the model at a time."""
# Steps until the host asks which slots have ended: to ask makes a GPU wait, to ask late wastes
# steps of a finished slot.
STEPS_PER_SYNC = {"cpu": 1, "cuda": 4}
_WARM_UP_STEPS = 3
Decode = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""``Engine.decode``."""


@dataclass(frozen=True)
class GenerationSettings:
    """How an engine generates.

    Attributes:
        eos: id that ends a sequence.
        max_new_tokens: ids that a sample gets at most.
        sampling: how ids are chosen.
        automaton: allows only outputs of its grammar; the head then has the rows of its ids
            alone, and deterministic ids are taken without asking the model (jump-forward
            decoding). None: any id.
        quantization: of the layers' weights.
        compiled: compile layers and steps; pays in long runs.
        numbers: of ``number_values``: each number token then has the mean of the bins around it
            beside it. None: ids alone.
    """

    eos: int
    max_new_tokens: int
    sampling: Sampling = GREEDY
    automaton: Automaton | None = None
    quantization: Quantization = "none"
    compiled: bool = False
    numbers: np.ndarray | None = None


class Engine:
    """Runs ``model`` over a cache of ``num_slots`` sequences of at most ``max_length`` tokens.

    The model's weights are left as they are; fused projections are copies of them. ``cache``: that
    of another engine of the same model and sizes, with which it takes turns; None: its own.
    """

    def __init__(
        self,
        model: KyvoModel,
        settings: GenerationSettings,
        num_slots: int,
        max_length: int,
        cache: KVCache | None = None,
    ) -> None:
        self.settings = settings
        self.num_slots = num_slots
        self.max_length = min(max_length, model.max_seq_len)
        self.device = model.output.weight.device
        automaton = settings.automaton
        head_ids = automaton.possible_ids if automaton is not None else None
        self._head_ids, self._grammar = None, None
        if automaton is not None:
            self._head_ids = torch.from_numpy(automaton.possible_ids).to(self.device)
            self._grammar = GrammarMask(automaton, automaton.possible_ids, self.device)
        self._numbers = expected_numbers(settings.numbers, head_ids, self.device)
        self._is_compiled = settings.compiled
        # Compiled, long matmuls with int8 weights would go through a kernel for short ones.
        self._compiles_prefill = settings.compiled and settings.quantization != "int8"
        self._model = self._prepared(model)
        self.cache = cache if cache is not None else self._new_cache(model)
        self._batches: dict[int, _Batch] = {}
        self._call = 0

    def _new_cache(self, model: KyvoModel) -> KVCache:
        attention = model.blocks[0].attn
        shape = (len(model.layers), attention.num_kv_heads, attention.head_dim)
        dtype = model.output.weight.dtype
        return KVCache(shape, self.num_slots, self.max_length, dtype, self.device)

    def _prepared(self, model: KyvoModel) -> KyvoModel:
        fused = fuse_projections(model, self._head_ids)
        quantize(fused.layers, self.settings.quantization)
        if self._is_compiled:
            # On a GPU, tuning makes a kernel of its own of each matmul with a single row: it
            # reads int8 weights as they are, at the rate of the memory.
            tuning: Any = {"coordinate_descent_tuning": self.num_slots == 1}
            allow_graphs()
            compiled: list[Any] = [torch.compile(layer, options=tuning) for layer in fused.layers]
            fused.layers = nn.ModuleList(compiled)
            fused.sizes_vary = True
        return fused

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[np.ndarray],
        indices: Sequence[int] | None = None,
        images: Sequence[np.ndarray | None] | None = None,
    ) -> Iterator[tuple[int, Generated]]:
        """Yield (position in ``prompts``, what was generated) as they end.

        A sample ends at EOS, after ``max_new_tokens``, or at the engine's ``max_length``. One
        call at a time: once another one begins, those before it raise a RuntimeError.

        Args:
            prompts: ids, int64.
            indices: seed the sampling of each prompt (default: its position), so that a sample's
                result does not depend on which other prompts are asked for.
            images: of a model that reads pixels, each prompt's input image, uint8 (H, W, 3).

        Raises:
            InputError: a prompt leaves no room for a token.
        """
        if not prompts:
            return
        longest = max(map(len, prompts))
        if longest >= self.max_length:
            raise InputError(
                f"a prompt has {longest} tokens, but max_seq_len is {self.max_length}. Raise it."
            )
        self._call += 1
        call, batch = self._call, self._batch(len(prompts))
        batch.state.reset()
        scheduler = Scheduler([len(prompt) for prompt in prompts], batch.num_slots)
        seeds = indices or range(len(prompts))
        while scheduler.is_working:
            self._admit(batch, scheduler.admit(), prompts, seeds, images)
            batch.run_steps(self.decode, scheduler.longest)
            yield from batch.collect(scheduler)
            if call != self._call:
                raise RuntimeError("another generate call took the slots; finish one at a time")

    def prefill(
        self,
        prompts: Sequence[Tensor],
        slots: Sequence[int],
        images: Sequence[np.ndarray | None] | None = None,
    ) -> Tensor:
        """Put ``prompts`` into the cache's ``slots``; logits (R, I) after each prompt's end."""
        at_once = max(1, PREFILL_TOKENS // max(map(len, prompts)))
        starts = range(0, len(prompts), at_once)
        parts = [slice(start, start + at_once) for start in starts]
        chosen = images if images is not None else [None] * len(prompts)
        return torch.cat([self._prefill(prompts[p], slots[p], chosen[p]) for p in parts])

    def decode(
        self, tokens_BL: Tensor, positions_BL: Tensor, last_B: Tensor, kv_len: int
    ) -> Tensor:
        """Logits (B, I) of each slot's new token ``last_B``, after all its tokens went in.

        A slot's positions ascend from the first that its cache does not have; what comes after
        ``last_B`` is padding. ``kv_len`` is at least the largest position plus one.
        """
        return self._logits(tokens_BL, last_B, self.cache.decode(positions_BL, kv_len))

    def _prefill(
        self,
        prompts: Sequence[Tensor],
        slots: Sequence[int],
        images: Sequence[np.ndarray | None],
    ) -> Tensor:
        pixels = stack_pixels(images)
        pixels_RHWC = pixels.to(self.device) if pixels is not None else None
        tokens_RL = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True).to(self.device)
        last_R = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        step = self.cache.prefill(torch.tensor(slots, device=self.device), tokens_RL.shape[1])
        # A single prompt, now and then, would be compiled once more.
        is_eager = not self._compiles_prefill or len(prompts) == 1 < self.num_slots
        if self._is_compiled and is_eager:
            with torch.compiler.set_stance("force_eager"):
                return self._logits(tokens_RL, last_R, step, pixels_RHWC)
        return self._logits(tokens_RL, last_R, step, pixels_RHWC)

    def _logits(
        self,
        tokens_BL: Tensor,
        last_B: Tensor,
        step: CacheStep,
        pixels_BHWC: Tensor | None = None,
    ) -> Tensor:
        rows, length = tokens_BL.shape
        selected_B = torch.arange(rows, device=self.device) * length + last_B
        return self._model(tokens_BL, selected_B, step, pixels_BHWC).float()

    def _admit(
        self,
        batch: "_Batch",
        admitted: dict[int, int],
        prompts: Sequence[np.ndarray],
        seeds: Sequence[int],
        images: Sequence[np.ndarray | None] | None,
    ) -> None:
        """Prefill the prompts ``admitted`` (by slot) and take each one's first new token."""
        if not admitted:
            return
        slots, samples = list(admitted), list(admitted.values())
        chosen = [torch.from_numpy(prompts[sample]) for sample in samples]
        shown = [images[sample] for sample in samples] if images is not None else None
        logits_RI = self.prefill(chosen, slots, shown)
        most = min(self.settings.max_new_tokens, self.max_length)
        starts = [len(prompt) for prompt in chosen]
        limits = [min(most, self.max_length - start) for start in starts]
        draws = [self.settings.sampling.draws(seeds[sample], most) for sample in samples]
        slots_R, starts_R, limits_R = (
            torch.tensor(values, device=self.device) for values in (slots, starts, limits)
        )
        draws_RN = torch.stack(draws).to(self.device)
        batch.state.admit(slots_R, logits_RI, starts_R, limits_R, draws_RN)

    def _batch(self, num_prompts: int) -> "_Batch":
        """The batch of as few slots, a power of two or all, as hold the prompts."""
        wanted = min(self.num_slots, 1 << (num_prompts - 1).bit_length())
        if wanted not in self._batches:
            settings = self.settings
            state = DecodeState(
                wanted,
                self.max_length,
                settings.eos,
                settings.sampling,
                self._head_ids,
                self._grammar,
                self._numbers,
                self.device,
            )
            self._batches[wanted] = _Batch(state, settings.compiled)
            self._batches[wanted].record(self.decode)
        return self._batches[wanted]


class _Batch:
    """So many of the engine's slots, with their state and, on a GPU, their recorded step.

    It does not hold the engine, so that an engine is freed with its last user.
    """

    def __init__(self, state: DecodeState, compiled: bool) -> None:
        self.state = state
        self.num_slots = len(state.active_B)
        self._device = state.active_B.device
        self._next_tokens, self._append_token = state.next_tokens, state.append_token
        if compiled:
            self._next_tokens = torch.compile(self._next_tokens)
            self._append_token = torch.compile(self._append_token)
        self.replay: Callable[[], None] | None = None

    def record(self, decode: Decode) -> None:
        """Record a step over the whole cache as a CUDA graph, where there is a GPU.

        No slot is active yet, so the steps made here change nothing.
        """
        if self._device.type != "cuda":
            return
        kv_len, side = self.state.max_length, torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self._step(decode, kv_len)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(decode, kv_len)
        self.replay = graph.replay

    def run_steps(self, decode: Decode, longest: int) -> None:
        """Some more tokens for every active slot; the longest sequence has ``longest``."""
        tokens_a_step = 2 if self.state.jumps_forward else 1
        for taken in range(1, STEPS_PER_SYNC[self._device.type] + 1):
            if self.replay is not None:
                self.replay()
            else:
                self._step(decode, longest + tokens_a_step * taken - 1)

    def _step(self, decode: Decode, kv_len: int) -> None:
        tokens_BL, positions_BL, last_B = self._next_tokens()
        self._append_token(decode(tokens_BL, positions_BL, last_B, kv_len))

    def collect(self, scheduler: Scheduler) -> Iterator[tuple[int, Generated]]:
        """Yield the samples that have ended and free their slots."""
        counts = self.state.counts_B.tolist()
        finished = scheduler.update(self.state.active_B.tolist(), counts)
        if not finished:
            return
        slots = list(finished)
        generated = self.state.generated(slots, [counts[slot] for slot in slots])
        yield from zip(finished.values(), generated, strict=True)
