// Who is on the line, and which call the page watches.
import { byId, element, notify, short } from './dom.js';
import { ask } from './api.js';
import { pressedTwice } from './twice.js';

export class Sessions extends EventTarget {
  watched = '';
  #known = new Map(); // by id; the watched one stays when it has ended
  #feed;

  constructor(feed) {
    super();
    this.#feed = feed;
    feed.on('hello', ({ sessions }) => this.#begin(sessions));
    feed.on('session.opened', ({ session }) => this.#open(session));
    feed.on('session.ended', ({ session_id, reason }) => this.#end(session_id, reason));
    feed.on('session.taken_over', ({ session_id, operator }) => this.#operate(session_id, operator));
    feed.on('session.handed_back', ({ session_id }) => this.#operate(session_id, ''));
    byId('session').addEventListener('change', ({ target }) => this.watch(target.value));
    pressedTwice(byId('end-call'), () => ['End call', 'Press again to end it'], () => this.#hangUp());
    this.#show();
  }

  // What is known of the watched one, undefined where there is none.
  get current() {
    return this.#known.get(this.watched);
  }

  // `listener` is called when another call is watched, and when something about it has changed.
  onChange(listener) {
    this.addEventListener('change', listener);
  }

  watch(id) {
    const old = this.current;
    if (old?.ended && id !== this.watched) this.#known.delete(this.watched);
    this.watched = id;
    this.#feed.send({ type: 'watch', session_id: id || null });
    this.#changed();
  }

  #begin(sessions) {
    const old = this.current;
    this.#known = new Map(sessions.map((session) => [session.id, session]));
    if (old && !this.current) this.#known.set(old.id, { ...old, ended: old.ended ?? 'lost' });
    if (this.current && !this.current.ended) this.watch(this.watched);
    else if (!this.watched && sessions.length) this.watch(sessions.at(-1).id);
    else this.#changed();
  }

  #open(session) {
    this.#known.set(session.id, session);
    if (this.watched) this.#changed();
    else this.watch(session.id);
  }

  #end(id, reason) {
    const session = this.#known.get(id);
    if (session && id === this.watched) session.ended = reason;
    else this.#known.delete(id);
    this.#changed();
  }

  #operate(id, operator) {
    const session = this.#known.get(id);
    if (session) session.operator = operator;
    this.#changed();
  }

  async #hangUp() {
    try {
      await ask(`/console/sessions/${this.watched}/hang_up`, {});
    } catch (error) {
      notify(`The call was not ended. ${error.message}`);
    }
  }

  #changed() {
    this.#show();
    this.dispatchEvent(new Event('change'));
  }

  #show() {
    const none = element('option', { value: '' }, this.#known.size ? 'No call' : 'Nobody is on the line');
    const options = [...this.#known.values()].map((session) =>
      element('option', { value: session.id }, named(session)),
    );
    byId('session').replaceChildren(none, ...options);
    byId('session').value = this.watched;
    byId('end-call').disabled = !this.current || Boolean(this.current.ended);
  }
}

function named({ id, tenant, dialect, opened_at, operator, ended }) {
  const since = new Date(1000 * opened_at).toLocaleTimeString([], { timeStyle: 'short' });
  const more = ended ? `ended: ${ended.replaceAll('_', ' ')}` : operator ? `${operator} has it` : '';
  return [`${tenant} ${short(id)}`, dialect, `since ${since}`, more].filter(Boolean).join(' · ');
}
