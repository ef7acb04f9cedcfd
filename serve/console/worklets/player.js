// Plays PCM16 at the context's rate as it comes in. It begins when some of it is there, and again
// after it has run dry, so that messages which come unevenly make no gaps. What waits too long is
// made up for in silences.

const startMs = 120;
const latestMs = 280; // more waits: silence is left out
const mostMs = 3000; // more waits: the oldest is left out
const silent = 100; // of 32,768

class Player extends AudioWorkletProcessor {
  #chunks = [];
  #offset = 0; // of the first chunk
  #waiting = 0; // samples
  #isPlaying = false;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#take(data);
  }

  process(_, [[sound]]) {
    this.#isPlaying = this.#waitsMs >= (this.#isPlaying ? 0 : startMs) && this.#waiting > 0;
    for (let i = 0; this.#isPlaying && i < sound.length && this.#waiting; i++) {
      sound[i] = this.#chunks[0][this.#offset++] / 32_768;
      this.#waiting--;
      if (this.#offset === this.#chunks[0].length) {
        this.#chunks.shift();
        this.#offset = 0;
      }
    }
    return true;
  }

  get #waitsMs() {
    return (1000 * this.#waiting) / sampleRate;
  }

  #take(samples) {
    if (!samples.length) return;
    if (this.#waitsMs > latestMs && samples.every((sample) => Math.abs(sample) < silent)) return;
    this.#chunks.push(samples);
    this.#waiting += samples.length;
    while (this.#waitsMs > mostMs) {
      this.#waiting -= this.#chunks.shift().length - this.#offset;
      this.#offset = 0;
    }
  }
}

registerProcessor('player', Player);
