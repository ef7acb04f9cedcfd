"""An agent that plays what dialogues' labels say, or what a test has made of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.dialogue import AGENT, Action, Dialogue
from data.voices.utterance import SAMPLE_RATE_HZ, Word
from model.action_session import ActionEvent
from model.agent import AgentFrame
from model.frame import FRAME_S, FRAME_SIZE
from model.tokens import PAD, DialogueTokenizer, train_tokenizer

_SAID = 2e-1  # loudness of noise in place of speech


class Part(NamedTuple):
    """What is played in one call."""

    actions: tuple[Action, ...]
    agent_words: tuple[Word, ...]
    user_words: tuple[Word, ...]
    pcm: NDArray[np.float32]
    floor: NDArray[np.uint8]


def part_of(dialogue: Dialogue) -> Part:
    """The labels' agent, with noise for speech where its voice is silent."""
    pcm = dialogue.audio[AGENT].copy()
    if not pcm.any():
        noise = np.random.default_rng(0).normal(0, _SAID, len(pcm)).astype(np.float32)
        for spell in dialogue.spells:
            if spell.side == AGENT:
                span = slice(*(round(s * SAMPLE_RATE_HZ) for s in (spell.start_s, spell.end_s)))
                pcm[span] = noise[span]
    made = tuple(action for action in dialogue.actions if action.kind != "result")
    return Part(made, *dialogue.words, pcm, dialogue.floor())


def tokenizer_of(dialogues: Iterable[Dialogue]) -> DialogueTokenizer:
    """One in which nearly every word is one token."""
    texts = [f" {w.text}" for d in dialogues for words in d.words for w in words]
    return train_tokenizer(texts * 3, 3000)


class LabelAgent:
    """Plays `parts`, one after the other as calls begin."""

    def __init__(self, parts: Sequence[Part], tokenizer: DialogueTokenizer) -> None:
        self.tokenizer = tokenizer
        self.parts = list(parts)
        self.begun: list[tuple[int, str, Sequence[Mapping[str, Any]], int]] = []
        self.given: list[tuple[int, int, int, Mapping[str, Any]]] = []  # row, frame, number, result

    def init_state(self, batch: int) -> list["Row | None"]:
        return [None] * batch

    def begin(self, state, row: int, system: str, tools, seed: int) -> None:
        self.begun.append((row, system, tools, seed))
        state[row] = Row(self.parts.pop(0), self.tokenizer)

    def give(self, state, row: int, number: int, result: Mapping[str, Any]) -> None:
        self.given.append((row, state[row].frame, number, result))

    def step(self, state, pcm: Tensor, active: Tensor | None = None) -> AgentFrame:
        assert pcm.shape == (len(state), FRAME_SIZE)
        assert active is not None
        batch = len(state)
        silent = torch.full((batch,), self.tokenizer.id_of(PAD))
        floor = torch.zeros(batch, dtype=torch.int64)
        frame = AgentFrame(torch.zeros(pcm.shape), silent, silent.clone(), floor, [])
        for number, row in enumerate(state):
            if active[number]:
                row.play(number, frame)
        return frame


class Row:
    """One call."""

    def __init__(self, part: Part, tokenizer: DialogueTokenizer) -> None:
        self.part, self.frame, self.numbers = part, 0, {}
        spoken = ((int(w.start_s / FRAME_S) - 1, w) for w in part.agent_words)
        heard = ((int(w.end_s / FRAME_S), w) for w in part.user_words)
        self.agent_text, self.user_text = _laid(spoken, tokenizer), _laid(heard, tokenizer)

    def play(self, row: int, frame: AgentFrame) -> None:
        """What is heard in the next frame of the caller's."""
        first = (self.frame + 1) * FRAME_SIZE
        heard = self.part.pcm[first : first + FRAME_SIZE]
        frame.pcm[row, : len(heard)] = torch.from_numpy(heard)
        if self.frame in self.agent_text:
            frame.agent_text[row] = self.agent_text[self.frame]
        if self.frame in self.user_text:
            frame.user_text[row] = self.user_text[self.frame]
        if self.frame < len(self.part.floor):
            frame.floor[row] = int(self.part.floor[self.frame])
        for action in self.part.actions:
            opens_s = min([action.time_s, *action.known_s.values()])
            if action.kind in ("call", "revise") and int(opens_s / FRAME_S) == self.frame:
                self.numbers[action.number] = len(self.numbers) + 1
                frame.events.append(self._event(row, "opened", action))
            if int(action.time_s / FRAME_S) == self.frame:
                frame.events.append(self._event(row, "made", action))
        self.frame += 1

    def _event(self, row: int, kind: Any, action: Action) -> ActionEvent:
        number = self.numbers.get(action.number, action.number)
        tool = "" if action.kind == "handoff" else action.tool
        return ActionEvent(row, kind, number, action.kind, tool, action.arguments, 0.9)


def _laid(words: Iterable[tuple[int, Word]], tokenizer: DialogueTokenizer) -> dict[int, int]:
    """Each word's tokens from its frame on, as soon as the one before is done: {frame: token}."""
    text: dict[int, int] = {}
    free = 0
    for frame, word in words:
        for token in tokenizer.encode(f" {word.text}"):
            free = max(free, frame) + 1
            text[free - 1] = token
    return text
