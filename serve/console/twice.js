// A button that does what it says only when it is pressed again: a mouse, a finger and a keyboard do
// that alike, and there is no hurry.
import { announce } from './dom.js';

// `words` gives its text, and its text when it was pressed once.
export function pressedTwice(button, words, act) {
  let isArmed = false;
  const arm = (armed) => {
    isArmed = armed;
    button.dataset.armed = armed;
    show();
  };
  const show = () => {
    button.textContent = words()[isArmed ? 1 : 0];
  };
  button.addEventListener('click', () => {
    if (isArmed) {
      arm(false);
      act();
    } else {
      arm(true);
      announce(`${words()[1]}. Escape takes it back.`);
    }
  });
  button.addEventListener('blur', () => arm(false));
  button.addEventListener('keydown', ({ key }) => key === 'Escape' && arm(false));
  document.addEventListener('pointerdown', ({ target }) => !button.contains(target) && arm(false));
  show();
  return show;
}
