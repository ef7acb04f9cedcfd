"""Reads the agent's text stream: which phones are due at each frame, and how soon.

One token a frame comes in, `<pad>` where there is none; one with a space in front begins a word. A
word's sound begins `lead` frames after its first token. Out of the words around that moment come
the numbers that the speech transformer embeds. Nothing is learnt here but how words are spelled.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.frame import FRAME_SIZE, SAMPLE_RATE_HZ
from model.ops import kept, kernels_for
from model.spelling import PHONES, Spelling, SpellingConfig, letters_of
from model.streaming import State, keep
from model.tokens import STYLES, DialogueTokenizer

_FRAME_S = FRAME_SIZE / SAMPLE_RATE_HZ
_MARKS = (
    ",;:",
    ".",
    "?",
    "!",
)  # behind a word, numbered from 2: 1 is a word without any, 0 no word
_ROLES = (-1, 0, 1, 2)  # the word before the one that is being said, that one, and the next two
_HINTS = 4  # phones of 20 ms within a frame, and one on either side
_HINT_S = _FRAME_S / _HINTS
_LONG_AGO = 23  # frames
_SLOWEST = 1.7  # times a word's usual duration
_SLOWEST_BEFORE_PAUSE = 1.3  # the next word says little about how long this one lasts
_FASTEST = 0.5
_STYLE_FRAMES = 12  # of silence, after which a style is over


@dataclass(frozen=True)
class ReaderConfig:
    """`vocabulary` tokens; times in frames of 80 ms.

    A frame is spoken from `early` frames before a word's sound until `tail` frames after the word
    would have ended if it were said slowly.
    """

    vocabulary: int
    lead: int = 5
    early: int = 2
    tail: int = 3
    spelling: SpellingConfig = field(default_factory=SpellingConfig)

    def __post_init__(self) -> None:
        assert self.vocabulary > 0, f"vocabulary {self.vocabulary} must be positive"
        assert 0 < self.early <= self.lead, f"early {self.early} must be in 1..lead, {self.lead}"
        assert self.tail >= 0, f"tail {self.tail} must be at least 0"

    @property
    def words(self) -> int:
        """That are remembered: those still to come, the one being said and the one before it."""
        return self.lead + 2

    @property
    def roles(self) -> int:
        """Words that the features tell of; their columns come first, one word after the other."""
        return len(_ROLES)

    @property
    def word_sizes(self) -> tuple[int, ...]:
        """How many values each column of a word has: its phones and its mark."""
        return (*[len(PHONES) + 1] * self.spelling.phones, len(_MARKS) + 2)

    @property
    def frame_sizes(self) -> tuple[int, ...]:
        """And those of the columns behind the words: times, phones within the frame, style."""
        times = (_LONG_AGO + 2, _LONG_AGO + 2, self.lead + 2, self.lead + 2)
        return (*times, *[len(PHONES) + 1] * (_HINTS + 2), len(STYLES) + 1)


@dataclass
class ReaderState(State):
    """The last words, the newest in the last place; all int64.

    `letters` [B, words, letters], `phones` [B, words, phones], `mark` [B, words], `age` [B, words]
    (frames since the first token, from 1; 0 where there is no word), `style` [B] (0: neutral).
    """

    letters: Tensor
    phones: Tensor
    mark: Tensor
    age: Tensor
    style: Tensor


class Reading(NamedTuple):
    """`features` int64 [B, T, columns], `is_spoken` bool [B, T]: there is something to be said."""

    features: Tensor
    is_spoken: Tensor


class Reader(nn.Module):
    """Text tokens int64 [B, T] -> Reading, any T."""

    token_letters: Tensor
    token_mark: Tensor
    token_style: Tensor
    token_begins: Tensor
    phone_s: Tensor

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.spelling = Spelling(config.spelling)
        tokens, letters = config.vocabulary, config.spelling.letters
        self.register_buffer("token_letters", torch.zeros(tokens, letters, dtype=torch.int64))
        self.register_buffer("token_mark", torch.zeros(tokens, dtype=torch.int64))
        self.register_buffer("token_style", torch.zeros(tokens, dtype=torch.int64))
        self.register_buffer("token_begins", torch.zeros(tokens, dtype=torch.bool))
        self.register_buffer("phone_s", torch.full((len(PHONES) + 1,), 0.08))
        self.phone_s[0] = 0.0

    def set_vocabulary(self, tokenizer: DialogueTokenizer) -> None:
        """Learns what each token writes; raises ValueError where there are too many of them."""
        if len(tokenizer) > self.config.vocabulary:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens: must be at most the vocabulary's "
                f"{self.config.vocabulary}"
            )
        styles = {tokenizer.id_of(f"<{name}>"): number for number, name in enumerate(STYLES, 1)}
        for token in range(len(tokenizer)):
            text = tokenizer.decode([token])
            self.token_style[token] = styles.get(token, 0)
            if text.startswith("<") and text.endswith(">"):
                continue
            letters = letters_of(text)[: self.token_letters.shape[1]]
            self.token_letters[token, : len(letters)] = torch.tensor(letters, dtype=torch.int64)
            marks = [number for number, mark in enumerate(_MARKS, 2) if text[-1:] in mark]
            self.token_mark[token] = marks[0] if text and marks else 0
            self.token_begins[token] = text.startswith(" ")

    def init_state(self, batch: int) -> ReaderState:
        """A fresh state for `batch` rows."""
        words, spelling = self.config.words, self.config.spelling
        sizes = ((words, spelling.letters), (words, spelling.phones), (words,), (words,), ())
        return ReaderState(*(self.token_mark.new_zeros(batch, *size) for size in sizes))

    @torch.no_grad()
    def forward(
        self, text: Tensor, state: ReaderState | None = None, active: Tensor | None = None
    ) -> Reading:
        state = self.init_state(len(text)) if state is None else state
        if text.shape[1] == 1 and (ops := kernels_for(self.phone_s)):
            return self._step(ops, text, state, active)
        readings = [self._read(token, state, active) for token in text.unbind(1)]
        return Reading(*(torch.stack(part, dim=1) for part in zip(*readings, strict=True)))

    def _step(self, ops: Any, text: Tensor, state: ReaderState, active: Tensor | None) -> Reading:
        """The same for a single step, as one operator."""
        config, spelling = self.config, self.spelling
        tables = [self.token_letters, self.token_mark, self.token_style]
        features, is_spoken = ops.reader_step(
            text[:, 0].contiguous(),
            tables,
            self.token_begins,
            [self.phone_s, *kept(spelling, spelling.weights)],
            *state.tensors(),
            active,
            config.lead,
            config.early,
            config.tail,
            config.spelling.kernel,
        )
        return Reading(features[:, None], is_spoken[:, None])

    def _read(self, token: Tensor, state: ReaderState, active: Tensor | None) -> Reading:
        """One token a row [B]: remembers it and looks at the words around this frame."""
        words = self._with_token(token, state)
        pending = ((words.age > 0) & (words.age <= self.config.lead)).sum(1)  # [B]
        places = (
            self.config.words - 1 - pending[:, None] + torch.tensor(_ROLES, device=token.device)
        )
        around = self._around(words, places)
        is_spoken, is_long_over = self._is_spoken(around)
        features = self._features(around, words.style)
        style = torch.where(is_long_over & (self.token_style[token] == 0), 0, words.style)
        for old, new in zip(state.tensors(), (*list(words.tensors())[:-1], style), strict=True):
            keep(old, new, active)
        return Reading(features, is_spoken)

    def _with_token(self, token: Tensor, state: ReaderState) -> ReaderState:
        """The words a frame later, with what the token [B] adds to them."""
        letters, mark = self.token_letters[token], self.token_mark[token]  # [B, letters], [B]
        is_written = (letters[:, 0] > 0) | (mark > 0)
        begins = self.token_begins[token] | (is_written & (state.age[:, -1] == 0))
        age = _moved(state.age + (state.age > 0), begins)
        age[:, -1] = torch.where(begins, 1, age[:, -1])
        words = ReaderState(
            _moved(state.letters, begins), _moved(state.phones, begins), _moved(state.mark, begins),
            age, torch.where(self.token_style[token] > 0, self.token_style[token], state.style),
        )  # fmt: skip
        words.mark[:, -1] = torch.where(mark > 0, mark, torch.where(begins, 1, words.mark[:, -1]))
        grows = letters[:, 0] > 0  # [B]
        if grows.any():
            newest = _appended(words.letters[grows, -1], letters[grows])
            words.letters[grows, -1] = newest
            words.phones[grows, -1] = self.spelling(newest)
        return words

    def _around(self, words: ReaderState, places: Tensor) -> "_Around":
        """The words in the four roles, 0 where there is none."""
        is_there = (places >= 0) & (places < self.config.words)  # [B, 4]
        places = places.clamp(0, self.config.words - 1)
        age = words.age.gather(1, places) * is_there
        is_there = age > 0
        index = places[:, :, None].expand(-1, -1, words.phones.shape[2])
        phones = words.phones.gather(1, index) * is_there[:, :, None]
        mark = words.mark.gather(1, places) * is_there
        return _Around(phones, mark, is_there, age - 1 - self.config.lead)

    def _is_spoken(self, around: "_Around") -> tuple[Tensor, Tensor]:
        """Whether there is something to be said [B], and whether the last of it is long over."""
        usual_s = self.phone_s[around.phones[:, 1]].cumsum(1)[:, -1]  # [B], in the hints' order
        most = (usual_s * _SLOWEST / _FRAME_S).ceil().long() + self.config.tail
        since, next_is_due = around.since[:, 1], around.since[:, 2] >= -self.config.early
        is_said = around.is_there[:, 1] & (since <= most)
        is_long_over = (since == most + _STYLE_FRAMES) & ~around.is_there[:, 2]
        return is_said | (around.is_there[:, 2] & next_is_due), is_long_over

    def _features(self, around: "_Around", style: Tensor) -> Tensor:
        """Columns of `word_sizes` for each word, then those of `frame_sizes`: [B, columns]."""
        soon = self.config.lead + 1
        ago = torch.where(around.is_there, around.since.clamp(0, _LONG_AGO) + 1, 0)[:, :2]
        until = torch.where(around.is_there, -around.since, 0).clamp(0, soon)[:, 2:]
        hints = self._hints(around)
        words = torch.cat([around.phones, around.mark[:, :, None]], dim=2).flatten(1)
        return torch.cat([words, ago, until, hints, style[:, None]], dim=1)

    def _hints(self, around: "_Around") -> Tensor:
        """The phones that are probably being said within this frame, and those beside them [B, 6].

        A word's phones last as long as they usually do, all of them longer or shorter where the
        next word's beginning is known.
        """
        before, phones, after = around.phones[:, 0], around.phones[:, 1], around.phones[:, 2]
        ends_s = self.phone_s[phones].cumsum(1)  # [B, phones]
        has_next, since = around.is_there[:, 2], around.since[:, 1]
        gap_s = (since - around.since[:, 2]) * _FRAME_S
        slowest = torch.where(around.mark[:, 1] > 1, _SLOWEST_BEFORE_PAUSE, _SLOWEST)
        longer = (gap_s / ends_s[:, -1].clamp(min=_HINT_S)).clamp(min=_FASTEST).minimum(slowest)
        ends_s = ends_s * torch.where(has_next, longer, 1.0)[:, None]
        # A word begins, on average, in the middle of the frame that it begins in.
        middles = (torch.arange(_HINTS, device=since.device) + 0.5) * _HINT_S - _FRAME_S / 2
        now_s = since[:, None] * _FRAME_S + middles  # [B, 4]
        count = (phones > 0).sum(1, keepdim=True)  # [B, 1]
        index = ((ends_s[:, None] <= now_s[:, :, None]) & (phones > 0)[:, None]).sum(2)  # [B, 4]
        # Behind this word's phones stand the next one's, once that is as good as begun.
        begun = torch.where((has_next & (around.since[:, 2] >= -1))[:, None], after, 0)
        said = torch.where(index < count, _pick(phones, index), begun[:, :1])
        last = _pick(before, (before > 0).sum(1, keepdim=True) - 1)
        left = torch.where(index[:, :1] > 0, _pick(phones, index[:, :1] - 1), last)
        right = index[:, -1:] + 1
        coming = _pick(torch.where(has_next[:, None], after, 0), right - count)
        right = torch.where(right < count, _pick(phones, right), coming)
        return torch.cat([left, said, right], dim=1) * around.is_there[:, 1:2]


class _Around(NamedTuple):
    """The words in their roles: `phones` [B, 4, phones], `mark`, `is_there` and `since` [B, 4]
    (frames since the sound begins, negative before it)."""

    phones: Tensor
    mark: Tensor
    is_there: Tensor
    since: Tensor


def _moved(x: Tensor, begins: Tensor) -> Tensor:
    """[B, words, ...] with room for a new word in the last place where one begins (bool [B])."""
    later = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)
    return torch.where(begins.view(-1, *[1] * (x.dim() - 1)), later, x)


def _appended(letters: Tensor, more: Tensor) -> Tensor:
    """Both [N, letters], filled up with 0: the first with the second behind it, cut at its end."""
    count = (letters > 0).sum(1, keepdim=True)
    place = torch.arange(letters.shape[1], device=letters.device) - count  # [N, letters]
    return torch.where(place >= 0, _pick(more, place), letters)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """x [N, S] at index [N, n], at the nearest place there is."""
    return x.gather(1, index.clamp(0, x.shape[1] - 1))
