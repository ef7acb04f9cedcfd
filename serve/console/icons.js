// The states of a call: what they are called, and how they are drawn, on the page and on a canvas.

// Lines in a square of 16.
const paths = {
  draft: 'M8 3a5 5 0 1 0 .01 0M8 8h.01',
  speculative: 'M8 3a5 5 0 1 0 .01 0M8 5.5V8l1.8 1.8',
  committed: 'M3 8h9M9 4.5 12.5 8 9 11.5',
  awaiting_confirmation: 'M6 4v8M10 4v8',
  running: 'M5.5 3.5v9L12.5 8z',
  succeeded: 'M3 8.5 6.5 12 13 4.5',
  failed: 'M4 4l8 8M12 4l-8 8',
  cancelled: 'M8 3a5 5 0 1 0 .01 0M4.5 11.5l7-7',
  superseded: 'M3 4l4 4-4 4M8.5 4l4 4-4 4',
  compensated: 'M4 4v4h4M4.2 7.8A4.8 4.8 0 1 1 5 11.5',
};

const names = { awaiting_confirmation: 'waits for a word' };

export const ended = new Set(['succeeded', 'failed', 'cancelled', 'superseded', 'compensated']);

export function nameOf(state) {
  return names[state] ?? state;
}

export function pathOf(state) {
  return paths[state] ?? paths.draft;
}

// For the page; the state's name stands beside it.
export function iconOf(state) {
  const place = 'http://www.w3.org/2000/svg';
  const icon = document.createElementNS(place, 'svg');
  icon.setAttribute('viewBox', '0 0 16 16');
  icon.setAttribute('class', 'icon');
  icon.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(place, 'path');
  path.setAttribute('d', pathOf(state));
  icon.append(path);
  return icon;
}
