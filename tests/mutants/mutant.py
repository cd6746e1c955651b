"""One plausible wrong change to the code, and the tests that have to notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A wrong change that a person could make and a reviewer overlook.

    Attributes:
        name: says what goes wrong; unique in all lists.
        file: of the code, from the root of the project.
        old: text that stands exactly once in it.
        new: what stands there instead.
        tests: what pytest runs, separated by spaces: files, or tests of them. One of them has to fail.
        harmless: why nobody can notice the change, if no test has to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    harmless: str = ""

    def applied_to(self, text: str) -> str:
        """Return the text of the file with the change made.

        Raises:
            ValueError: the old text does not stand there exactly once, or the new one changes nothing.
        """
        times = text.count(self.old)
        if times != 1:
            raise ValueError(f"mutant {self.name}: its old text has to stand once in {self.file}; found {times} times")
        if self.old == self.new:
            raise ValueError(f"mutant {self.name}: its old and its new text are the same")
        return text.replace(self.old, self.new)
