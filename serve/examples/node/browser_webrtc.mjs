// A call from a web page over WebRTC, in a headless Chromium whose microphone is the recording:
// sound as Opus, events of the Realtime API on the data channel. What a page needs is in page.js.
import { fileURLToPath } from 'node:url';
import chromium from '@sparticuz/chromium';
import { chromium as playwright } from 'playwright-core';
import { Caller, apiKey, commandLine, instructions, orderStatusTool } from './caller.mjs';

const [url, recording, heard] = commandLine();
const caller = new Caller(recording, heard);
const browser = await playwright.launch({
  executablePath: await chromium.executablePath(),
  args: [
    '--no-sandbox',
    '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream',
    `--use-file-for-fake-audio-capture=${recording}%noloop`,
    '--autoplay-policy=no-user-gesture-required',
  ],
});
const page = await browser.newPage();
// The page comes from the server's own address, as a page of yours would.
const place = `${url}/example`;
await page.route(place, (route) => route.fulfill({ contentType: 'text/html', body: '<title>call' }));
await page.goto(place);
await page.exposeFunction('begins', () => caller.begins());
await page.exposeFunction('tell', (event, details) => caller.tell(event, details));
await page.exposeFunction('orderStatus', (order) => caller.orderStatus(order));
await page.exposeFunction('hears', (audio) => caller.hears(Buffer.from(audio, 'base64')));
page.on('pageerror', (error) => caller.tell('error', { message: error.message }));
await page.addScriptTag({ path: fileURLToPath(new URL('page.js', import.meta.url)) });
const session = { type: 'realtime', instructions, tools: [orderStatusTool] };
await page.evaluate((options) => call(options), { apiKey, session, lengthS: caller.lengthS });
await browser.close();
caller.hangsUp();
