// The page by keyboard alone: everything is reached, seen to be reached, and left again.
import assert from 'node:assert/strict';
import { browserWith, consolePage, talk, until } from './browser.mjs';

const { browser, context } = await browserWith({ reducedMotion: 'reduce' });
const { page, faults } = await consolePage(context);
await page.waitForSelector('#link[data-state=open]');
await talk(page, [[5, 'call', 'book_demo', { person: 'anna', day: 'tuesday', time: '15:00' }]]);
await page.locator('#inbox .wait').waitFor();
await page.locator('#moment:enabled').waitFor();

// Once around: what can be used is reached, with an outline, and nothing holds the focus.
const wanted = await page.evaluate(() =>
  [...document.querySelectorAll('a, button, input, select, summary')]
    .filter((one) => one.checkVisibility() && !one.disabled)
    .map((one, place) => (one.dataset.stop = place)),
);
const reached = new Set();
for (let presses = 0; presses < 3 * wanted.length && reached.size < wanted.length; presses++) {
  await page.keyboard.press('Tab');
  const { stop, outline } = await page.evaluate(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
    return { stop: document.activeElement.dataset.stop, outline: `${outlineStyle} ${outlineWidth}` };
  });
  if (stop === undefined) continue;
  reached.add(stop);
  assert.match(outline, /^solid [2-9]/, `element ${stop}`);
}
assert.equal(reached.size, wanted.length);

// The kill switch: armed, taken back, pressed.
await page.focus('#kill');
await page.keyboard.press('Enter');
assert.match(await page.textContent('#kill'), /^Press again/);
await page.keyboard.press('Escape');
assert.equal(await page.textContent('#kill'), 'Stop all tools');
for (const words of ['All tools are stopped', '']) {
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await until(page, (words) => {
    const stopped = document.querySelector('#stopped');
    return words ? !stopped.hidden && stopped.textContent.includes(words) : stopped.hidden;
  }, words);
}

// What waited was refused by the switch. Another one is refused by hand, and the focus goes on.
await page.click('#talk');
await page.locator('#mute').waitFor({ state: 'hidden' });
await talk(page, [[5, 'call', 'book_demo', { person: 'anna', day: 'tuesday', time: '16:00' }]]);
await page.getByRole('button', { name: 'Refuse' }).focus();
await page.keyboard.press('Enter');
await page.locator('#calls > li').first().locator('.state', { hasText: 'failed' }).waitFor();
assert.equal(await page.evaluate(() => document.activeElement.id), 'inbox-title');

// A call of the list, and a mode.
await page.locator('#calls summary').first().focus();
await page.keyboard.press('Enter');
await page.getByText('refused by operator:local').first().waitFor();
const all = page.getByRole('group', { name: 'Mode: Everything' });
await all.getByRole('button', { name: 'Read only' }).focus();
await page.keyboard.press('Space');
await until(page, () => document.querySelector('#modes [value=read_only]').ariaPressed === 'true');
await all.getByRole('button', { name: 'Normal' }).focus();
await page.keyboard.press('Space');
await until(page, () => document.querySelector('#modes [value=normal]').ariaPressed === 'true');
await page.focus('#talk');
await page.keyboard.press('Enter');
await page.locator('#mute').waitFor({ state: 'hidden' });
assert.deepEqual(faults, []);
await browser.close();
