// The keys that a server with tenants asks for. They are kept for this tab alone.
import { byId } from './dom.js';

const place = (whose) => `duologue.key.${whose}`;

// That of the `operator` or of the `client`, '' where there is none.
export function keyOf(whose) {
  return sessionStorage.getItem(place(whose)) ?? '';
}

// The header of a request.
export function authorization(whose) {
  const key = keyOf(whose);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// Asks for both, and resolves to whether they were given. `why` says what is wrong with those there
// are.
export function askForKeys(why) {
  const dialog = byId('keys');
  byId('keys-why').textContent = why;
  for (const whose of ['operator', 'client']) byId(`key-${whose}`).value = keyOf(whose);
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    const keep = () => {
      const isGiven = dialog.returnValue === 'given';
      for (const whose of isGiven ? ['operator', 'client'] : []) {
        sessionStorage.setItem(place(whose), byId(`key-${whose}`).value.trim());
      }
      resolve(isGiven);
    };
    dialog.addEventListener('close', keep, { once: true });
  });
}
