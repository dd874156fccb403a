"""Which prompt goes into which slot: the host's side of a batch."""

from collections.abc import Sequence


class Scheduler:
    """Gives the slots of finished samples to waiting prompts.

    Prompts are admitted as soon as a quarter of the slots are free, so that one long sample does
    not hold up the batch and prefills still have company.

    Args:
        prompt_lengths: tokens of every prompt.
    """

    def __init__(self, prompt_lengths: Sequence[int], num_slots: int) -> None:
        self.prompt_lengths = prompt_lengths
        self.num_slots = num_slots
        # Prompts of like length are prefilled together, the short ones first.
        indices = range(len(prompt_lengths))
        self._waiting = sorted(indices, key=lambda i: prompt_lengths[i], reverse=True)
        self._sample_of_slot: dict[int, int] = {}
        self._lengths = [0] * num_slots

    @property
    def is_working(self) -> bool:
        """Whether a sample is waiting or in a slot."""
        return bool(self._waiting or self._sample_of_slot)

    @property
    def longest(self) -> int:
        """Positions that the longest sequence had at the last ``update``."""
        return max(self._lengths)

    def admit(self) -> dict[int, int]:
        """The prompts to be prefilled now, by their slot; none while few slots are free."""
        free = [slot for slot in range(self.num_slots) if slot not in self._sample_of_slot]
        if not self._waiting or len(free) < max(1, self.num_slots // 4):
            return {}
        admitted = {slot: self._waiting.pop() for slot in free[: len(self._waiting)]}
        self._sample_of_slot |= admitted
        for slot, sample in admitted.items():
            self._lengths[slot] = self.prompt_lengths[sample] + 1
        return admitted

    def update(self, active: Sequence[bool], counts: Sequence[int]) -> dict[int, int]:
        """Free the slots that are no longer active; the samples that were in them, by slot.

        Args:
            active: of every slot, whether its sample goes on.
            counts: of every slot, how many ids were generated.
        """
        for slot, sample in self._sample_of_slot.items():
            self._lengths[slot] = self.prompt_lengths[sample] + counts[slot]
        finished = {slot: x for slot, x in self._sample_of_slot.items() if not active[slot]}
        for slot in finished:
            del self._sample_of_slot[slot]
            self._lengths[slot] = 0
        return finished
