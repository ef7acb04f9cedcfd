// The kill switch: no tool starts any more, anywhere.
import { byId } from './dom.js';
import { pressedTwice } from './twice.js';

export function startKillSwitch(feed, modes) {
  const button = byId('kill');
  const isStopped = () => modes.of('all') === 'off';
  const words = () =>
    isStopped()
      ? ['Let tools run', 'Press again: tools run']
      : ['Stop all tools', 'Press again: all tools stop'];
  const show = pressedTwice(button, words, () => modes.change('all', isStopped() ? 'normal' : 'off'));
  let running = 0; // calls that had begun
  const tell = () => {
    const on = running ? `Calls that had begun go on to their end: ${running}.` : '';
    byId('stopped').textContent = `All tools are stopped: no call starts, for nobody. ${on}`;
    byId('stopped').hidden = !isStopped();
    button.dataset.stopped = isStopped();
    show();
  };
  modes.onChange(tell);
  feed.on('hello', () => (button.disabled = false));
  feed.on('lost', () => (button.disabled = true));
  feed.on('mode.changed', ({ scope, running: ids }) => {
    if (scope !== 'all') return;
    running = ids.length;
    tell();
  });
}
