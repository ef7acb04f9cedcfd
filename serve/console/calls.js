// The tool calls as a list, newest first. One that is opened shows all that is known of it.
import { announce, byId, element, short, summary, written } from './dom.js';
import { iconOf, nameOf } from './icons.js';
import { trailOf } from './trail.js';

export class Calls {
  #items = new Map(); // by the call's id
  #ledger;
  #sessions;
  #watched = '';

  constructor(sessions, ledger) {
    this.#ledger = ledger;
    this.#sessions = sessions;
    ledger.onChange((call) => this.#take(call));
    sessions.onChange(() => sessions.watched !== this.#watched && this.#refill());
    byId('calls-all').addEventListener('change', () => this.#refill());
  }

  // Opens one and goes to it.
  open(id) {
    const item = this.#items.get(id);
    if (!item) return;
    item.firstChild.open = true;
    item.scrollIntoView({ block: 'nearest' });
    item.querySelector('summary').focus();
  }

  #refill() {
    this.#watched = this.#sessions.watched;
    this.#items.clear();
    byId('calls').replaceChildren();
    for (const call of this.#ledger.calls.values()) if (this.#isShown(call)) this.#show(call);
  }

  #isShown(call) {
    return byId('calls-all').checked || call.session_id === this.#watched;
  }

  #take(call) {
    if (!this.#isShown(call)) return;
    this.#show(call);
    if (call.isOver && call.tool && !call.how) announce(`${call.tool} ${nameOf(call.state)}.`);
  }

  #show(call) {
    let item = this.#items.get(call.call_id);
    if (!item) {
      item = this.#add(call);
      this.#items.set(call.call_id, item);
      byId('calls').prepend(item);
    }
    const [details] = item.children;
    details.firstChild.replaceChildren(...headOf(call, byId('calls-all').checked));
    details.querySelector('.about').replaceChildren(...factsOf(call));
    if (details.open && call.isOver) details.querySelector('.trail').replaceChildren(trailOf(call.call_id));
  }

  #add({ call_id }) {
    const trail = element('div', { class: 'trail' });
    const details = element(
      'details', {}, element('summary'), element('dl', { class: 'about' }), trail,
    );
    details.addEventListener('toggle', () => details.open && trail.replaceChildren(trailOf(call_id)));
    return element('li', { 'data-call': call_id }, details);
  }
}

function headOf(call, isOfAll) {
  const isDropped = !call.is_wanted && !call.isOver;
  const state = element(
    'span', { class: 'state', 'data-state': call.state },
    iconOf(call.state), isDropped ? 'runs on, unwanted' : nameOf(call.state),
  );
  const about = element('span', { class: 'given' }, summary(call.arguments));
  const name = element('span', { class: 'tool' }, call.tool || 'a call');
  const more = [call.supersedes && 'a correction', isOfAll && short(call.session_id)].filter(Boolean);
  return [state, name, element('span', { class: 'more' }, more.join(' · ')), about];
}

function factsOf(call) {
  const { arguments: given, result, confidence, steps } = call;
  const facts = {
    Arguments: given && Object.keys(given).length ? code(given) : 'none',
    Result: result ? code(result) : null,
    Reason: call.reason,
    Confidence: call.tool ? `${Math.round(100 * confidence)} %` : null,
    Effect: call.tool ? `${call.effect}, run by ${call.is_client_run ? 'the client' : 'this server'}` : null,
    Revision: call.revision ? `${call.revision}, in place of ${call.supersedes}` : null,
    'Told to the agent': call.how ? call.how.replaceAll('_', ' ') : null,
    'May take': call.tool ? `${call.deadline_ms / 1000} s` : null,
    'Idempotency key': call.tool ? element('code', {}, call.idempotency_key) : null,
    States: steps.map(({ state, at_ms }) => `${nameOf(state)} at ${(at_ms / 1000).toFixed(2)} s`).join(', '),
  };
  return Object.entries(facts)
    .filter(([, value]) => value)
    .map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value)));
}

function code(given) {
  const pairs = Object.entries(given).map(([name, value]) => `${name}: ${written(value)}`);
  return element('code', { class: 'block' }, pairs.join('\n'));
}
