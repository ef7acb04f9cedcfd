// Plays sound as it comes in, without gaps.
import { rateHz } from './pcm.js';

export class Speaker {
  #context = null;
  #player = null;

  // To be called behind a press of a button: browsers play nothing before one.
  async open() {
    this.#context = new AudioContext({ sampleRate: rateHz });
    await this.#context.audioWorklet.addModule('/console/static/worklets/player.js');
    this.#player = new AudioWorkletNode(this.#context, 'player', { numberOfInputs: 0 });
    this.#player.connect(this.#context.destination);
    await this.#context.resume();
  }

  // PCM16 at 24 kHz.
  play(samples) {
    this.#player?.port.postMessage(samples, [samples.buffer]);
  }

  close() {
    this.#context?.close();
    this.#context = this.#player = null;
  }
}
