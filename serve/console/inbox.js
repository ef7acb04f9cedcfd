// What waits for a human: cards that come, and go when nobody has to do anything any more.
import { announce, byId, element } from './dom.js';

const cards = new Map(); // by what they are about

export function hasCard(id) {
  return cards.has(id);
}

// `spoken` is said to who does not look.
export function addCard(id, spoken, ...content) {
  removeCard(id);
  const card = element('li', { class: 'wait', 'data-card': id }, ...content);
  cards.set(id, card);
  byId('inbox').prepend(card);
  announce(spoken);
  count();
}

export function removeCard(id) {
  const card = cards.get(id);
  if (!card) return;
  const hadFocus = card.contains(document.activeElement);
  card.remove();
  cards.delete(id);
  if (hadFocus) (byId('inbox').querySelector('button:not(:disabled)') ?? byId('inbox-title')).focus();
  count();
}

// Why something was not done.
export function tellOnCard(id, text) {
  const place = cards.get(id)?.querySelector('.problem');
  if (place) place.textContent = text;
}

function count() {
  document.title = `${cards.size ? `(${cards.size}) ` : ''}Duologue console`;
}
