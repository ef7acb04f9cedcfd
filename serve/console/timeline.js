// The timeline of the watched call: follows it, or stands still at a moment that somebody looks at.
import { announce, byId, clock, element } from './dom.js';
import { draw, height } from './draw.js';
import { Recording, frameMs } from './recording.js';

const scales = [25, 50, 100, 200]; // pixels a second
const narrow = 560; // pixels: more of the call is shown there
const lateMs = 400; // further behind, the picture jumps
const stillMs = 1000; // without a frame, nothing moves
const names = ['ink', 'muted', 'line', 'surface', 'agent', 'caller', 'warn', 'danger'];
const isCalm = matchMedia('(prefers-reduced-motion: reduce)');

export class Timeline {
  recording = new Recording();
  #canvas = byId('timeline');
  #sessions;
  #ledger;
  #pressed; // is called with the id of a call
  #colours = {};
  #font = '';
  #width = 0;
  #zoomed = null; // which scale somebody wants
  #heldMs = null; // where it stands still
  #shownMs = 0;
  #drawnAt = 0;
  #framedAt = 0;
  #isDue = false;
  #places = [];
  #watched = '';

  constructor(feed, sessions, ledger, pressed) {
    this.#sessions = sessions;
    this.#ledger = ledger;
    this.#pressed = pressed;
    feed.on('frame', (frame) => frame.session_id === this.#watched && this.#take(frame));
    const mark = (id, text) => id === this.#watched && this.#mark(text);
    feed.on('session.taken_over', ({ session_id, operator }) => mark(session_id, `${operator} takes over`));
    feed.on('session.handed_back', ({ session_id }) => mark(session_id, 'the agent goes on'));
    feed.on('handoff.requested', ({ session_id }) => mark(session_id, 'a human is asked for'));
    feed.on('mode.changed', ({ scope, mode }) =>
      this.#mark(`${scope === 'all' ? 'tools' : scope.replace(':', ' ')}: ${mode.replaceAll('_', ' ')}`));
    ledger.onChange(() => this.#draw());
    sessions.onChange(() => this.#change());
    this.#canvas.style.height = `${height}px`;
    new ResizeObserver(() => this.#fit()).observe(this.#canvas);
    this.#listen();
  }

  // The colours may be others.
  recolour() {
    const style = getComputedStyle(this.#canvas);
    for (const name of names) {
      this.#canvas.style.color = `var(--${name})`;
      this.#colours[name] = style.color;
    }
    this.#font = style.fontFamily;
    this.#draw();
  }

  get #endMs() {
    return this.recording.end * frameMs;
  }

  get #firstMs() {
    return this.recording.first * frameMs;
  }

  #take(frame) {
    this.recording.add(frame);
    this.#framedAt = performance.now();
    byId('timeline-empty').hidden = true;
    for (const id of ['pause', 'moment']) byId(id).disabled = false;
    this.#draw();
  }

  #mark(text) {
    if (this.recording.end) this.recording.mark(text);
    this.#draw();
  }

  #change() {
    const { watched, current } = this.#sessions;
    if (watched !== this.#watched) {
      this.#watched = watched;
      this.recording = new Recording();
      this.#heldMs = null;
      this.#shownMs = 0;
      byId('timeline-empty').hidden = Boolean(watched);
      for (const id of ['pause', 'moment']) byId(id).disabled = true;
      byId('pause').textContent = 'Pause';
    }
    const whose = current ? `Timeline of the call of ${current.tenant}` : 'Timeline: no call is watched';
    this.#canvas.setAttribute('aria-label', `${whose}. The words and the tool calls stand below in writing.`);
    this.#draw();
  }

  #listen() {
    const moment = byId('moment');
    moment.addEventListener('input', () => this.#hold(Number(moment.value)));
    byId('pause').addEventListener('click', () => {
      if (this.#heldMs === null) this.#hold(this.#shownMs);
      else this.#follow();
    });
    byId('zoom-in').addEventListener('click', () => this.#zoom(1));
    byId('zoom-out').addEventListener('click', () => this.#zoom(-1));
    this.#canvas.addEventListener('wheel', (event) => {
      const by = event.shiftKey ? event.deltaY : event.deltaX;
      if (!by) return;
      event.preventDefault();
      this.#move(by);
    }, { passive: false });
    this.#drag();
  }

  #drag() {
    let from = null;
    let moved = 0;
    this.#canvas.addEventListener('pointerdown', (event) => {
      from = event.clientX;
      moved = 0;
      this.#canvas.setPointerCapture(event.pointerId);
    });
    this.#canvas.addEventListener('pointermove', (event) => {
      if (from === null) return;
      moved += Math.abs(event.clientX - from);
      if (moved > 4) this.#move(from - event.clientX);
      from = event.clientX;
    });
    this.#canvas.addEventListener('pointercancel', () => (from = null));
    this.#canvas.addEventListener('pointerup', ({ offsetX, offsetY }) => {
      from = null;
      if (moved > 4) return;
      const is = ({ left, right, top, bottom }) =>
        offsetX >= left && offsetX <= right && offsetY >= top && offsetY <= bottom;
      const place = this.#places.find(is);
      if (place) this.#pressed(place.id);
    });
  }

  #move(pixels) {
    if (this.recording.end) this.#hold(this.#shownMs + (1000 * pixels) / this.#scale);
  }

  get #scale() {
    return scales[this.#zoomed ?? this.#usual];
  }

  get #usual() {
    return this.#width < narrow ? 1 : 2;
  }

  #zoom(by) {
    this.#zoomed = Math.max(0, Math.min(scales.length - 1, (this.#zoomed ?? this.#usual) + by));
    byId('zoom-in').disabled = this.#zoomed === scales.length - 1;
    byId('zoom-out').disabled = !this.#zoomed;
    announce(`${Math.round(this.#width / this.#scale)} seconds are shown.`);
    this.#draw();
  }

  #hold(ms) {
    if (this.#heldMs === null) announce('The timeline stands still; the call goes on.');
    this.#heldMs = Math.max(this.#firstMs + frameMs, Math.min(this.#endMs, ms));
    byId('pause').textContent = 'Go live';
    this.#draw();
  }

  #follow() {
    this.#heldMs = null;
    byId('pause').textContent = 'Pause';
    announce('The timeline follows the call.');
    this.#draw();
  }

  #fit() {
    this.#width = this.#canvas.clientWidth;
    this.#canvas.width = this.#width * devicePixelRatio;
    this.#canvas.height = height * devicePixelRatio;
    this.#draw();
  }

  // At the next picture that the screen shows.
  #draw() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame((now) => {
      this.#isDue = false;
      this.#paint(now);
    });
  }

  #paint(now) {
    const isMoving = this.#heldMs === null && now - this.#framedAt < stillMs;
    this.#shownMs = this.#heldMs ?? this.#followed(now - this.#drawnAt);
    this.#drawnAt = now;
    const context = this.#canvas.getContext('2d');
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.#width, height);
    if (!this.recording.end) return;
    this.#places = draw(context, {
      width: this.#width,
      recording: this.recording,
      calls: this.#ledger.of(this.#watched),
      endMs: this.#shownMs,
      scale: this.#scale,
      colours: this.#colours,
      font: this.#font,
    });
    this.#tell();
    if (isMoving && !isCalm.matches) this.#draw();
  }

  // It moves on evenly, though frames come unevenly.
  #followed(passedMs) {
    const behindMs = this.#endMs - this.#shownMs;
    if (isCalm.matches || Math.abs(behindMs) > lateMs) return this.#endMs;
    const speed = behindMs > 2 * frameMs ? 1.1 : behindMs < 0 ? 0.9 : 1;
    return Math.min(this.#shownMs + speed * passedMs, this.#endMs + frameMs);
  }

  #tell() {
    const moment = byId('moment');
    moment.min = this.#firstMs;
    moment.max = this.#endMs;
    moment.value = this.#shownMs;
    moment.setAttribute('aria-valuetext', clock(this.#shownMs));
    byId('moment-text').textContent = clock(this.#shownMs);
  }
}

const legend = [
  ['agent', 'Agent'], ['caller', 'Caller'], ['waiting', 'Waits for a word'], ['early', 'Not yet certain'],
];
byId('legend').append(
  ...legend.map(([kind, text]) => element('li', {}, element('span', { class: `swatch ${kind}` }), text)),
);
