"""Generation of many samples through one engine.

Everything that a step needs and changes stays on the device (``_Rows``), so that steps follow each
other without waiting and a GPU replays them as one CUDA graph. The host looks now and then which
rows have ended, yields them and gives them to the next prompts.

Shapes: B rows, T new tokens of a step, C ids of the head, S states, N generated ids at most.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.decoding.engine import DecodeEngine
from kyvo.decoding.grammar import Automaton
from kyvo.decoding.quantization import Quantization
from kyvo.decoding.sampling import GREEDY, Sampling
from kyvo.models import KyvoModel

# Steps between two looks at which rows have ended: a look makes a GPU wait, a late one wastes
# steps of a finished row.
_STEPS_PER_LOOK = {"cpu": 1, "cuda": 4}
# Two tokens go into a step if the grammar forces every so manieth of them or more: the second
# token costs products, the steps that it saves are mostly reading weights and cache.
_FORCED_SHARE = 0.25
_WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Generator:
    """Continues prompts until EOS, ``max_new_tokens`` or the model's ``max_seq_len``.

    A row whose sample ends is given to the next prompt as soon as a quarter of the rows are
    free, so that one long sample does not hold up the batch.

    Attributes:
        automaton: allows only outputs of its grammar. The head then has the rows of its ids
            alone, and ids that it forces are taken without asking the model.
        quantization, compiled: see ``DecodeEngine``.
    """

    model: KyvoModel
    eos: int
    max_new_tokens: int
    batch_size: int = 32
    sampling: Sampling = GREEDY
    automaton: Automaton | None = None
    quantization: Quantization = "none"
    compiled: bool = False

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[np.ndarray], indices: Sequence[int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position in ``prompts``, generated ids with EOS if there is one) as they end.

        ``indices`` seed the sampling of each prompt (default: its position), so that a sample's
        result does not depend on which other prompts are asked for.
        """
        if not prompts:
            return
        run = _Run(self, prompts, indices or range(len(prompts)))
        while run.is_working:
            run.fill_free_rows()
            run.step()
            yield from run.collect_finished()


class Constraint:
    """An automaton on the device; logits are those of ``head_ids``."""

    def __init__(self, automaton: Automaton, head_ids: np.ndarray, device: torch.device) -> None:
        self._class_of_id_C = torch.from_numpy(automaton.class_of_id[head_ids]).to(device)
        self._class_of_id_V = torch.from_numpy(automaton.class_of_id).to(device)
        self._next_SC = torch.from_numpy(automaton.next_state).to(device)
        self._forced_S = torch.from_numpy(automaton.forced_ids).to(device)
        self.forces_often = bool((automaton.forced_ids >= 0).mean() > _FORCED_SHARE)

    def mask(self, logits_BC: Tensor, states_B: Tensor) -> Tensor:
        """``logits_BC`` with -inf where the row's state forbids the id."""
        allowed = self._next_SC[states_B] >= 0
        return logits_BC.masked_fill(~allowed[:, self._class_of_id_C], float("-inf"))

    def advance(self, states_B: Tensor, ids_B: Tensor) -> Tensor:
        """The states after ``ids_B``."""
        return self._next_SC[states_B, self._class_of_id_V[ids_B]]

    def forced(self, states_B: Tensor) -> Tensor:
        """The only id that may come next (B,), -1 where there is a choice."""
        return self._forced_S[states_B]


class _Rows:
    """What every row has generated and where it stands."""

    def __init__(
        self,
        engine: DecodeEngine,
        num_rows: int,
        settings: Generator,
        head_ids: Tensor | None,
        constraint: Constraint | None,
    ) -> None:
        self.max_length, self.sampling, self.eos = (
            engine.max_length,
            settings.sampling,
            settings.eos,
        )
        self.head_ids, self.constraint = head_ids, constraint
        self.jumps = constraint is not None and constraint.forces_often
        new = settings.max_new_tokens

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=engine.device)

        # One column more than can be read: ended rows write there.
        self.ids_BN = zeros(num_rows, new + 1)
        self.draws_BN = zeros(num_rows, new + 1, dtype=torch.float32)
        self.starts_B, self.limits_B, self.states_B = (zeros(num_rows) for _ in range(3))
        self.counts_B = zeros(num_rows) + 1
        self.live_B = zeros(num_rows, dtype=torch.bool)

    def start(
        self, rows_B: Tensor, logits_BC: Tensor, starts_B: Tensor, limits_B: Tensor, draws: Tensor
    ) -> None:
        """Put new samples into rows and take their first token from the logits of their prompts."""
        self.starts_B[rows_B], self.limits_B[rows_B] = starts_B, limits_B
        self.draws_BN[rows_B, :-1] = draws
        self.counts_B[rows_B], self.states_B[rows_B], self.live_B[rows_B] = 0, 0, True
        chosen_B = torch.zeros_like(self.counts_B)
        chosen_B[rows_B] = self._choose(logits_BC, rows_B)
        started_B = torch.zeros_like(self.live_B)
        started_B[rows_B] = True
        self._append(chosen_B, started_B)

    def next_tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the engine's next step takes: tokens and positions (B, T), the last place (B,).

        Every live row's last id, and behind it the one that the grammar forces, if it does.
        """
        last_B = self.ids_BN.gather(1, self.counts_B[:, None] - 1)[:, 0]
        position_B = self.starts_B + self.counts_B - 1
        tokens, positions = [last_B], [position_B]
        index_B = torch.zeros_like(last_B)
        if self.jumps:
            assert self.constraint is not None
            forced_B = self.constraint.forced(self.states_B)
            is_forced_B = forced_B >= 0
            tokens.append(torch.where(is_forced_B, forced_B, last_B))
            positions.append(position_B + 1)
            index_B = is_forced_B.long()
            self._append(tokens[1], is_forced_B & self.live_B)
        # Ended rows go on writing to the last place of their own cache.
        positions_BT = torch.stack(positions, 1).clamp(max=self.max_length - 1)
        return torch.stack(tokens, 1), positions_BT, index_B

    def take(self, logits_BC: Tensor) -> None:
        """One more id for every live row."""
        self._append(self._choose(logits_BC, slice(None)), self.live_B)

    def _choose(self, logits_BC: Tensor, rows: Tensor | slice) -> Tensor:
        if self.constraint is not None:
            logits_BC = self.constraint.mask(logits_BC, self.states_B[rows])
        uniform_B = self.draws_BN[rows].gather(1, self.counts_B[rows][:, None])[:, 0]
        index_B = self.sampling.choose(logits_BC, uniform_B)
        return index_B if self.head_ids is None else self.head_ids[index_B]

    def _append(self, ids_B: Tensor, which_B: Tensor) -> None:
        """Add an id to the rows ``which_B``; those that reach EOS or their limit end.

        All tensors are changed where they are: a CUDA graph knows them by their place.
        """
        # What the other rows write here is never read: it lies behind their count.
        self.ids_BN.scatter_(1, self.counts_B[:, None], ids_B[:, None])
        self.counts_B.add_(which_B)
        if self.constraint is not None:
            ids_B = torch.where(which_B, ids_B, self.eos)
            moved_B = self.constraint.advance(self.states_B, ids_B)
            self.states_B.copy_(torch.where(which_B, moved_B, self.states_B))
        ends_B = (ids_B == self.eos) | (self.counts_B >= self.limits_B)
        self.live_B.logical_and_(~(which_B & ends_B))


class _Run:
    """The host's side of one ``Generator.generate`` call."""

    def __init__(
        self, settings: Generator, prompts: Sequence[np.ndarray], seeds: Sequence[int]
    ) -> None:
        self.settings = settings
        self.prompts = prompts
        self.seeds = seeds
        self.num_rows = min(settings.batch_size, len(prompts))
        longest = max(map(len, prompts))
        most = settings.model.max_seq_len
        if longest >= most:
            raise InputError(f"a prompt has {longest} tokens, but max_seq_len is {most}. Raise it.")
        self.max_length = min(longest + settings.max_new_tokens, most)
        # Prompts of like length are prefilled together.
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
        self.samples: list[int | None] = [None] * self.num_rows
        # Tokens of each row that a step may look at: prompt and generated ids.
        self.lengths = [0] * self.num_rows
        self.engine, self.rows = self._make_parts()
        device = self.engine.device
        self.steps_per_look = _STEPS_PER_LOOK[device.type]
        self.next_tokens, self.take = self.rows.next_tokens, self.rows.take
        if settings.compiled:
            self.next_tokens, self.take = torch.compile(self.next_tokens), torch.compile(self.take)
        self.replay = _graph(self._advance, self.max_length) if device.type == "cuda" else None

    def _make_parts(self) -> tuple[DecodeEngine, _Rows]:
        settings, automaton = self.settings, self.settings.automaton
        device = settings.model.output.weight.device
        head_ids, constraint = None, None
        if automaton is not None:
            head_ids = torch.from_numpy(automaton.possible_ids).to(device)
            constraint = Constraint(automaton, automaton.possible_ids, device)
        engine = DecodeEngine(
            settings.model,
            self.num_rows,
            self.max_length,
            head_ids,
            settings.quantization,
            settings.compiled,
        )
        return engine, _Rows(engine, self.num_rows, settings, head_ids, constraint)

    def _advance(self, used: int) -> None:
        tokens_BT, positions_BT, last_B = self.next_tokens()
        self.take(self.engine.step(tokens_BT, positions_BT, last_B, used))

    @property
    def is_working(self) -> bool:
        return bool(self.waiting) or any(sample is not None for sample in self.samples)

    def fill_free_rows(self) -> None:
        """Give free rows to waiting prompts and take each one's first new token."""
        free = [row for row, sample in enumerate(self.samples) if sample is None]
        if not self.waiting or len(free) < max(1, self.num_rows // 4):
            return
        chosen = [self.waiting.pop() for _ in free[: len(self.waiting)]]
        rows, device = free[: len(chosen)], self.engine.device
        prompts = [torch.from_numpy(self.prompts[i]) for i in chosen]
        starts = [len(prompt) for prompt in prompts]
        most = self.settings.max_new_tokens
        limits = [min(most, self.max_length - start) for start in starts]
        draws = torch.stack([self.settings.sampling.draws(self.seeds[i], most) for i in chosen])
        logits_BC = self.engine.prefill(prompts, rows)
        rows_B, starts_B, limits_B = (
            torch.tensor(values, device=device) for values in (rows, starts, limits)
        )
        self.rows.start(rows_B, logits_BC, starts_B, limits_B, draws.to(device))
        for row, sample, start in zip(rows, chosen, starts, strict=True):
            self.samples[row], self.lengths[row] = sample, start + 1

    def step(self) -> None:
        """Some more tokens for every row that has not ended."""
        longest, tokens = max(self.lengths), 2 if self.rows.jumps else 1
        for taken in range(self.steps_per_look):
            if self.replay is None:
                self._advance(longest + tokens * (taken + 1) - 1)
            else:
                self.replay()

    def collect_finished(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield samples that have ended and free their rows."""
        live, counts = self.rows.live_B.tolist(), self.rows.counts_B.tolist()
        working = [(row, sample) for row, sample in enumerate(self.samples) if sample is not None]
        for row, sample in working:
            self.lengths[row] = len(self.prompts[sample]) + counts[row]
        ended = [(row, sample) for row, sample in working if not live[row]]
        if not ended:
            return
        ids_BN = self.rows.ids_BN.cpu().numpy()
        for row, sample in ended:
            self.samples[row], self.lengths[row] = None, 0
            yield sample, ids_BN[row, : counts[row]].copy()


def _graph(step: Callable[[int], None], used: int) -> Callable[[], None]:
    """``step`` as a CUDA graph. No row is live yet, so the steps made meanwhile change nothing."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_STEPS):
            step(used)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(used)
    replay: Callable[[], None] = graph.replay
    return replay
