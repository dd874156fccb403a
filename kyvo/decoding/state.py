"""What every slot has generated and where it is: all that a decoding step needs and changes.

It stays on the device and is changed in its place, so that steps follow each other without
waiting and a GPU replays them as one CUDA graph.

Shapes: B slots, R of them that are admitted, L new tokens of a step, V ids, I ids of the head, C
classes of ids, S states of the grammar, N tokens of a sequence at most.
"""

import numpy as np
import torch
from torch import Tensor

from kyvo.decoding.grammar import Automaton
from kyvo.decoding.numbers import ExpectedNumbers
from kyvo.decoding.sampling import Sampling

# A deterministic token goes along with the token before it if the grammar has so many of them:
# the second token of a step costs matmuls, the steps that it saves are mostly reading weights.
_DETERMINISTIC_SHARE = 0.25


class GrammarMask:
    """An automaton on the device; logits are those of ``head_ids``."""

    def __init__(self, automaton: Automaton, head_ids: np.ndarray, device: torch.device) -> None:
        self._class_of_id_I = torch.from_numpy(automaton.class_of_id[head_ids]).to(device)
        self._class_of_id_V = torch.from_numpy(automaton.class_of_id).to(device)
        self._next_SC = torch.from_numpy(automaton.next_state).to(device)
        self._deterministic_S = torch.from_numpy(automaton.deterministic_ids).to(device)
        share = (automaton.deterministic_ids >= 0).mean()
        self.jumps_forward = bool(share > _DETERMINISTIC_SHARE)

    def mask(self, logits_BI: Tensor, states_B: Tensor) -> Tensor:
        """``logits_BI`` with -inf where the slot's state forbids the id."""
        allowed_BC = self._next_SC[states_B] >= 0
        return logits_BI.masked_fill(~allowed_BC[:, self._class_of_id_I], float("-inf"))

    def advance(self, states_B: Tensor, ids_B: Tensor) -> Tensor:
        """The states after ``ids_B``."""
        return self._next_SC[states_B, self._class_of_id_V[ids_B]]

    def deterministic(self, states_B: Tensor) -> Tensor:
        """The only id that may come next (B,), -1 where there is a choice."""
        return self._deterministic_S[states_B]


class DecodeState:
    """The slots of one batch.

    Args:
        max_length: longest sequence of a slot, prompt included.
        head_ids: the ids that the logits are of; None: all.
        numbers: reads the numbers that ids stand for; None: nobody asks.
    """

    def __init__(
        self,
        num_slots: int,
        max_length: int,
        eos: int,
        sampling: Sampling,
        head_ids: Tensor | None,
        grammar: GrammarMask | None,
        device: torch.device,
        numbers: ExpectedNumbers | None = None,
    ) -> None:
        self.numbers = numbers
        self.max_length, self.eos, self.sampling = max_length, eos, sampling
        self.head_ids, self.grammar = head_ids, grammar
        self.jumps_forward = grammar is not None and grammar.jumps_forward

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        # One column more than can be read: inactive slots write there.
        self.ids_BN = zeros(num_slots, max_length + 1)
        self.draws_BN = zeros(num_slots, max_length + 1, dtype=torch.float32)
        self.values_BN = zeros(num_slots, max_length + 1, dtype=torch.float32)
        self.starts_B, self.limits_B, self.states_B = (zeros(num_slots) for _ in range(3))
        self.counts_B = zeros(num_slots) + 1
        self.active_B = zeros(num_slots, dtype=torch.bool)

    def reset(self) -> None:
        """Make every slot inactive."""
        self.active_B.fill_(False)
        self.counts_B.fill_(1)
        self.starts_B.zero_()

    def admit(
        self,
        slots_R: Tensor,
        logits_RI: Tensor,
        starts_R: Tensor,
        limits_R: Tensor,
        draws_RN: Tensor,
    ) -> None:
        """Put samples into slots and take their first token from the logits of their prompts."""
        self.starts_B[slots_R], self.limits_B[slots_R] = starts_R, limits_R
        self.draws_BN[slots_R, : draws_RN.shape[1]] = draws_RN
        self.counts_B[slots_R], self.states_B[slots_R], self.active_B[slots_R] = 0, 0, True
        chosen_B = torch.zeros_like(self.counts_B)
        values_B = torch.full_like(chosen_B, torch.nan, dtype=torch.float32)
        chosen_B[slots_R], values_B[slots_R] = self._choose(logits_RI, slots_R)
        admitted_B = torch.zeros_like(self.active_B)
        admitted_B[slots_R] = True
        self._append(chosen_B, values_B, admitted_B)

    def next_tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the next step takes: tokens and positions (B, L), the last one's index (B,).

        Every active slot's last id and, with jump-forward decoding, the deterministic one after
        it, if there is one.
        """
        last_B = self.ids_BN.gather(1, self.counts_B[:, None] - 1)[:, 0]
        position_B = self.starts_B + self.counts_B - 1
        tokens, positions = [last_B], [position_B]
        index_B = torch.zeros_like(last_B)
        if self.jumps_forward:
            assert self.grammar is not None
            next_B = self.grammar.deterministic(self.states_B)
            is_deterministic_B = next_B >= 0
            tokens.append(torch.where(is_deterministic_B, next_B, last_B))
            positions.append(position_B + 1)
            index_B = is_deterministic_B.long()
            own_B = torch.full_like(tokens[1], torch.nan, dtype=torch.float32)
            self._append(tokens[1], own_B, is_deterministic_B & self.active_B)
        # Inactive slots go on writing to the last position of their own cache.
        positions_BL = torch.stack(positions, 1).clamp(max=self.max_length - 1)
        return torch.stack(tokens, 1), positions_BL, index_B

    def append_token(self, logits_BI: Tensor) -> None:
        """Choose one more id for every active slot."""
        self._append(*self._choose(logits_BI, slice(None)), self.active_B)

    def _choose(self, logits_BI: Tensor, slots: Tensor | slice) -> tuple[Tensor, Tensor]:
        """An id for each slot, and the number that it stands for."""
        if self.grammar is not None:
            logits_BI = self.grammar.mask(logits_BI, self.states_B[slots])
        uniform_B = self.draws_BN[slots].gather(1, self.counts_B[slots][:, None])[:, 0]
        index_B = self.sampling.choose(logits_BI, uniform_B)
        ids_B = index_B if self.head_ids is None else self.head_ids[index_B]
        if self.numbers is None:
            return ids_B, torch.full_like(ids_B, torch.nan, dtype=torch.float32)
        return ids_B, self.numbers(logits_BI, ids_B)

    def _append(self, ids_B: Tensor, values_B: Tensor, which_B: Tensor) -> None:
        """Add an id to the slots ``which_B``; those that reach EOS or their limit end.

        All tensors are changed where they are: a CUDA graph knows them by their place.
        """
        # What the other slots write here is never read: it is behind their count.
        self.ids_BN.scatter_(1, self.counts_B[:, None], ids_B[:, None])
        if self.numbers is not None:
            self.values_BN.scatter_(1, self.counts_B[:, None], values_B[:, None])
        self.counts_B.add_(which_B)
        if self.grammar is not None:
            ids_B = torch.where(which_B, ids_B, self.eos)
            moved_B = self.grammar.advance(self.states_B, ids_B)
            self.states_B.copy_(torch.where(which_B, moved_B, self.states_B))
        ends_B = (ids_B == self.eos) | (self.counts_B >= self.limits_B)
        self.active_B.logical_and_(~(which_B & ends_B))
