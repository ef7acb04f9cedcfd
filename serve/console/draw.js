// Paints a call's timeline on a canvas: both voices with their words, who has the floor, tool calls.
import { clock } from './dom.js';
import { nameOf, pathOf } from './icons.js';
import { frameMs } from './recording.js';

const ruler = 22;
const band = 14;
const wave = 60;
const line = 19; // of words; each side has two
const lane = 24; // of calls
const lanes = 4;
const gap = 12;
const rows = { floor: ruler + 4 };
rows.marks = rows.floor + band + 3;
rows.caller = rows.marks + 20;
rows.agent = rows.caller + wave + 2 * line + gap;
rows.calls = rows.agent + wave + 2 * line + gap;
export const height = rows.calls + lanes * lane;

const margin = 200; // right of the moment, for the names of calls that have just begun
const narrow = 560; // there is no room for the state's name: its icon does
const column = 3; // pixels from one bar of a voice to the next
const bar = 2;
const icon = 12;
const steps = [0.5, 1, 2, 5, 10, 30, 60]; // seconds between ticks
const sides = { agent: 'agent', agent_backchannel: 'agent', user: 'caller', user_backchannel: 'caller' };

// `view` has `width`, `recording`, `calls`, `endMs` (the moment that is looked at), `scale` (pixels a
// second), `colours` and `font`. Returns where each call is, to be pressed.
export function draw(canvas, view) {
  canvas.textBaseline = 'middle';
  canvas.lineWidth = 1;
  const moment = Math.round(view.width - Math.min(margin, 0.25 * view.width));
  const x = (ms) => moment - ((view.endMs - ms) * view.scale) / 1000;
  const startMs = view.endMs - (1000 * moment) / view.scale;
  const scene = { ...view, canvas, x, startMs, moment };
  drawRuler(scene);
  drawFloor(scene);
  for (const who of ['caller', 'agent']) {
    drawVoice(scene, who);
    drawWords(scene, who);
    drawTitle(scene, who === 'caller' ? 'Caller' : 'Agent', rows[who]);
  }
  drawMarks(scene);
  return drawCalls(scene);
}

function drawRuler({ canvas, x, moment, startMs, endMs, scale, colours, font }) {
  const step = steps.find((seconds) => seconds * scale >= 70) ?? 120;
  canvas.font = `11px ${font}`;
  canvas.fillStyle = colours.muted;
  canvas.strokeStyle = colours.line;
  canvas.beginPath();
  for (let s = Math.max(0, Math.ceil(startMs / 1000 / step) * step); 1000 * s <= endMs; s += step) {
    const place = Math.round(x(1000 * s)) + 0.5;
    canvas.moveTo(place, ruler);
    canvas.lineTo(place, rows.calls + lanes * lane);
    canvas.fillText(step < 1 ? `${clock(1000 * s)}.${(10 * s) % 10}` : clock(1000 * s), place + 4, ruler / 2);
  }
  canvas.stroke();
  canvas.fillStyle = colours.agent;
  canvas.fillRect(moment, ruler, 1, height);
}

function drawFloor(scene) {
  const { canvas, x, startMs, endMs, recording, colours, font } = scene;
  const last = Math.min(recording.end, Math.ceil(endMs / frameMs));
  let from = Math.max(recording.first, Math.floor(startMs / frameMs));
  canvas.font = `600 10px ${font}`;
  for (let number = from; number <= last; number++) {
    if (number < last && recording.floor(number) === recording.floor(from)) continue;
    drawStretch(scene, recording.floor(from), x(from * frameMs), x(number * frameMs));
    from = number;
  }
  canvas.fillStyle = colours.line;
  const left = Math.max(0, x(0));
  canvas.fillRect(left, rows.floor + band, scene.moment - left, 1);
}

// The caller's are striped, so that they differ in more than colour.
function drawStretch({ canvas, colours }, floor, left, right) {
  const who = sides[floor];
  if (!who) return;
  const depth = floor.endsWith('backchannel') ? band / 2 : band;
  const top = rows.floor + band - depth;
  canvas.fillStyle = who === 'agent' ? colours.agent : colours.caller;
  canvas.fillRect(left, top, right - left, depth);
  if (who === 'caller') stripe(canvas, left, top, right - left, depth, colours.surface);
  const label = floor.endsWith('backchannel') ? '' : who;
  const width = canvas.measureText(label).width;
  if (!label || right - left < width + 14) return;
  canvas.fillStyle = who === 'agent' ? colours.agent : colours.caller;
  canvas.fillRect(left + 2, top, width + 8, depth);
  canvas.fillStyle = colours.surface;
  canvas.fillText(label, left + 6, rows.floor + band / 2 + 0.5);
}

function stripe(canvas, left, top, width, depth, colour) {
  canvas.save();
  canvas.beginPath();
  canvas.rect(left, top, width, depth);
  canvas.clip();
  canvas.strokeStyle = colour;
  canvas.beginPath();
  for (let place = left - depth; place < left + width; place += 6) {
    canvas.moveTo(place, top + depth);
    canvas.lineTo(place + depth, top);
  }
  canvas.stroke();
  canvas.restore();
}

function drawVoice({ canvas, x, startMs, endMs, scale, recording, colours }, who) {
  const columnMs = (1000 * column) / scale;
  const middle = rows[who] + wave / 2;
  canvas.fillStyle = colours[who];
  canvas.beginPath();
  for (let place = Math.floor(startMs / columnMs); place * columnMs < endMs; place++) {
    const loudness = recording.loudness(who, place * columnMs, (place + 1) * columnMs);
    if (loudness < 0) continue;
    const half = Math.max(0.75, (wave / 2) * loudness ** 0.6); // quiet speech is seen as well
    canvas.roundRect(x(place * columnMs), middle - half, bar, 2 * half, 1);
  }
  canvas.fill();
}

function drawTitle({ canvas, colours, font }, title, top) {
  canvas.font = `600 11px ${font}`;
  const width = canvas.measureText(title).width;
  canvas.fillStyle = colours.surface;
  canvas.globalAlpha = 0.85;
  canvas.fillRect(0, top - 4, width + 8, 16);
  canvas.globalAlpha = 1;
  canvas.fillStyle = colours.muted;
  canvas.fillText(title, 0, top + 4);
}

// Each word stands where it was said, or as soon as there is room. Words behind a pause may go to
// the other line.
function drawWords({ canvas, x, startMs, endMs, width, recording, colours, font }, who) {
  canvas.font = `13px ${font}`;
  canvas.fillStyle = colours.ink;
  const space = canvas.measureText(' ').width;
  const free = [-Infinity, -Infinity]; // from where on, of either line
  let row = 0;
  let lastMs = -Infinity;
  for (const { ms, text } of recording.words[who]) {
    if (ms < startMs - 20_000) continue;
    if (ms > endMs) break;
    const isNew = ms - lastMs > 700;
    if (isNew && free[row] > x(ms) && free[1 - row] < free[row]) row = 1 - row;
    const left = Math.max(x(ms), free[row] + (isNew ? 2 * space : 0));
    free[row] = left + canvas.measureText(text).width + space;
    lastMs = ms;
    if (free[row] > 0 && left < width) canvas.fillText(text, left, rows[who] + wave + line * (row + 0.5));
  }
}

// A text stands beside its line, or behind the text before it.
function drawMarks({ canvas, x, endMs, recording, colours, font }) {
  canvas.font = `600 11px ${font}`;
  let free = -Infinity;
  for (const { ms, text } of recording.marks) {
    const left = Math.round(x(ms)) + 0.5;
    if (left < -300 || ms > endMs) continue;
    canvas.strokeStyle = colours.warn;
    canvas.setLineDash([4, 3]);
    canvas.beginPath();
    canvas.moveTo(left, rows.floor);
    canvas.lineTo(left, height);
    canvas.stroke();
    canvas.setLineDash([]);
    const from = Math.max(left + 5, free);
    free = from + canvas.measureText(text).width + 10;
    canvas.fillStyle = colours.warn;
    canvas.fillText(text, from, rows.marks + 8);
  }
}

function drawCalls(scene) {
  const { canvas, x, endMs, colours, font } = scene;
  const free = Array(lanes).fill(-Infinity);
  const found = [];
  canvas.font = `12px ${font}`;
  for (const call of scene.calls) {
    const startMs = call.steps[0].at_ms;
    if (startMs > endMs) continue;
    const left = x(startMs);
    const endsMs = call.isOver ? Math.min(endMs, call.steps.at(-1).at_ms) : endMs;
    const right = Math.max(left + 6, x(endsMs));
    const { state } = call.steps.findLast((step) => step.at_ms <= endMs);
    const name = call.tool || 'a call';
    const label = scene.width < narrow ? name : `${name}  ${nameOf(state)}`;
    const width = icon + 5 + canvas.measureText(label).width;
    // At its end where there is room, else behind it, where room is kept in any case.
    const isInside = right - Math.max(left, 0) > width + 12;
    const from = isInside ? right - width - 6 : Math.min(right + 6, scene.width - width - 2);
    const end = Math.max(right, from + width);
    const place = Math.max(0, free.findIndex((until) => until < left));
    free[place] = right + width + 18;
    if (end < 0) continue;
    const top = rows.calls + place * lane;
    drawCall(scene, call, { left, right, top });
    canvas.fillStyle = colours.surface;
    canvas.beginPath();
    canvas.roundRect(from - 4, top + 2, width + 8, 16, 4);
    canvas.fill();
    drawIcon(canvas, state, from, top + 4, state === 'failed' ? colours.danger : colours.agent);
    canvas.fillStyle = colours.ink;
    canvas.fillText(label, from + icon + 5, top + 10.5);
    found.push({ id: call.call_id, left, right: end, top, bottom: top + lane });
  }
  return found;
}

// A piece for each state that it was in.
function drawCall({ canvas, x, endMs, colours }, call, { left, right, top }) {
  for (const [number, step] of call.steps.entries()) {
    if (step.at_ms > endMs) break;
    const next = call.steps[number + 1];
    const from = Math.max(left, x(step.at_ms));
    const to = number && !next && call.isOver ? right : Math.min(right, next ? x(next.at_ms) : right);
    const isWaiting = step.state === 'awaiting_confirmation';
    canvas.fillStyle = isWaiting ? colours.warn : colours.agent;
    canvas.globalAlpha = { draft: 0.2, speculative: 0.35, committed: 0.5 }[step.state] ?? 1;
    canvas.fillRect(from, top + 3, Math.max(0, to - from), 14);
    canvas.globalAlpha = 1;
    const isStriped = isWaiting || !step.is_wanted;
    if (isStriped) stripe(canvas, from, top + 3, Math.max(0, to - from), 14, colours.surface);
  }
}

function drawIcon(canvas, state, left, top, colour) {
  canvas.save();
  canvas.translate(left, top);
  canvas.scale(icon / 16, icon / 16);
  canvas.strokeStyle = colour;
  canvas.lineWidth = 2;
  canvas.lineCap = canvas.lineJoin = 'round';
  canvas.stroke(new Path2D(pathOf(state)));
  canvas.restore();
}
