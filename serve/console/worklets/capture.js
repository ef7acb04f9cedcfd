// The microphone at the context's own rate, as PCM16 at 24 kHz, 20 ms a message. (Not every browser
// lets a context have another rate than the microphone.)

const rateHz = 24_000;
const size = 480; // samples of a message
const crossings = 32; // of the filter, on either side

const step = sampleRate / rateHz; // samples that come, for one that goes out
const cutoff = Math.min(1, 1 / step);
const reach = Math.ceil(crossings / cutoff);

class Capture extends AudioWorkletProcessor {
  #held = new Float32Array(2 * reach + 4096); // what came and is still needed
  #length = reach; // silence before the first
  #place = reach; // in what is held, of the next that goes out
  #kernels = new Map(); // by how far a place lies behind a sample
  #message = new Int16Array(size);
  #filled = 0;

  process([[samples]]) {
    if (!samples) return true; // nothing is connected yet
    this.#held.set(samples, this.#length);
    this.#length += samples.length;
    for (; Math.floor(this.#place) + reach < this.#length; this.#place += step) this.#put(this.#next());
    const past = Math.floor(this.#place) - reach;
    this.#held.copyWithin(0, past, this.#length);
    this.#length -= past;
    this.#place -= past;
    return true;
  }

  #next() {
    const nearest = Math.floor(this.#place);
    const kernel = this.#kernel(this.#place - nearest);
    let sum = 0;
    for (let i = 0; i < kernel.length; i++) sum += kernel[i] * this.#held[nearest - reach + 1 + i];
    return sum;
  }

  // A low pass (sinc under a Hann window).
  #kernel(behind) {
    const name = Math.round(behind * 4096);
    if (!this.#kernels.has(name)) {
      const tap = (_, i) => {
        const distance = i - reach + 1 - behind;
        const angle = Math.PI * cutoff * distance;
        const window = 0.5 + 0.5 * Math.cos((Math.PI * distance) / reach);
        return cutoff * (angle ? Math.sin(angle) / angle : 1) * window;
      };
      this.#kernels.set(name, Float32Array.from({ length: 2 * reach }, tap));
    }
    return this.#kernels.get(name);
  }

  #put(sample) {
    this.#message[this.#filled++] = Math.round(32_767 * Math.max(-1, Math.min(1, sample)));
    if (this.#filled < size) return;
    this.port.postMessage(this.#message.slice());
    this.#filled = 0;
  }
}

registerProcessor('capture', Capture);
