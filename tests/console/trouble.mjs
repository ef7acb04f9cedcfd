// What goes wrong is told in words, and mended where it can be: no microphone, a server that is full,
// sockets that are lost.
import assert from 'node:assert/strict';
import { browserWith, consolePage, talk, until, url } from './browser.mjs';

const notices = (page) => page.locator('#notices');

{
  const { browser, context } = await browserWith({ hasMicrophone: false });
  const { page, faults } = await consolePage(context);
  await page.waitForSelector('#link[data-state=open]');
  await page.click('#talk');
  await notices(page).getByText(/microphone/).waitFor();
  await notices(page).getByRole('button', { name: 'Dismiss' }).click();
  assert.equal(await notices(page).textContent(), '');
  await page.getByRole('button', { name: 'Talk to the agent' }).waitFor(); // again
  assert.deepEqual(faults, []);
  await browser.close();
}

const { browser, context } = await browserWith();
const sockets = {}; // the newest of each path
const { page, faults } = await consolePage(context, (page) =>
  page.routeWebSocket(/.*/, (socket) => {
    const server = socket.connectToServer();
    sockets[new URL(socket.url()).pathname] = { socket, server };
  }),
);
await page.waitForSelector('#link[data-state=open]');

// Both places of the server are taken.
await page.evaluate(async (address) => {
  window.others = [1, 2].map(() => new WebSocket(address));
  await Promise.all(window.others.map((one) => new Promise((resolve) => (one.onopen = resolve))));
}, `${url.replace('http', 'ws')}/v1/realtime`);
await page.click('#talk');
await notices(page).getByText(/The server is full. Try again in \d+ s./).waitFor();
await page.evaluate(() => window.others.map((one) => one.close()));
await page.locator('#load').getByText('0').first().waitFor();
await until(page, () => document.querySelectorAll('#session option').length <= 2);
for (const fault of faults.splice(0)) assert.match(fault, /WebSocket connection|503/);

// The call's socket is lost: it goes on on another one.
await talk(page, []);
const session = await page.locator('#session').inputValue();
await page.locator('#moment:enabled').waitFor();
const frames = () => page.evaluate(() => Number(document.querySelector('#moment').max));
const lost = sockets['/v1/live/sessions'];
lost.socket.close({ code: 1011 });
lost.server.close();
await page.getByText('Trying to come back to the call').waitFor();
await page.getByText('You are on the line again.').waitFor();
assert.equal(await page.locator('#session').inputValue(), session);

// The feed is lost: the page says so, connects again and goes on watching.
const feed = sockets['/console/feed'];
feed.socket.close({ code: 1011 });
feed.server.close();
const link = page.locator('#link[data-state=lost]');
await link.getByText(/The connection is lost. Trying again in \d+ s/).waitFor();
assert(await page.locator('#kill').isDisabled());
await page.waitForSelector('#link[data-state=open]');
assert.equal(await page.locator('#session').inputValue(), session);
const heard = await frames();
await until(page, (ms) => Number(document.querySelector('#moment').max) > ms, heard);
await page.click('#talk');
await page.locator('#mute').waitFor({ state: 'hidden' });
// Of sound that was on its way when a socket was closed here, Playwright's stand-in for it says so.
assert.deepEqual(faults.filter((one) => !one.includes('already in CLOSING or CLOSED')), []);
await browser.close();
