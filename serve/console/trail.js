// What the audit log says of a call.
import { element, written } from './dom.js';
import { ask } from './api.js';

const columns = ['Line', 'Time', 'What', 'Who', 'More', 'Hash'];

// Filled as soon as the server has told it.
export function trailOf(id) {
  const place = element('div', {}, element('p', { class: 'hint' }, 'The audit trail comes …'));
  fill(place, id);
  return place;
}

async function fill(place, id) {
  try {
    const { lines } = await ask(`/console/calls/${encodeURIComponent(id)}`);
    const nothing = element('p', { class: 'hint' }, 'The audit log has no line of it yet.');
    place.replaceChildren(lines.length ? tableOf(lines) : nothing);
  } catch (error) {
    place.replaceChildren(element('p', { class: 'hint' }, `The audit trail can't be read. ${error.message}`));
  }
}

function tableOf(lines) {
  const heads = columns.map((name) => element('th', { scope: 'col' }, name));
  const head = element('thead', {}, element('tr', {}, ...heads));
  const body = element('tbody', {}, ...lines.map(rowOf));
  const table = element('table', {}, element('caption', {}, 'Audit trail'), head, body);
  // It is wider than a phone: it scrolls by itself, by keyboard as well.
  const name = { class: 'wide', tabindex: '0', role: 'group', 'aria-label': 'Audit trail' };
  return element('div', name, table);
}

function rowOf({ place, at, kind, actor, before, after, details, hash }) {
  const change = before || after ? `${kind}: ${[before, after].filter(Boolean).join(' → ')}` : kind;
  const more = details ? linesOf(details) : 'erased';
  const cells = [place, timeOf(at), change.replaceAll('_', ' '), actor, more];
  const short = element('code', { title: hash }, hash.slice(0, 10));
  return element('tr', {}, ...[...cells.map(String), short].map((cell) => element('td', {}, cell)));
}

// Hashes are long: the first letters do.
function linesOf(details) {
  const cut = (value) => (/^[0-9a-f]{64}$/.test(value) ? `${value.slice(0, 10)} …` : written(value));
  return Object.entries(details).map(([name, value]) => `${name} ${cut(value)}`).join('\n');
}

function timeOf(at) {
  const time = new Date(at);
  return `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, '0')}`;
}
