// The tool calls that the page has been told of, and how each came to be where it is.
import { ended } from './icons.js';

const most = 300;

export class Ledger extends EventTarget {
  // By id: what was told last, and `steps`, each a state with the time in the session (`at_ms`), the
  // time of day (`at`) and whether the call was still wanted.
  calls = new Map();

  constructor(feed) {
    super();
    feed.on('tool.call', (told) => this.#take(told));
    feed.on('tool.result', ({ call_id, how }) => this.#given(call_id, how));
    feed.on('session.ended', ({ session_id }) => this.#leave((session) => session === session_id));
    feed.on('hello', ({ sessions }) => this.#leave((session) => !sessions.some(({ id }) => id === session)));
  }

  // `listener` gets each call that has changed.
  onChange(listener) {
    this.addEventListener('change', ({ detail }) => listener(detail));
  }

  of(session) {
    return [...this.calls.values()].filter((call) => call.session_id === session);
  }

  #take(told) {
    const { type, ...call } = told;
    const steps = this.calls.get(call.call_id)?.steps ?? [];
    const last = steps.at(-1);
    if (last?.state !== call.state || last.is_wanted !== call.is_wanted) {
      steps.push({ state: call.state, is_wanted: call.is_wanted, at_ms: call.at_ms, at: new Date() });
    }
    const how = this.calls.get(call.call_id)?.how ?? '';
    this.#keep({ ...call, steps, how, isOver: ended.has(call.state) });
  }

  // The agent has been given what it brought.
  #given(id, how) {
    const call = this.calls.get(id);
    if (call) this.#keep({ ...call, how });
  }

  // What had not come to an end in sessions that `hasEnded` will not be told of any more.
  #leave(hasEnded) {
    for (const call of [...this.calls.values()]) {
      if (!call.isOver && hasEnded(call.session_id)) this.#keep({ ...call, isOver: true });
    }
  }

  #keep(call) {
    this.calls.set(call.call_id, call);
    if (this.calls.size > most) this.calls.delete(this.calls.keys().next().value);
    this.dispatchEvent(new CustomEvent('change', { detail: call }));
  }
}
