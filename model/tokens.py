"""The vocabulary that agent text, user text and the action channel share, and the channel's text.

Byte-level BPE, one `tokenizer.json`; every digit is a token of its own. Special tokens come in by
name only: text that happens to spell one (`<end>` in a role prompt, in a result) stays text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, IDLE, END = "<pad>", "<idle>", "<end>"  # nothing is said; no action; an action's last token
GIVEN = ("system", "tools", "result")  # what the model is given on the action channel
MADE = ("call", "revise", "cancel", "confirm", "handoff")  # what it does there
STYLES = ("calm", "brisk", "urgent", "hesitant")  # how what follows in the agent's text is said
SPECIAL_TOKENS = (PAD, IDLE, END, *(f"<{name}>" for name in (*GIVEN, *MADE, *STYLES)))

_BYTES = pre_tokenizers.ByteLevel.alphabet()
_DIGITS = " ".join(f"{number:02}" for number in range(100))  # any two beside each other


def serialize(kind: str, number: int, tool: str, arguments: Mapping[str, Any]) -> str:
    """The text of one action, with what it does not need left out.

    `number` is that of the call that is answered, cancelled or confirmed. Raises ValueError on a
    kind that is no action.
    """
    payload = compact_json(arguments)
    if kind in ("call", "revise"):
        return f"<{kind}> {tool} {payload} {END}"
    if kind in ("cancel", "confirm"):
        return f"<{kind}> {number} {END}"
    if kind == "handoff":
        return f"<{kind}> {payload} {END}"
    if kind == "result":
        return f"<{kind}> {number} {payload} {END}"
    raise ValueError(f"action {kind!r}: must be one of {(*MADE, 'result')}")


def serialize_context(system: str, tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Role prompt and list of tools as given before frame 0; an empty one is left out."""
    context = [f"<system> {system} {END}"] if system else []
    return [*context, f"<tools> {compact_json(tools)} {END}"] if tools else context


def compact_json(value: Any) -> str:
    """JSON without spaces, keys in the order given, letters as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class DialogueTokenizer:
    """Text to tokens and back; special tokens are to be asked for by name.

    Raises ValueError where the vocabulary lacks something that Duologue needs, naming it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Neither saved nor pickled with the tokenizer, so it is set here.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        for what, wanted in (("special tokens", SPECIAL_TOKENS), ("bytes", _BYTES)):
            if missing := sorted({*wanted} - {*vocabulary}):
                raise ValueError(f"the vocabulary lacks the {what} {missing}")
        self._special = {token: vocabulary[token] for token in SPECIAL_TOKENS}
        if spelled := {*self.encode(" ".join(SPECIAL_TOKENS))} & {*self._special.values()}:
            raise ValueError(f"text can spell the special tokens {sorted(spelled)}: must be text")
        if self.decode(self.encode(" é")) != " é":
            raise ValueError("text does not come back from its tokens: must be byte-level")
        if len(self.encode(_DIGITS)) != len(_DIGITS):
            raise ValueError("the vocabulary joins digits: each must be a token of its own")

    def __reduce__(self) -> tuple[type["DialogueTokenizer"], tuple[Tokenizer]]:
        """Pickled to a worker, it is made anew there."""
        return DialogueTokenizer, (self._tokenizer,)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def id_of(self, token: str) -> int:
        """The number of a special token; raises ValueError on any other."""
        if token not in self._special:
            raise ValueError(f"{token!r}: must be one of {SPECIAL_TOKENS}")
        return self._special[token]

    def encode(self, text: str) -> list[int]:
        """Text alone, never a special token. In a stream each word has its space in front."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_action(self, text: str) -> list[int]:
        """An action or a context as `serialize` writes it: opening token, text, `<end>`.

        Only the first and the last token are special, whatever stands between. Raises ValueError
        where one of them is missing.
        """
        opening = text.partition(" ")[0]
        if opening[1:-1] not in (*GIVEN, *MADE) or not text.endswith(f" {END}"):
            raise ValueError(f"{text!r}: must begin with an action's token and end with ' {END}'")
        body = text[len(opening) : -len(END)]
        return [self.id_of(opening), *self.encode(body), self.id_of(END)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of any tokens, special ones as they are written."""
        return self._tokenizer.decode(tokens, skip_special_tokens=False)

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`."""
        self._tokenizer.save(str(path))


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> DialogueTokenizer:
    """Learns a vocabulary of at most that many tokens; the same texts give the same file.

    Raises ValueError where bytes and special tokens alone are more.
    """
    smallest = len(_BYTES) + len(SPECIAL_TOKENS)
    if vocabulary_size < smallest:
        raise ValueError(f"vocabulary_size {vocabulary_size}: must be at least {smallest}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return DialogueTokenizer(tokenizer)


def load_tokenizer(path: Path | str) -> DialogueTokenizer:
    """Reads a `tokenizer.json`.

    Raises FileNotFoundError where there is none and ValueError where it isn't a tokenizer or lacks
    something, naming it.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        return DialogueTokenizer(Tokenizer.from_str(text))
    except Exception as error:  # the library raises nothing more particular
        raise ValueError(f"{path}: {error}") from error
