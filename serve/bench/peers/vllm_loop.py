"""vLLM's streaming sessions: each frame of a caller is a token that goes to his request, and one
that comes back. Run by peers.py in an environment of its own (`make peers`), without this project.

    .venv-vllm/bin/python serve/bench/peers/vllm_loop.py SPEECH.npy SECONDS THREADS CALLERS...

What it serves is a Llama of the sizes of nano's temporal transformer: no codec, no depth
transformer and no speech, which vLLM has none of. Weights are random. Prints a line of JSON for
each number of callers.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

FRAME_S = 0.08
COLD_FRAMES = 12
WORDS = 2048
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 704, "vocab_size": WORDS, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "float32",
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


async def caller(engine, name: str, offset_s: float, begun_s: float, frames: int) -> list[float]:
    """Seconds from each frame's time to the token that answers it."""
    from vllm import SamplingParams
    from vllm.engine.protocol import StreamingInput
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        max_tokens=1, temperature=0.8, ignore_eos=True, detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )  # fmt: skip
    due_s = [begun_s + offset_s + FRAME_S * number for number in range(frames)]

    async def say() -> AsyncIterator[StreamingInput]:
        for number, at_s in enumerate(due_s):
            await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
            yield StreamingInput(prompt={"prompt_token_ids": [3 + number % (WORDS - 3)]})

    found = []
    async for output in engine.generate(say(), sampling, name):
        if output.outputs and output.outputs[0].token_ids:
            found.append(time.perf_counter() - due_s[len(found)])
    return found[COLD_FRAMES:]


async def measure(folder: str, seconds: float, counts: list[int]) -> None:
    """All numbers of callers, one after the other, in one engine."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=folder, load_format="dummy", dtype="float32", skip_tokenizer_init=True,
            enforce_eager=True, max_model_len=4096, max_num_seqs=max(counts),
        )
    )  # fmt: skip
    about = (
        "a Llama of 6 layers of 256 alone, as temporal transformer: no codec, no codes, no sound"
    )
    print(json.dumps({"about": about}), flush=True)
    frames = COLD_FRAMES + int(seconds / FRAME_S)
    for count in counts:
        begun_s = time.perf_counter() + FRAME_S
        found = await asyncio.gather(
            *(
                caller(engine, f"{n} of {count}", FRAME_S * n / count, begun_s, frames)
                for n in range(count)
            )
        )
        print(json.dumps({"callers": count, "latency_s": [*chain(*found)]}), flush=True)
    engine.shutdown()


def main(_speech: str, seconds: str, threads: str, *callers: str) -> None:
    """The speech is not heard: no codec makes tokens of it."""
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads, "VLLM_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(LLAMA))
        asyncio.run(measure(folder, float(seconds), [*map(int, callers)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
