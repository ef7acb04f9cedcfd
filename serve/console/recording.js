// What the page has heard of one call: how loud both were, their words, who had the floor, and what
// happened when. Sound itself is not kept.
import { samplesOf } from './pcm.js';

export const frameMs = 80;
export const peakMs = 10;
const peaks = frameMs / peakMs;
const most = (20 * 60_000) / frameMs; // frames: 20 minutes
const pauseMs = 1000; // a word behind a longer one begins another line

export class Recording {
  first = 0; // frames that there are: from this one
  end = 0; // up to before this one
  marks = []; // { ms, text }: a human took over, and the like
  words = { caller: [], agent: [] }; // { ms, text }: pieces of a word are one
  lines = []; // { who, ms, lastMs, text }: the same words as they follow each other
  #frames = new Map();

  add({ number, caller, agent, caller_text, agent_text, floor }) {
    if (!this.#frames.size) this.first = number;
    this.end = Math.max(this.end, number + 1);
    this.#frames.set(number, { floor, caller: peaksOf(caller), agent: peaksOf(agent) });
    for (; this.end - this.first > most; this.first++) this.#frames.delete(this.first);
    this.#say('caller', number * frameMs, caller_text);
    this.#say('agent', number * frameMs, agent_text);
  }

  mark(text) {
    this.marks.push({ ms: this.end * frameMs, text });
  }

  // Who has it in a frame; undefined where the page has not heard that.
  floor(number) {
    return this.#frames.get(number)?.floor;
  }

  // How loud somebody was at most from `startMs` to `endMs`, 0 to 1; -1 where it was not heard.
  loudness(who, startMs, endMs) {
    let loudest = -1;
    const last = Math.max(Math.floor(startMs / peakMs) + 1, Math.floor(endMs / peakMs));
    for (let place = Math.floor(startMs / peakMs); place < last; place++) {
      const frame = this.#frames.get(Math.floor(place / peaks));
      if (frame) loudest = Math.max(loudest, frame[who][place % peaks] / 255);
    }
    return loudest;
  }

  #say(who, ms, text) {
    if (!text) return;
    const words = this.words[who];
    const last = words.at(-1);
    if (last && !/^\s/.test(text) && ms - last.lastMs < pauseMs) {
      Object.assign(last, { text: last.text + text.trimEnd(), lastMs: ms });
    } else {
      words.push({ ms, lastMs: ms, text: text.trim() });
    }
    const line = this.lines.findLast((one) => one.who === who);
    if (line && ms - line.lastMs < pauseMs) {
      Object.assign(line, { text: line.text + text, lastMs: ms });
    } else {
      this.lines.push({ who, ms, lastMs: ms, text });
    }
  }
}

function peaksOf(sound) {
  const samples = samplesOf(sound);
  const size = samples.length / peaks;
  return Uint8Array.from({ length: peaks }, (_, place) => {
    let loudest = 0;
    for (let i = Math.floor(place * size); i < Math.floor((place + 1) * size); i++) {
      loudest = Math.max(loudest, Math.abs(samples[i]));
    }
    return Math.round((255 * loudest) / 32_768);
  });
}
