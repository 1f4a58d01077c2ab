// See README.md. Node's timers live in its event loop (libuv). It has no name for boottime.
const { spawnSync } = require("node:child_process");
const { writeSync } = require("node:fs");

const say = (word) => writeSync(1, `${word} ${BigInt(Date.now()) * 1000000n} ${process.hrtime.bigint()} -\n`);

if (process.argv.length > 2) {
  say("child");
} else {
  say("ready");
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const words = line.split(" ");
    if (words[0] === "clocks") say("clocks");
    else if (words[0] === "wait") {
      writeSync(1, "waiting\n");
      setTimeout(() => writeSync(1, "waited\n"), Number(words[2]));
    } else if (words[0] === "exec") {
      writeSync(1, spawnSync(process.execPath, [__filename, "once"]).stdout);
    } else writeSync(1, "cannot\n");
  });
}
