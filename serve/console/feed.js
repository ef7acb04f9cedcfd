// What the server tells operators, as it happens. A socket that is lost is opened again.
import { announce, byId } from './dom.js';
import { ask } from './api.js';
import { askForKeys, keyOf } from './keys.js';

const firstWaitS = 0.5;
const longestWaitS = 10;

export class Feed extends EventTarget {
  operator = '';
  method = '';
  #socket = null;
  #waitS = firstWaitS;

  // `listener` gets every message of that type; `lost` is told where the socket is.
  on(type, listener) {
    this.addEventListener(type, ({ detail }) => listener(detail));
  }

  // Whether it could be sent.
  send(message) {
    const isOpen = this.#socket?.readyState === WebSocket.OPEN;
    if (isOpen) this.#socket.send(JSON.stringify(message));
    return isOpen;
  }

  // As long as the page is there, or nobody gives the key that is asked for.
  async run() {
    for (;;) {
      let why = 'The connection is lost.';
      try {
        await ask('/console/sessions'); // says in words why it would be refused; a socket does not
        await this.#listen();
      } catch (error) {
        if (error.status === 401) {
          this.#show('waiting', 'A key is needed');
          const reason = keyOf('operator') ? error.message : 'Its file of tenants names operators.';
          if (await askForKeys(reason)) continue;
          this.#show('lost', 'Without a key there is nothing to see: load the page again to give one');
          return;
        }
        why = error.message;
        this.#waitS = Math.max(this.#waitS, error.retryAfterS ?? 0);
      }
      announce(`${why} Trying again.`);
      await this.#wait(why);
    }
  }

  // Until the socket is closed.
  #listen() {
    const address = `${location.origin.replace('http', 'ws')}/console/feed`;
    const key = keyOf('operator');
    this.#socket = new WebSocket(address, key ? ['duologue', `duologue-key.${key}`] : ['duologue']);
    this.#socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    return new Promise((resolve) => {
      this.#socket.onclose = () => {
        this.#tell('lost', {});
        resolve();
      };
    });
  }

  #take(message) {
    if (message.type === 'hello') {
      this.operator = message.operator;
      this.method = message.method;
      this.#waitS = firstWaitS;
      this.#show('open', `Connected as ${message.operator}`);
      announce('Connected.');
    }
    this.#tell(message.type, message);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  async #wait(why) {
    for (let leftS = Math.ceil(this.#waitS); leftS > 0; leftS--) {
      this.#show('lost', `${why} Trying again in ${leftS} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(1, this.#waitS)));
    }
    this.#waitS = Math.min(2 * this.#waitS, longestWaitS);
    this.#show('waiting', 'Connecting …');
  }

  #show(state, text) {
    byId('link').dataset.state = state;
    byId('link-text').textContent = text;
  }
}
