"""One question with its exact answer: what every ability is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A prompt, the text that must follow it, and for a choice the text that must not."""

    prompt: str
    answer: str
    alternative: str | None = None

    @property
    def text(self) -> str:
        """The prompt and its answer as training text holds them."""
        return self.prompt + self.answer
