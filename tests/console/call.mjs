// A call in the console from beginning to end: talk, watch tools run, confirm one, stop them all, take
// over and hand back. Leaves pictures.
import assert from 'node:assert/strict';
import { browserWith, consolePage, pictures, talk, until, violations } from './browser.mjs';

const demo = { person: 'anna', day: 'monday', time: '14:00' };
const { browser, context } = await browserWith({ colorScheme: 'light' });
const told = { frame: [], agent: [] }; // what came over the sockets
const { page, faults } = await consolePage(context, async (page) => {
  await page.addInitScript(hear);
  page.on('websocket', (socket) =>
    socket.on('framereceived', ({ payload }) => {
      const message = JSON.parse(payload);
      if (message.type === 'frame') told.frame.push(message);
      if (message.type === 'session.output_audio.delta') told.agent.push(message.delta);
    }),
  );
});
await page.waitForSelector('#link[data-state=open]');
await page.getByText('No call is watched').waitFor();
assert.deepEqual(await violations(page), []);
await page.evaluate(() => {
  window.announced = []; // what a screen reader would say
  const place = document.querySelector('#announce');
  const keep = () => window.announced.push(place.textContent);
  new MutationObserver(keep).observe(place, { childList: true });
});

// Talk, and watch what tools do.
await talk(page, [
  [60, 'call', 'check_calendar', { person: 'anna', day: 'monday' }],
  [80, 'call', 'order_status', { order_id: '48192' }],
  [84, 'call', 'book_demo', demo],
  [92, 'revise', 'book_demo', { ...demo, time: '15:00' }],
]);
const loudest = (sound) => {
  const bytes = Uint8Array.from(Buffer.from(sound, 'base64'));
  return Math.max(...new Int16Array(bytes.buffer));
};
const looked = page.locator('#calls li', { hasText: 'order_status' });
await looked.locator('.state', { hasText: 'succeeded' }).waitFor();
assert(told.frame.some(({ caller }) => loudest(caller) > 3000), 'the caller is heard');
await until(page, () => document.querySelector('#transcript').textContent.includes('your order has shipped'));
await until(page, () => document.querySelector('#transcript').textContent.includes('Callerhm'));
assert(told.agent.some((sound) => loudest(sound) > 3000), 'the agent speaks');
await until(page, () => window.loudest > 0.1); // and is played
for (const drawn of await heights(page, ['caller', 'agent'])) assert(drawn > 20, 'both voices are drawn');

// The corrected call waits for a word, and runs when it is given.
const card = page.locator('#inbox .wait');
await card.getByText('book_demo: person anna, day monday, time 15:00').waitFor();
assert.match(await page.title(), /^\(1\)/);
const announced = await page.evaluate(() => window.announced);
assert(announced.some((text) => text.startsWith('A call waits for your word')), announced);
await until(page, () => document.querySelector('#transcript').textContent.includes('comes on tuesday'));
await page.screenshot({ path: `${pictures}/console.png` });
await page.emulateMedia({ colorScheme: 'dark' });
await page.screenshot({ path: `${pictures}/console-dark.png` });
await page.setViewportSize({ width: 360, height: 1000 });
await page.screenshot({ path: `${pictures}/console-phone.png` });
for (const [width, colorScheme] of [[360, 'dark'], [360, 'light'], [1360, 'light'], [1360, 'dark']]) {
  await page.setViewportSize({ width, height: 900 });
  await page.emulateMedia({ colorScheme });
  assert.deepEqual(await violations(page), []);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
}
await page.emulateMedia({ colorScheme: 'light' });
await card.getByRole('button', { name: 'Confirm' }).click();
await card.waitFor({ state: 'detached' });
const booked = page.locator('#calls > li').first();
await booked.locator('.state', { hasText: 'succeeded' }).waitFor();
assert.equal(await page.locator('#calls .state', { hasText: 'superseded' }).count(), 1);

// Its audit trail.
await booked.locator('summary').click();
await booked.getByRole('table').waitFor();
const trail = (await booked.getByRole('table').textContent()).replaceAll('\n', ' ');
for (const line of ['draft → speculative', 'approved', 'operator:local', 'running → succeeded']) {
  assert(trail.includes(line), `${line} in ${trail}`);
}
assert.match(await booked.textContent(), /room/); // the result
for (const width of [1360, 360]) {
  await page.setViewportSize({ width, height: 900 });
  assert.deepEqual(await violations(page), []);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
}
await page.setViewportSize({ width: 1360, height: 900 });

// The timeline stands still, goes back, and follows again.
await page.click('#pause');
const moment = page.locator('#moment');
const before = Number(await moment.inputValue());
await moment.press('ArrowLeft');
assert(Number(await moment.inputValue()) < before);
await page.click('#pause');
await until(page, (ms) => Number(document.querySelector('#moment').value) > ms, before);
await page.click('#talk');
await page.getByRole('button', { name: 'Talk to the agent' }).waitFor();
await page.locator('#session').getByText('ended: hang up').waitFor({ state: 'attached' });

// The kill switch: no call starts any more.
await page.click('#kill');
assert.equal(await page.textContent('#kill'), 'Press again: all tools stop');
await page.click('#kill');
await page.getByText('All tools are stopped').waitFor();
await talk(page, [[10, 'call', 'order_status', { order_id: '48193' }]]);
const denied = page.locator('#calls > li', { hasText: '48193' });
await denied.locator('.state', { hasText: 'failed' }).waitFor();
await denied.locator('summary').click();
await denied.getByText('the mode is off').first().waitFor();
assert.deepEqual(await violations(page), []);
await page.click('#kill');
await page.click('#kill');
await page.locator('#stopped').waitFor({ state: 'hidden' });
await page.click('#talk');
await page.locator('#mute').waitFor({ state: 'hidden' });

// A human is asked for. An operator in another page takes over, hears the caller and is heard, hands
// back, and ends the call.
const { page: operator, faults: others } = await consolePage(context, (page) => page.addInitScript(hear));
await operator.waitForSelector('#link[data-state=open]');
await talk(page, [[10, 'handoff']]);
await card.getByText('The caller asks for a human').waitFor();
await operator.bringToFront();
await operator.locator('#inbox').getByText('The caller asks for a human').waitFor();
assert.deepEqual(await violations(operator), []);
await operator.locator('#inbox').getByRole('button', { name: 'Take over' }).click();
await operator.locator('#hand-back').waitFor();
await card.waitFor({ state: 'detached' });
assert.equal(await operator.evaluate(() => document.activeElement.id), 'note');
assert.deepEqual(await violations(operator), []);
const from = told.frame.length;
await until(operator, () => window.loudest > 0.1);
await waitFor(() => told.frame.slice(from).some(({ agent }) => loudest(agent) > 3000));
await operator.fill('#note', 'The order was replaced.');
await operator.keyboard.press('Enter');
await operator.locator('#hand-back').waitFor({ state: 'hidden' });
await until(page, () => document.querySelector('#transcript').textContent.includes('noted')); // by the agent
await operator.click('#end-call');
await operator.click('#end-call');
await page.locator('#mute').waitFor({ state: 'hidden' });
await operator.locator('#session').getByText('ended: hang up').waitFor({ state: 'attached' });

assert.deepEqual([...faults, ...others], []);
await browser.close();

// In a page: `loudest` is how loud what it has played was.
function hear() {
  const { connect } = AudioNode.prototype;
  window.loudest = 0;
  AudioNode.prototype.connect = function (to, ...more) {
    if (to instanceof AudioDestinationNode) {
      const ears = this.context.createAnalyser();
      const samples = new Float32Array(ears.fftSize);
      connect.call(this, ears);
      setInterval(() => {
        ears.getFloatTimeDomainData(samples);
        window.loudest = Math.max(window.loudest, ...samples);
      }, 50);
    }
    return connect.call(this, to, ...more);
  };
}

// How high each one's voice is on the timeline at most, in pixels.
function heights(page, sides) {
  return page.evaluate((sides) => {
    const canvas = document.querySelector('#timeline');
    const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return sides.map((who) => {
      canvas.style.color = `var(--${who})`;
      const colour = getComputedStyle(canvas).color.match(/\d+/g).map(Number);
      let most = 0;
      for (let x = 0; x < width; x++) {
        let run = 0;
        for (let y = 0; y < height; y++) {
          const isIt = colour.every((value, i) => data[4 * (y * width + x) + i] === value);
          if (!isIt && run < 100) most = Math.max(most, run); // the line of the moment is higher
          run = isIt ? run + 1 : 0;
        }
      }
      return most;
    });
  }, sides);
}

async function waitFor(is) {
  for (let tries = 0; !is(); tries++) {
    assert(tries < 600, String(is));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
