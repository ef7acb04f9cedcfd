// Small things that every part of the page needs.

export const byId = (id) => document.getElementById(id);

// An element with these attributes and children; what is false or null is left out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

// Says something to who does not look at the page.
export function announce(text) {
  byId('announce').textContent = text;
}

// Tells what has gone wrong, until somebody has read it.
export function notify(text) {
  const close = element('button', { type: 'button', class: 'quiet' }, 'Dismiss');
  const notice = element('div', { class: 'notice' }, element('p', {}, text), close);
  close.addEventListener('click', () => notice.remove());
  const notices = byId('notices');
  for (const one of [...notices.children]) {
    if (one.firstChild.textContent === text) one.remove();
  }
  notices.append(notice);
}

// Milliseconds of a call as minutes and seconds.
export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

// What a call is given, on one line.
export function summary(given) {
  const pairs = Object.entries(given ?? {});
  return pairs.map(([name, value]) => `${name} ${written(value)}`).join(', ');
}

export function written(value) {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

// A session's id is long: so much of it tells it from others.
export const short = (id) => id.slice(0, 6);
