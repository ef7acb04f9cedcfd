// Callers who want a human, or need one.
import { element, short } from './dom.js';
import { addCard, removeCard } from './inbox.js';

const reasons = {
  requested: 'The caller asks for a human.',
  low_confidence: 'The agent is not sure enough.',
  repeated_failure: 'Calls failed again and again.',
  policy: 'The policy wants a human.',
  compensation_failed: 'What a call did could not be undone.',
};

// `takeOver` is called with a session's id.
export function startHandoffs(feed, takeOver) {
  const waiting = new Map(); // sessions by handoff id
  const remove = (id) => {
    waiting.delete(id);
    removeCard(id);
  };
  const removeOf = (session) => {
    for (const [id, of] of waiting) if (of === session) remove(id);
  };
  const add = ({ handoff_id, session_id, reason, summary }) => {
    waiting.set(handoff_id, session_id);
    const take = element('button', { class: 'primary', type: 'button' }, 'Take over');
    const dismiss = element('button', { type: 'button' }, 'Dismiss');
    take.addEventListener('click', () => takeOver(session_id));
    dismiss.addEventListener('click', () => remove(handoff_id));
    const words = reasons[reason] ?? `A human is asked for: ${reason}.`;
    addCard(
      handoff_id,
      `${words} Session ${short(session_id)}.`,
      element('p', { class: 'prompt' }, words),
      element('p', { class: 'hint' }, `Session ${short(session_id)}.`),
      element('p', { class: 'summary' }, summary || 'No calls were made before.'),
      element('p', { class: 'row' }, take, dismiss),
    );
  };
  feed.on('hello', ({ handoffs }) => {
    for (const id of [...waiting.keys()]) remove(id);
    handoffs.forEach(add);
  });
  feed.on('handoff.requested', add);
  feed.on('session.taken_over', ({ session_id }) => removeOf(session_id));
  feed.on('session.ended', ({ session_id }) => removeOf(session_id));
}
