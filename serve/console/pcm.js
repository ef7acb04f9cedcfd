// Sound in messages: PCM16 at 24 kHz, mono, as base64.

export const rateHz = 24_000;

export function samplesOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

// Of at most some thousand samples.
export function textOf(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));
}
