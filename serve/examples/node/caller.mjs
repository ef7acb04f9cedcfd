// The caller of the examples: says a recording at its real pace, keeps what it hears, tells what
// happens as one JSON object a line. The clients themselves are in the files beside it.
//
//     node serve/examples/node/openai_live.mjs http://127.0.0.1:8000 recording.wav heard.wav
//
// Recordings are WAV files of PCM16 at 24 kHz, mono.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export const apiKey = process.env.DUOLOGUE_API_KEY ?? 'none';
export const instructions = 'You answer calls of a shop. Look orders up before you speak about them.';
// The tool as JSON Schema, where a client's library does not write it.
export const orderStatusTool = {
  type: 'function',
  name: 'order_status',
  description: 'Looks up where an order is.',
  parameters: {
    type: 'object',
    properties: { order_id: { type: 'string' } },
    required: ['order_id'],
  },
};

const rateHz = 24_000;
const chunkMs = 20;
const tailS = 2; // of silence after the recording, for the agent to finish in
const voiced = 0.003; // root mean square of what is more than silence
const pauseS = 0.5; // a longer one ends what the agent says; a shorter one may be the network's

// Of the command line: the server's URL, the recording, where to keep what is heard.
export function commandLine() {
  if (process.argv.length !== 5) {
    console.error(`usage: node ${process.argv[1]} URL RECORDING.wav HEARD.wav`);
    process.exit(1);
  }
  return process.argv.slice(2);
}

export class Caller {
  #recording;
  #heardPath;
  #heard = []; // [when it began in seconds, PCM16]
  #beganMs = 0;
  #heardEndS = 0;
  #spoken = []; // [start, end] in seconds

  constructor(recording, heardPath) {
    const file = readFileSync(recording);
    const tail = Buffer.alloc(2 * rateHz * tailS);
    this.#recording = Buffer.concat([file.subarray(file.indexOf('data') + 8), tail]);
    this.#heardPath = heardPath;
  }

  // Of the call, since the recording began.
  get nowS() {
    return this.#beganMs ? (performance.now() - this.#beganMs) / 1000 : 0;
  }

  // Prints what has happened, and when in the call.
  tell(event, details = {}) {
    console.log(JSON.stringify({ event, at_s: round(this.nowS), ...details }));
  }

  // How long the recording is, in seconds.
  get lengthS() {
    return this.#recording.length / 2 / rateHz;
  }

  // From now on the recording is said.
  begins() {
    this.#beganMs = performance.now();
  }

  // The recording, 20 ms at a time, each when a microphone would have it.
  async *says() {
    this.begins();
    const size = (2 * rateHz * chunkMs) / 1000;
    for (let start = 0; start < this.#recording.length; start += size) {
      const dueMs = (start / size + 1) * chunkMs;
      await sleep(Math.max(0, dueMs - this.nowS * 1000));
      yield this.#recording.subarray(start, start + size);
    }
  }

  // Takes PCM16 of the agent's, as it comes in.
  hears(audio) {
    const startS = this.nowS - this.#heardEndS > pauseS ? this.nowS : this.#heardEndS;
    this.#heardEndS = startS + audio.length / 2 / rateHz;
    this.#heard.push([startS, audio]);
    let power = 0;
    for (let i = 0; i < audio.length; i += 2) power += (audio.readInt16LE(i) / 32_768) ** 2;
    if (Math.sqrt(power / (audio.length / 2)) < voiced) return;
    if (!this.#spoken.length || startS - this.#spoken.at(-1)[1] > pauseS) {
      this.#spoken.push([startS, startS]);
      this.tell('agent_speaks');
    }
    this.#spoken.at(-1)[1] = this.#heardEndS;
  }

  // Where an order is, as JSON: the tool that the agent calls.
  orderStatus({ order_id }) {
    this.tell('tool_call', { name: 'order_status', arguments: { order_id } });
    const output = JSON.stringify({ order_id, status: 'shipped' });
    this.tell('result_sent', { output });
    return output;
  }

  // Keeps what was heard in a file, and tells when (in seconds) the agent spoke.
  hangsUp() {
    const samples = Buffer.alloc(2 * Math.ceil(this.#heardEndS * rateHz + 1));
    for (const [startS, audio] of this.#heard) audio.copy(samples, 2 * Math.round(startS * rateHz));
    writeFileSync(this.#heardPath, Buffer.concat([wavHeader(samples.length), samples]));
    const when = this.#spoken.map((span) => span.map(round));
    this.tell('heard', { seconds: round(when.reduce((sum, [a, b]) => sum + b - a, 0)), when });
    this.tell('closed');
  }
}

function round(seconds) {
  return Math.round(seconds * 1000) / 1000;
}

function wavHeader(size) {
  const header = Buffer.alloc(44);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + size, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(rateHz, 24);
  header.writeUInt32LE(2 * rateHz, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36);
  header.writeUInt32LE(size, 40);
  return header;
}
