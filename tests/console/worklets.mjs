// What the page's worklets do with sound: the microphone's comes at any rate and goes out at 24 kHz,
// the agent's comes unevenly and is played without gaps.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

const folder = new URL('../../serve/console/worklets/', import.meta.url);
const block = 128; // samples that a worklet is called with

globalThis.AudioWorkletProcessor = class {
  port = { sent: [], postMessage(message) { this.sent.push(message); } };
};

function worklet(name, rateHz) {
  let made;
  const register = (_, Processor) => (made = new Processor());
  const code = readFileSync(new URL(`${name}.js`, folder), 'utf8');
  new Function('sampleRate', 'registerProcessor', code)(rateHz, register);
  return made;
}

// What comes out of a second of a tone at 24 kHz, without its beginning: its level in dB of what came
// in, and the level of all that is not the tone.
function captured(rateHz, toneHz) {
  const capture = worklet('capture', rateHz);
  for (let start = 0; start < rateHz; start += block) {
    const tone = (_, i) => 0.5 * Math.sin((2 * Math.PI * toneHz * (start + i)) / rateHz);
    assert(capture.process([[Float32Array.from({ length: block }, tone)]]));
  }
  for (const message of capture.port.sent) assert.equal(message.length, 480);
  const samples = capture.port.sent.flatMap((message) => [...message]).slice(4800, 21_600);
  assert.equal(samples.length, 16_800);
  let [cosine, sine] = [0, 0];
  const angle = (i) => (2 * Math.PI * toneHz * i) / 24_000;
  samples.forEach((sample, i) => {
    cosine += (2 * sample * Math.cos(angle(i))) / samples.length;
    sine += (2 * sample * Math.sin(angle(i))) / samples.length;
  });
  const rest = samples.map((sample, i) => sample - cosine * Math.cos(angle(i)) - sine * Math.sin(angle(i)));
  const power = rest.reduce((sum, value) => sum + value ** 2, 0) / samples.length;
  const decibel = (level) => 20 * Math.log10(level / (0.5 * 32_767) + 1e-9);
  return { tone: decibel(Math.hypot(cosine, sine)), rest: decibel(Math.sqrt(2 * power)) };
}

for (const rateHz of [16_000, 24_000, 44_100, 48_000]) {
  for (const toneHz of [200, 1000, 7000]) {
    const { tone, rest } = captured(rateHz, toneHz);
    assert(Math.abs(tone) < 0.1, `${toneHz} Hz at ${rateHz}: ${tone} dB`);
    assert(rest < -60, `${toneHz} Hz at ${rateHz}: ${rest} dB are something else`);
  }
}
for (const rateHz of [44_100, 48_000]) {
  const { rest } = captured(rateHz, 15_000); // would be heard at 9 kHz
  assert(rest < -60, `15 kHz at ${rateHz}: ${rest} dB are left`);
}

// Frames of 80 ms that come early and late are played as one, and an end is played to its end.
const player = worklet('player', 24_000);
const frame = (_, n) => Int16Array.from({ length: 1920 }, (_, i) => 2000 + ((1920 * n + i) % 20_011));
const frames = Array.from({ length: 50 }, frame);
const played = [];
let due = 0; // samples
const play = (ms) => {
  for (due += 24 * ms; due > 0; due -= block) {
    const sound = new Float32Array(block);
    assert(player.process([], [[sound]]));
    played.push(...sound);
  }
};
frames.forEach((frame, n) => {
  player.port.onmessage({ data: frame });
  play([80, 40, 120, 100, 60][n % 5]); // at its pace, but for 40 ms
});
play(400);
const first = played.findIndex((sample) => sample);
const sounds = played.slice(first, first + 50 * 1920).map((sample) => Math.round(sample * 32_768));
const expected = frames.flatMap((frame) => [...frame]);
assert.equal(sounds.findIndex((sample, i) => sample !== expected[i]), -1); // where they differ
assert(played.slice(first + 50 * 1920).every((sample) => !sample));

// What has come late is made up for in silences: nothing that is loud is left out.
played.length = 0;
for (const level of [...Array(10).fill(3000), ...Array(20).fill(0), 5000]) {
  player.port.onmessage({ data: new Int16Array(1920).fill(level) });
}
play(3000);
const loud = (level) => played.filter((sample) => Math.round(sample * 32_768) === level).length;
assert.equal(loud(3000), 10 * 1920);
assert.equal(loud(5000), 1920);
const span = played.findLastIndex((sample) => sample) - played.findIndex((sample) => sample);
assert(span < 12 * 1920, `${span} samples`);
