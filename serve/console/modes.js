// How much tools may do: for all, for a tenant, for a tool, for the watched call.
import { announce, byId, element, notify, short } from './dom.js';
import { ask } from './api.js';

const names = { normal: 'Normal', confirm_all: 'Confirm all', read_only: 'Read only', off: 'Off' };

export class Modes extends EventTarget {
  #set = {}; // by scope; what is normal is not in it
  #rows = new Map();
  #added = new Set(); // scopes that somebody has asked for here
  #sessions;
  #ledger;

  constructor(feed, sessions, ledger) {
    super();
    this.#sessions = sessions;
    this.#ledger = ledger;
    feed.on('hello', ({ modes }) => this.#take(modes));
    feed.on('mode.changed', ({ scope, mode, actor }) => {
      const { [scope]: _, ...others } = this.#set;
      this.#take(mode === 'normal' ? others : { ...others, [scope]: mode });
      announce(`${titleOf(scope)}: ${names[mode]}, set by ${actor.replace('operator:', '')}.`);
    });
    sessions.onChange(() => this.#show());
    ledger.onChange(({ tool }) => tool && !this.#rows.has(`tool:${tool}`) && this.#show());
    byId('add-scope').addEventListener('submit', (event) => this.#add(event));
    this.#show();
  }

  of(scope) {
    return this.#set[scope] ?? 'normal';
  }

  // `listener` is called when some may be others.
  onChange(listener) {
    this.addEventListener('change', listener);
  }

  async change(scope, mode) {
    try {
      this.#take((await ask('/console/modes', { scope, mode })).modes);
      if (this.of(scope) !== mode) {
        notify(`${titleOf(scope)} stays "${names[this.of(scope)]}": the server's file of modes says so.`);
      }
    } catch (error) {
      notify(`The mode was not changed. ${error.message}`);
    }
  }

  #take(modes) {
    this.#set = modes;
    this.#show();
    this.dispatchEvent(new Event('change'));
  }

  #add(event) {
    event.preventDefault();
    const { kind, name } = event.target.elements;
    this.#added.add(`${kind.value}:${name.value.trim()}`);
    this.#show();
    this.#rows.get(`${kind.value}:${name.value.trim()}`).querySelector('button').focus();
    event.target.reset();
  }

  #scopes() {
    const { watched, current } = this.#sessions;
    const tools = this.#ledger.of(watched).map(({ tool }) => tool && `tool:${tool}`);
    const call = current && !current.ended ? [`tenant:${current.tenant}`, `session:${watched}`] : [];
    const others = [...tools, ...Object.keys(this.#set), ...this.#added].filter(Boolean);
    return [...new Set(['all', ...call, ...others])];
  }

  // Rows stay where they are, so that who is at one stays there.
  #show() {
    const scopes = this.#scopes();
    for (const [scope, row] of this.#rows) {
      if (scopes.includes(scope)) continue;
      row.remove();
      this.#rows.delete(scope);
    }
    for (const scope of scopes) {
      if (!this.#rows.has(scope)) this.#rows.set(scope, this.#row(scope));
      const row = this.#rows.get(scope);
      const list = byId(this.#isMain(scope) ? 'modes' : 'other-modes');
      if (row.parentElement !== list) list.append(row);
      const title = titleOf(scope, this.#sessions.watched);
      row.firstChild.textContent = title;
      row.lastChild.setAttribute('aria-label', `Mode: ${title}`);
      for (const button of row.querySelectorAll('button')) {
        button.setAttribute('aria-pressed', button.value === this.of(scope));
      }
    }
    const set = scopes.filter((scope) => this.#set[scope] && !this.#isMain(scope)).length;
    byId('others').textContent = `Single tools, other tenants${set ? `: ${set} not normal` : ''}`;
    byId('others').dataset.set = set > 0;
  }

  // What holds for the watched call stands first; the rest is folded away.
  #isMain(scope) {
    const { watched, current } = this.#sessions;
    return ['all', `tenant:${current?.tenant}`, `session:${watched}`].includes(scope);
  }

  #row(scope) {
    const buttons = Object.entries(names).map(([mode, name]) => {
      const button = element('button', { type: 'button', value: mode }, name);
      button.addEventListener('click', () => this.change(scope, mode));
      return button;
    });
    const choice = element('div', { class: 'choice', role: 'group' }, ...buttons);
    return element('li', {}, element('span', { class: 'scope' }), choice);
  }
}

function titleOf(scope, watched) {
  const [kind, name] = [scope.split(':')[0], scope.slice(scope.indexOf(':') + 1)];
  if (kind === 'all') return 'Everything';
  if (kind === 'session') return name === watched ? 'This call' : `Call ${short(name)}`;
  return `${kind === 'tool' ? 'Tool' : 'Tenant'} ${name}`;
}
