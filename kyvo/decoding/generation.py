"""Generation of many samples through one engine.

Shapes: B rows, V ids, S states, C id classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kyvo.decoding.engine import DecodeEngine
from kyvo.decoding.sampling import GREEDY, Sampling
from kyvo.errors import InputError
from kyvo.grammar import Automaton
from kyvo.models import KyvoModel


class Constraint:
    """An automaton on the device: which ids each row may take next."""

    def __init__(self, automaton: Automaton, device: torch.device) -> None:
        self._class_of_id_V = torch.from_numpy(automaton.class_of_id).to(device)
        self._next_SC = torch.from_numpy(automaton.next_state).to(device)

    def mask(self, logits_BV: Tensor, states_B: Tensor) -> Tensor:
        """``logits_BV`` with -inf where the row's state forbids the id."""
        allowed_BC = self._next_SC[states_B] >= 0
        return logits_BV.masked_fill(~allowed_BC[:, self._class_of_id_V], float("-inf"))

    def advance(self, states_B: Tensor, ids_B: Tensor) -> Tensor:
        """The states after ``ids_B``."""
        return self._next_SC[states_B, self._class_of_id_V[ids_B]]


@dataclass
class _Row:
    """The sample that a cache row works on."""

    index: int
    position: int
    limit: int
    ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Generator:
    """Continues prompts until EOS, ``max_new_tokens`` or the model's ``max_seq_len``.

    A row whose sample ends is given to the next prompt as soon as a quarter of the rows are
    free, so that one long sample does not hold up the batch.
    """

    model: KyvoModel
    eos: int
    max_new_tokens: int
    batch_size: int = 32
    sampling: Sampling = GREEDY
    automaton: Automaton | None = None

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


class _Run:
    """The state of one ``Generator.generate`` call."""

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
        self.engine = DecodeEngine(settings.model, self.num_rows, self.max_length)
        device = self.engine.device
        # Prompts of like length are prefilled together.
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
        self.rows: list[_Row | None] = [None] * self.num_rows
        self.tokens_B = torch.zeros(self.num_rows, dtype=torch.long, device=device)
        self.positions_B = torch.zeros(self.num_rows, dtype=torch.long, device=device)
        self.states_B = torch.zeros(self.num_rows, dtype=torch.long, device=device)
        self.draws_BN = torch.zeros(self.num_rows, settings.max_new_tokens, device=device)
        automaton = settings.automaton
        self.constraint = Constraint(automaton, device) if automaton else None

    @property
    def is_working(self) -> bool:
        return bool(self.waiting) or any(row is not None for row in self.rows)

    def fill_free_rows(self) -> None:
        """Give free rows to waiting prompts and take each one's first new token."""
        free = [i for i, row in enumerate(self.rows) if row is None]
        if not self.waiting or len(free) < max(1, self.num_rows // 4):
            return
        chosen = [self.waiting.pop() for _ in free[: len(self.waiting)]]
        rows = free[: len(chosen)]
        prompts = [torch.from_numpy(self.prompts[i]) for i in chosen]
        logits_BV = self.engine.prefill(prompts, rows)
        rows_B = torch.tensor(rows, device=self.engine.device)
        self.states_B[rows_B] = 0
        for row, index in zip(rows, chosen, strict=True):
            length = len(self.prompts[index])
            limit = min(self.settings.max_new_tokens, self.max_length - length)
            self.rows[row] = _Row(index, length, limit)
            self.positions_B[row] = length
            self.draws_BN[row] = self.settings.sampling.draws(
                self.seeds[index], self.settings.max_new_tokens
            )
        self._take(logits_BV, rows_B, rows)

    def step(self) -> None:
        """One more token for every row that is not finished."""
        live = [i for i, row in enumerate(self.rows) if row is not None and not self._is_done(row)]
        if not live:
            return
        used = max(row.position for row in self.rows if row is not None) + 1
        logits_BV = self.engine.step(self.tokens_B, self.positions_B, used)
        live_B = torch.tensor(live, device=self.engine.device)
        self.positions_B[live_B] += 1
        for i in live:
            row = self.rows[i]
            assert row is not None
            row.position += 1
        self._take(logits_BV[live_B], live_B, live)

    def collect_finished(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield finished samples and free their rows."""
        for i, row in enumerate(self.rows):
            if row is not None and self._is_done(row):
                self.rows[i] = None
                yield row.index, np.array(row.ids, dtype=np.int64)

    def _is_done(self, row: _Row) -> bool:
        return len(row.ids) >= row.limit or row.ids[-1] == self.settings.eos

    def _take(self, logits_BV: Tensor, rows_B: Tensor, rows: list[int]) -> None:
        """Choose each row's next token from its logits."""
        counts = [len(row.ids) for i in rows if (row := self.rows[i]) is not None]
        counts_B = torch.tensor(counts, device=self.engine.device)
        if self.constraint is not None:
            logits_BV = self.constraint.mask(logits_BV, self.states_B[rows_B])
        ids_B = self.settings.sampling.choose(logits_BV, self.draws_BN[rows_B, counts_B])
        if self.constraint is not None:
            self.states_B[rows_B] = self.constraint.advance(self.states_B[rows_B], ids_B)
        self.tokens_B[rows_B] = ids_B
        for i, token in zip(rows, ids_B.tolist(), strict=True):
            row = self.rows[i]
            assert row is not None
            row.ids.append(token)
