// Calls that wait for a human's word: confirm or refuse, while there is time.
import { announce, element, notify, short } from './dom.js';
import { ask } from './api.js';
import { addCard, hasCard, removeCard, tellOnCard } from './inbox.js';

const whose = {
  voice: "the caller's spoken yes, or yours",
  dtmf: 'a key that the caller presses, or your word',
  console: "an operator's word",
  supervisor: "a supervisor's word",
};

export class Approvals {
  #feed;
  #waiting = new Map(); // by approval id

  constructor(feed) {
    this.#feed = feed;
    feed.on('hello', ({ approvals }) => {
      for (const id of [...this.#waiting.keys()]) this.#remove(id);
      for (const one of approvals) this.#add(one);
    });
    feed.on('tool.confirm.request', (one) => this.#add(one));
    feed.on('tool.call', (call) => this.#changed(call));
    feed.on('session.ended', ({ session_id }) =>
      this.#removeWhere((one) => one.session_id === session_id));
    setInterval(() => this.#tick(), 1000);
  }

  #add(one) {
    const isAllowed = one.method !== 'supervisor' || this.#feed.method === 'supervisor';
    const confirm = element('button', { class: 'primary', type: 'button', disabled: !isAllowed }, 'Confirm');
    const refuse = element('button', { type: 'button' }, 'Refuse');
    confirm.addEventListener('click', () => this.#answer(one, 'approve'));
    refuse.addEventListener('click', () => this.#answer(one, 'refuse'));
    const left = element('span', { class: 'left' });
    this.#waiting.set(one.approval_id, { ...one, left });
    const why = isAllowed ? '' : 'It takes a supervisor to confirm it. You may refuse it.';
    const about = `Session ${short(one.session_id)}. It takes ${whose[one.method]}.`;
    addCard(
      one.approval_id,
      `A call waits for your word: ${one.prompt}`,
      element('p', { class: 'prompt' }, one.prompt),
      element('p', { class: 'hint' }, `${about} `, left),
      element('p', { class: 'problem', role: 'status' }, why),
      element('p', { class: 'row' }, confirm, refuse),
    );
    this.#tick();
  }

  async #answer(one, answer) {
    try {
      await ask(`/console/approvals/${encodeURIComponent(one.approval_id)}`, { answer });
      announce(answer === 'approve' ? 'Confirmed.' : 'Refused.');
      this.#remove(one.approval_id);
    } catch (error) {
      if (error.status === 404 || error.status === 409) {
        this.#remove(one.approval_id);
        notify(`${one.prompt}: your word came too late. ${error.message}`);
      } else {
        tellOnCard(one.approval_id, `Not done. ${error.message}`);
      }
    }
  }

  #changed({ call_id, state, is_wanted }) {
    if (state === 'awaiting_confirmation' && is_wanted) return;
    this.#removeWhere((one) => one.call_id === call_id);
  }

  #removeWhere(is) {
    for (const one of [...this.#waiting.values()]) if (is(one)) this.#remove(one.approval_id);
  }

  #remove(id) {
    this.#waiting.delete(id);
    if (hasCard(id)) removeCard(id);
  }

  #tick() {
    for (const { expires_at, left } of this.#waiting.values()) {
      const seconds = Math.max(0, Math.round(expires_at - Date.now() / 1000));
      left.textContent = seconds ? `${seconds} s are left.` : 'Its time is over.';
    }
  }
}
