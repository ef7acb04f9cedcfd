// An operator speaks to the caller in the agent's place: his microphone goes to the caller, and he
// hears the caller.
import { announce, byId, notify, short } from './dom.js';
import { sentence } from './api.js';
import { listen } from './microphone.js';
import { samplesOf, textOf } from './pcm.js';
import { Speaker } from './speaker.js';

export class Takeover {
  #feed;
  #sessions;
  #talk;
  #speaker = new Speaker();
  #stop = null; // lets the microphone go
  #session = ''; // that was asked for, or is had

  constructor(feed, sessions, talk) {
    this.#feed = feed;
    this.#sessions = sessions;
    this.#talk = talk;
    feed.on('session.taken_over', ({ session_id }) => session_id === this.#session && this.#show());
    feed.on('session.handed_back', ({ session_id }) => session_id === this.#session && this.#over());
    feed.on('session.ended', ({ session_id }) => session_id === this.#session && this.#over());
    feed.on('frame', (frame) => this.#hear(frame));
    feed.on('error', ({ message }) => this.#refused(message));
    feed.on('lost', () => this.#lose());
    sessions.onChange(() => this.#offer());
    byId('take-over').addEventListener('click', () => this.take(sessions.watched));
    byId('hand-back').addEventListener('submit', (event) => this.#handBack(event));
  }

  // Asks for a call.
  async take(session) {
    if (this.#session) {
      notify('You have a call already: hand that one back first.');
      return;
    }
    this.#session = session;
    byId('take-over').disabled = true;
    try {
      await this.#speaker.open();
      this.#stop = await listen((samples) => this.#say(samples));
    } catch (error) {
      this.#over();
      notify(error.message);
      return;
    }
    if (this.#session !== session) return this.#silence(); // it has ended meanwhile
    if (this.#sessions.watched !== session) this.#sessions.watch(session);
    if (!this.#feed.send({ type: 'take_over', session_id: session })) this.#lose();
  }

  get #isOn() {
    return !byId('hand-back').hidden;
  }

  #show() {
    byId('hand-back').hidden = false;
    byId('taken-text').textContent =
      `The caller of session ${short(this.#session)} hears you, and the agent hears neither of you.`;
    announce('You are on the line.');
    byId('note').focus();
    this.#offer();
  }

  #say(samples) {
    if (this.#isOn) this.#feed.send({ type: 'say', audio: textOf(samples) });
  }

  // Who is himself the caller need not hear himself.
  #hear({ session_id, caller }) {
    if (this.#isOn && session_id === this.#session && session_id !== this.#talk.session) {
      this.#speaker.play(samplesOf(caller));
    }
  }

  #handBack(event) {
    event.preventDefault();
    this.#silence();
    this.#feed.send({ type: 'hand_back', note: byId('note').value.trim() });
  }

  #silence() {
    this.#stop?.();
    this.#stop = null;
  }

  #refused(message) {
    notify(sentence(message));
    if (this.#session && !this.#isOn) this.#over();
  }

  #lose() {
    if (!this.#session) return;
    this.#over();
    notify('The connection is lost, so the agent has the caller again.');
  }

  #over() {
    const hadFocus = byId('hand-back').contains(document.activeElement);
    this.#silence();
    this.#speaker.close();
    this.#session = '';
    byId('hand-back').hidden = true;
    byId('note').value = '';
    this.#offer();
    if (hadFocus) {
      byId('take-over').focus();
      announce('The agent has the caller again.');
    }
  }

  #offer() {
    const { current } = this.#sessions;
    byId('take-over').disabled =
      !current || Boolean(current.ended || current.operator || this.#session);
  }
}
