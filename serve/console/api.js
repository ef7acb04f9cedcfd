// What the page asks the server by HTTP, and why it was not done, in words.
import { authorization } from './keys.js';

// `status` is HTTP's, 0 where nobody answers.
export class Refused extends Error {
  constructor(status, code, message, retryAfterS = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfterS });
  }
}

// The answer to a GET, or to a POST of `body`. Throws Refused.
export async function ask(path, body) {
  const headers = { ...authorization('operator'), 'Content-Type': 'application/json' };
  const post = { method: 'POST', headers, body: JSON.stringify(body) };
  return (await request(path, body === undefined ? { headers } : post)).json();
}

// The response, where it is one of success. Throws Refused.
export async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
  } catch {
    throw new Refused(0, 'unreachable', 'The server does not answer.');
  }
  if (response.ok) return response;
  const { error = {} } = await response.json().catch(() => ({}));
  const words = error.message ? sentence(error.message) : `The server answered ${response.status}.`;
  throw new Refused(response.status, error.code ?? '', words, error.retry_after);
}

// What the server says, as the page would.
export function sentence(message) {
  return message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? '' : '.');
}
