"""Questions about scenes, with the functional programs that answer them."""

from kyvo.world.questions.programs import Program, Step, execute, read_program
from kyvo.world.questions.sampling import Question, ask
from kyvo.world.questions.templates import FAMILIES

__all__ = ["FAMILIES", "Program", "Question", "Step", "ask", "execute", "read_program"]
