"""The tokenizer: byte-level BPE in which every digit is a token of its own.

`<|end|>` begins every document, and is end and padding as well.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
END_TOKEN = 0
MODEL_FOLDER = Path(__file__).with_name("model")


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """Return a tokenizer of `size` tokens, fitted to `texts`; any bytes can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@cache
def shipped() -> Tokenizer:
    """Return the tokenizer of the embedded model."""
    return Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
