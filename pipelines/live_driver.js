// Drives Chromium for `python -m pipelines.live_check`: a command in JSON per line comes in, an answer per line goes out.
// node live_driver.js PLAYWRIGHT_CORE CHROMIUM; needs playwright-core and nothing else.

const fs = require("fs");
const path = require("path");
const { chromium } = require(process.argv[2]);
const probe = fs.readFileSync(path.join(__dirname, "live_probe.js"), "utf8");
const browsers = new Map(), pages = new Map();
let count = 0;

const commands = {
  async launch({ args }) {
    const browser = await chromium.launch({ executablePath: process.argv[3], headless: true, args });
    const id = `browser${count += 1}`;
    browsers.set(id, browser);
    return { id, version: browser.version() };
  },
  async open({ browser, url, width = 1000, height = 900, keep = false, noUdp = false, dark = false }) {
    const context = await browsers.get(browser).newContext({
      viewport: { width, height }, colorScheme: dark ? "dark" : "light", permissions: ["microphone", "camera"],
    });
    const page = await context.newPage(), words = [];
    page.on("console", (message) => { if (message.type() !== "log") words.push(`${message.type()}: ${message.text()}`); });
    page.on("pageerror", (error) => words.push(`error: ${error.message}`));
    await page.addInitScript(`${probe}; Object.assign(window.liveProbe, { keep: ${keep}, noUdp: ${noUdp} });`);
    const id = `page${count += 1}`;
    pages.set(id, { page, context, words, frames: [] });
    await page.goto(url, { waitUntil: "commit" });
    return { id };
  },
  async eval({ page, code }) { return pages.get(page).page.evaluate(code); },
  async act({ page, steps }) {
    const target = pages.get(page).page;
    for (const [name, ...rest] of steps) {
      if (name === "key") await target.keyboard.press(...rest);
      else if (name === "mouse") await target.mouse[rest[0]](...rest.slice(1));
      else if (name === "pause") await target.waitForTimeout(...rest);
      else await target[name](...rest);
    }
    return {};
  },
  async shot({ page, file }) { await pages.get(page).page.screenshot({ path: file }); return {}; },
  async record({ page, folder }) {
    const one = pages.get(page);
    one.session = await one.context.newCDPSession(one.page);
    one.session.on("Page.screencastFrame", ({ data, metadata, sessionId }) => {
      const file = path.join(folder, `${String(one.frames.length).padStart(6, "0")}.jpg`);
      fs.writeFileSync(file, Buffer.from(data, "base64"));
      one.frames.push([1000 * metadata.timestamp, file]);
      one.session.send("Page.screencastFrameAck", { sessionId }).catch(() => {});
    });
    await one.session.send("Page.startScreencast", { format: "jpeg", quality: 80, everyNthFrame: 2 });
    return {};
  },
  async recorded({ page }) {
    const one = pages.get(page);
    await one.session.send("Page.stopScreencast");
    return one.frames;
  },
  async words({ page }) { return pages.get(page).words.splice(0); },
  async close({ page }) { await pages.get(page).context.close(); pages.delete(page); return {}; },
  async quit({ browser }) { await browsers.get(browser).close(); browsers.delete(browser); return {}; },
};

let rest = "";
process.stdin.on("data", (data) => {
  rest += data;
  const lines = rest.split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const { id, command, ...options } = JSON.parse(line);
    commands[command](options).then((result) => ({ id, result }), (error) => ({ id, error: String(error.message || error) }))
      .then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
  }
});
async function leave() {
  for (const browser of browsers.values()) await browser.close().catch(() => {});
  process.exit(0);
}
process.stdin.on("end", leave);
process.stdout.on("error", leave); // nobody listens any more
