"""What training a duplex model leaves to look at and to listen to: calls that it takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from data.scripts.backend import Backend
from data.scripts.domain import load_domain
from data.suites.suite import load_suites
from train.scoring.dialogue_loop import Caller, caller_of, converse
from train.scoring.dialogue_suite import usable_voices
from train.talk import leave


class DialogueSamples(Callback):
    """At each evaluation the first item of each of `suites`, in closed loop, is left in
    `folder`/samples/ITEM-STEP: the conversation, its events and a picture.

    The module that is trained has a method `agent()` that returns a `model.agent.Agent`, in
    evaluation mode. `voices` names those of data/suites that say the items.
    """

    def __init__(
        self,
        folder: str,
        domain: str = "front_desk",
        suites: Sequence[str] = ("single", "barge_in"),
        voices: str = "seen",
    ) -> None:
        known = load_suites(domain)
        if not {*suites} <= {*known.suites} or voices not in known.voices:
            raise ValueError(f"suites {[*suites]} or voices {voices!r}: {domain} has none such")
        self.folder, self.domain, self.suites, self.voices = folder, domain, suites, voices

    @rank_zero_only
    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Talks, unless Lightning only tries whether validation works."""
        if trainer.sanity_checking:
            return
        agent = pl_module.agent()  # type: ignore[operator]
        backend = Backend(load_domain(self.domain))
        for caller, conversation in converse(agent, self._callers(), 1, backend):
            out = Path(self.folder) / "samples" / f"{caller.name}-{trainer.global_step:07}"
            out.mkdir(parents=True, exist_ok=True)
            leave(conversation, out)

    def _callers(self) -> Iterator[Caller]:
        known = load_suites(self.domain)
        voices, missing = usable_voices(known.voices[self.voices])
        if not voices:
            rank_zero_warn(f"no dialogue samples: {'; '.join(missing)}")
            return
        for suite in self.suites:
            agent = known.voices["agent"][0]
            yield caller_of(known.suites[suite].dialogue(0, voices, agent, known.lines["clean"]))
