// A headless Chromium that looks at the console, with a recording as its microphone. The packages are
// those of the examples.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(new URL('../../serve/examples/node/package.json', import.meta.url));
const load = (name) => import(pathToFileURL(resolve(name)));
const { default: chromium } = await load('@sparticuz/chromium');
const { chromium: playwright } = (await load('playwright-core')).default;
const axe = resolve('axe-core/axe.min.js');

export const [url, recording, pictures] = process.argv.slice(2);
export const patienceMs = 30_000; // with a machine that is busy

// `options` are those of a browser's context; without `hasMicrophone` the page may not use it.
export async function browserWith({ hasMicrophone = true, ...options } = {}) {
  const microphone = [
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    `--use-file-for-fake-audio-capture=${recording}`,
  ];
  const browser = await playwright.launch({
    executablePath: await chromium.executablePath(),
    args: ['--no-sandbox', ...(hasMicrophone ? microphone : [])],
  });
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...options });
  context.setDefaultTimeout(patienceMs);
  return { browser, context };
}

// A page of the console. `faults` gets whatever goes wrong in it that nobody has asked for.
export async function consolePage(context, before = () => {}) {
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('requestfailed', (request) => faults.push(`failed: ${request.url()}`));
  page.on('response', (response) => {
    const isOwn = response.url().startsWith(url);
    if (!isOwn || response.status() >= 400) faults.push(`${response.status()} ${response.url()}`);
  });
  await before(page);
  await page.goto(url);
  return { page, faults };
}

// Begins a call whose agent does these steps. (A role that an engine has had before is remembered, and
// its script is not: no two are alike.)
export async function talk(page, script) {
  const role = JSON.stringify({ script, name: randomUUID() });
  await page.locator('#role').evaluate((field, text) => (field.value = text), role);
  await page.click('#talk');
  await page.locator('#mute').waitFor();
}

// Rules that the page breaks, each with where.
export async function violations(page) {
  await page.evaluate(readFileSync(axe, 'utf8'));
  const { violations: found } = await page.evaluate(() => window.axe.run());
  return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
}

// Whether it is so in the page, soon; else throws.
export function until(page, is, given) {
  return page.waitForFunction(is, given, { polling: 50 });
}
