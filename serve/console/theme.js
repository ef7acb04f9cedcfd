// Light or dark: as the system has it, unless somebody wants the other one.
import { byId } from './dom.js';

const place = 'duologue.theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const root = document.documentElement;

const isDark = () => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';

// `changed` is called whenever the colours are others.
export function startTheme(changed) {
  const button = byId('theme');
  const show = () => {
    button.textContent = isDark() ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Switch to ${isDark() ? 'light' : 'dark'} colours`);
    changed();
  };
  const chosen = localStorage.getItem(place);
  if (chosen) root.dataset.theme = chosen;
  button.addEventListener('click', () => {
    const wanted = isDark() ? 'light' : 'dark';
    if ((wanted === 'dark') === system.matches) {
      delete root.dataset.theme;
      localStorage.removeItem(place);
    } else {
      root.dataset.theme = wanted;
      localStorage.setItem(place, wanted);
    }
    show();
  });
  system.addEventListener('change', show);
  show();
}
