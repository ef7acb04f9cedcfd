"""The vocabulary that agent text, user text and the action channel share, and the channel's text.

Byte-level BPE, one `tokenizer.json`; every digit is a token of its own. A word is split alike with
and without the space in front of it (`lucy` in an argument, ` lucy` in a text), so that what is
said can be copied into what is done, token by token. Special tokens come in by name only: text that
happens to spell one (`<end>` in a role prompt, in a result) stays text.
"""

import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, IDLE, END = "<pad>", "<idle>", "<end>"  # nothing is said; no action; an action's last token
GIVEN = ("system", "tools", "result")  # what the model is given on the action channel
MADE = ("call", "revise", "cancel", "confirm", "handoff")  # what it does there
STYLES = ("calm", "brisk", "urgent", "hesitant")  # how what follows in the agent's text is said
SPECIAL_TOKENS = (PAD, IDLE, END, *(f"<{name}>" for name in (*GIVEN, *MADE, *STYLES)))

_BYTES = pre_tokenizers.ByteLevel.alphabet()
_SPACE = "Ġ"  # how ByteLevel writes one
_WORD = Regex(r" ?[\p{L}\p{M}']+| ?[^\s\p{L}\p{M}\p{N}']+|\s")  # "it's" is one
_PIECES_SHARE = 4  # one in so many learned tokens is for words that are not in the vocabulary
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


def serialize_context(
    system: str, tools: Sequence[Mapping[str, Any]], describe: bool = True
) -> list[str]:
    """Role prompt and list of tools as given before frame 0; an empty one is left out.

    Tools stand as JSON, or without `describe` as their signatures alone:
    `faq(topic=hours|address) send_message(to,priority?=normal|urgent)`.
    """
    context = [f"<system> {system} {END}"] if system else []
    if not tools:
        return context
    listed = compact_json(tools) if describe else " ".join(map(_signature, tools))
    return [*context, f"<tools> {listed} {END}"]


def _signature(tool: Mapping[str, Any]) -> str:
    """Name and parameters of a tool; `?`: it may be left out, `=`: what it may be."""
    schema = tool.get("parameters", {})
    needed = schema.get("required", ())
    parameters = [
        name + "?" * (name not in needed) + "=" * ("enum" in of) + "|".join(of.get("enum", ()))
        for name, of in schema.get("properties", {}).items()
    ]
    return f"{tool['name']}({','.join(parameters)})"


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

    def to_json(self) -> str:
        """What `tokenizer.json` holds."""
        return self._tokenizer.to_str()

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`."""
        self._tokenizer.save(str(path))


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> DialogueTokenizer:
    """Learns a vocabulary of at most that many tokens; the same texts give the same file.

    The most frequent words are a token each; others are made of pieces. Every word and piece, and
    every letter, is there a second time with a space in front: its twin.
    Raises ValueError where bytes, letters' twins and special tokens alone are more.
    """
    smallest = len(_BYTES) + len(string.ascii_letters) + len(SPECIAL_TOKENS)
    if vocabulary_size < smallest:
        raise ValueError(f"vocabulary_size {vocabulary_size}: must be at least {smallest}")
    room = (vocabulary_size - smallest) // 2  # for words and pieces: each has a twin
    counts = _count_words(texts)
    merges = _learn_merges(counts, room // _PIECES_SHARE)
    pieces = [left + right for left, right in merges]
    by_count = sorted(counts.keys() - {*pieces}, key=lambda word: (-counts[word], word))
    words = [word for word in by_count if len(word) > 1][: room - len(pieces)]
    parts = [*string.ascii_letters, *pieces]
    vocabulary = [*SPECIAL_TOKENS, *sorted(_BYTES), *pieces, *words]
    vocabulary += [_SPACE + token for token in (*parts, *words)]
    # The space is joined last, so that the rest of a word is joined as without it. Whole words
    # need no merges: `ignore_merges` looks them up.
    merges += [(_SPACE, part) for part in parts]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(numbers, merges, ignore_merges=True))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = _split()
    tokenizer.decoder = decoders.ByteLevel()
    return DialogueTokenizer(tokenizer)


def _split() -> pre_tokenizers.PreTokenizer:
    """Text into words, each with the space before it, and digits."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(_WORD, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word comes, in ByteLevel's letters, without its space."""
    split = _split()
    return Counter(
        word.removeprefix(_SPACE) for text in texts for word, _ in split.pre_tokenize_str(text)
    )


def _learn_merges(counts: Mapping[str, int], at_most: int) -> list[tuple[str, str]]:
    """What BPE joins first in these words; what it makes are pieces."""
    trainer = trainers.BpeTrainer(
        vocab_size=len(_BYTES) + at_most, initial_alphabet=_BYTES, show_progress=False
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Each word as often as it comes, in an order that is always the same.
    learner.train_from_iterator(
        (" ".join([word] * counts[word]) for word in sorted(counts)), trainer
    )
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]


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
