"""`python -m data.check_words experiment=NAME dialogues=200 out=FILE`: are words at their times?

Makes dialogues of a corpus without the caller's line (the first five of each shard) and lets
pocketsphinx, which knows nothing of the synthesisers, find the words of every turn, with 0.3 s of
sound before and behind it where nothing else is said there. Writes a report and a Markdown table
of the labelled times less those that it finds. A turn in which it does not hear the words gives no
difference; its words are counted and named. It hears few of espeak-ng's turns, so there are figures
with and without that engine. Silence at the edges of a word that it finds is cut off as it is off
the labels.
"""

import functools
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from data.dialogue import Dialogue, Spell
from data.dialogue_corpus import DialogueCorpus
from data.ingest.align import align
from data.ingest.dropped import AlignmentError
from data.report import Begun, Figure, check_out, grid, write_report
from data.voices.utterance import Word

_OF_A_SHARD = 5  # dialogues
_MARGIN_S = 0.3
_SLACK_S = 1e-6
_APART = "espeak"  # the engine on which the aligner fails
_COLUMNS = {
    "words": "words",
    "words_unheard": "not heard",
    "word_start_error_median_ms": "start: median error, ms",
    "word_start_error_p95_ms": "95th percentile",
    "word_start_shift_median_ms": "median, signed",
    "word_end_error_median_ms": "end: median error, ms",
    "word_end_error_p95_ms": "95th percentile",
    "word_end_shift_median_ms": "median, signed",
}


class Difference(NamedTuple):
    """A word's labelled beginning and end less those that are heard, in seconds."""

    voice: str
    text: str
    start_s: float
    end_s: float


class Unheard(NamedTuple):
    """A turn in which the aligner does not hear the words, and what it says about it."""

    voice: str
    words: int
    reason: str


class Found(NamedTuple):
    """What came of some turns."""

    differences: list[Difference]
    unheard: list[Unheard]


class Turn(NamedTuple):
    """A spell, its words, and between which times nobody else is on its channel."""

    spell: Spell
    words: tuple[Word, ...]
    start_s: float
    end_s: float


def turns(dialogue: Dialogue) -> Iterator[Turn]:
    """Every spell of both sides in which words of the dialogue are said."""
    for side, words in enumerate(dialogue.words):
        spells = [s for s in dialogue.spells if s.side == side and s.manner != "background"]
        spells.sort(key=lambda spell: spell.start_s)
        starts_s = [spell.start_s - _SLACK_S for spell in spells]
        owners = np.searchsorted(starts_s, [word.start_s for word in words], "right") - 1
        for number, spell in enumerate(spells):
            before_s = spells[number - 1].end_s if number else 0.0
            after_s = spells[number + 1].start_s if number + 1 < len(spells) else dialogue.seconds
            yield Turn(
                spell,
                tuple(words[index] for index in np.flatnonzero(owners == number)),
                max(spell.start_s - _MARGIN_S, min(before_s, spell.start_s)),
                min(spell.end_s + _MARGIN_S, max(after_s, spell.end_s)),
            )


def check(dialogue: Dialogue, voices: tuple[str, str]) -> Found:
    """Aligns every turn of a dialogue whose agent and user have these `voices`."""
    found = Found([], [])
    for turn in turns(dialogue):
        voice = voices[turn.spell.side]
        text = " ".join(word.text for word in turn.words)
        audio = dialogue.audio[turn.spell.side]
        try:
            heard = align(text, audio, turn.start_s, turn.end_s)
        except AlignmentError as error:
            found.unheard.append(Unheard(voice, len(turn.words), str(error)))
            continue
        found.differences.extend(
            Difference(voice, label.text, label.start_s - word.start_s, label.end_s - word.end_s)
            for label, word in zip(turn.words, heard, strict=True)
        )
    return found


def check_number(corpus: DialogueCorpus, number: int) -> Found:
    """Checks a dialogue of the corpus."""
    dialogue = corpus.spoken(*divmod(number, _OF_A_SHARD))
    agent, _, user = dialogue.source.partition(", ")[2].partition(" and ")
    return check(dialogue, (agent, user))


def figures(found: Found) -> dict[str, Figure]:
    """Errors over all voices, over those of other engines than espeak-ng, and by voice, in ms."""
    named: dict[str, Figure] = {}
    for name, part in parts(found).items():
        suffix = "" if name == "all" else "_" + re.sub(r"\W+", "_", name)
        lost = sum(turn.words for turn in part.unheard)
        words = len(part.differences) + lost
        named[f"words{suffix}"] = Figure(words, words, "words")
        named[f"words_unheard{suffix}"] = Figure(lost, words, "words")
        for edge in ("start", "end") if part.differences else ():
            errors_ms = 1000 * np.array([getattr(one, f"{edge}_s") for one in part.differences])
            for key, value in {
                "error_median_ms": np.median(np.abs(errors_ms)),
                "error_p95_ms": np.percentile(np.abs(errors_ms), 95),
                "shift_median_ms": np.median(errors_ms),
            }.items():
                named[f"word_{edge}_{key}{suffix}"] = Figure(float(value), len(errors_ms), "ms")
    return named


def parts(found: Found) -> dict[str, Found]:
    """All that was found, that of other engines than espeak-ng, that of each voice."""
    voices = sorted({one.voice for one in itertools.chain(found.differences, found.unheard)})
    chosen = {"all": voices, "other_engines": [v for v in voices if not v.startswith(_APART)]}
    chosen |= {voice: [voice] for voice in voices}
    return {
        name: Found(
            [one for one in found.differences if one.voice in among],
            [one for one in found.unheard if one.voice in among],
        )
        for name, among in chosen.items()
    }


def as_markdown(found: Found) -> str:
    """A row a voice, and why the aligner did not hear some turns."""
    value = {name: figure.value for name, figure in figures(found).items()}
    rows = []
    for name in parts(found):
        suffix = "" if name == "all" else "_" + re.sub(r"\W+", "_", name)
        cells = [value.get(f"{column}{suffix}") for column in _COLUMNS]
        rows.append([name, *("" if cell is None else f"{cell:,.0f}" for cell in cells)])
    apart = sum(turn.words for turn in found.unheard if turn.voice.startswith(_APART))
    notes = [
        f"- {turn.voice}, {turn.words} words: {turn.reason}"
        for turn in found.unheard
        if not turn.voice.startswith(_APART)
    ]
    notes.append(f"- {_APART}'s voices, {apart:,} words in all")
    table = grid(["voice", *_COLUMNS.values()], rows)
    return table + "\nNot heard:\n\n" + "\n".join(notes) + "\n"


@hydra.main(version_base=None, config_path="../conf", config_name="check_words")
def main(cfg: DictConfig) -> None:
    """Hydra entry point."""
    begun, out = Begun(), Path(cfg.out)
    corpus = instantiate(cfg.corpus, _convert_="object")
    if not isinstance(corpus, DialogueCorpus):
        raise SystemExit("experiment: must be one of dialogues")
    try:
        check_out(out)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    found = Found([], [])
    with ProcessPoolExecutor(cfg.processes) as pool:
        done = pool.map(functools.partial(check_number, corpus), range(cfg.dialogues))
        for one in tqdm(done, total=cfg.dialogues, unit="dialogue"):
            found.differences.extend(one.differences)
            found.unheard.extend(one.unheard)
    markdown = as_markdown(found)
    write_report(out, "word_times", begun, figures(found), markdown)
    print(markdown)


if __name__ == "__main__":
    main()
