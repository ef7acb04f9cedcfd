// A server with tenants and operators asks for keys, and the page keeps them for its tab alone.
import assert from 'node:assert/strict';
import { browserWith, consolePage, talk, violations } from './browser.mjs';

const { browser, context } = await browserWith();
const { page, faults } = await consolePage(context);
const dialog = page.locator('#keys');
await dialog.getByText('This server asks for keys').waitFor();
assert.deepEqual(await violations(page), []);
await page.getByLabel('Operator key').fill('wrong');
await page.keyboard.press('Enter');
await dialog.getByText(/The key is missing, wrong or expired/).waitFor();
await page.getByLabel('Operator key').fill('sk_ann');
await page.getByLabel('Client key').fill('sk_wrong');
await page.keyboard.press('Enter');
await page.getByText('Connected as ann').waitFor();

await page.click('#talk'); // the client's key is another matter
await dialog.getByText(/To talk to the agent give a client key/).waitFor();
await page.getByLabel('Client key').fill('sk_shop');
await page.keyboard.press('Enter');
await talk(page, []);
await page.locator('#session').getByText(/^shop/).waitFor({ state: 'attached' });
await page.click('#talk');
await page.locator('#mute').waitFor({ state: 'hidden' });

const kept = await page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }, document.cookie]);
assert.deepEqual(kept, [{}, { 'duologue.key.operator': 'sk_ann', 'duologue.key.client': 'sk_shop' }, '']);
await page.reload();
await page.getByText('Connected as ann').waitFor();
for (const fault of faults) assert.match(fault, /401|403|WebSocket connection/);
await browser.close();
