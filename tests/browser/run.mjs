// Runs tests one after another, with ONLY=words of names, and says what became of each.

/** `tests` have a name and a body; `tidy(error)` comes after each. Gives how many failed. */
export async function runAll(tests, tidy, prefix = "") {
  const failed = [], twice = [];
  for (const one of tests) {
    if (process.env.ONLY && !one.name.includes(process.env.ONLY)) continue;
    const first = await run(one, tidy, prefix);
    if (first === null) continue;
    // They run in real seconds, and a machine that is busy for some of them is late: once more, and said.
    const second = await run(one, tidy, prefix);
    (second === null ? twice : failed).push(`${prefix}${one.name}: ${second ?? first}`);
  }
  // Last, so that it stands where a log's reader looks first.
  for (const one of twice) console.log(`AT THE SECOND TRY: ${one}`);
  for (const one of failed) console.log(`FAILED: ${one}`);
  return failed.length;
}

/** What went wrong, or null. */
async function run({ name, body }, tidy, prefix) {
  const start = Date.now();
  let wrong = null;
  try {
    await body();
    console.log(`ok   ${prefix}${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  } catch (error) {
    wrong = error;
    console.log(`FAIL ${prefix}${name}\n${error.stack}`);
  }
  await tidy(wrong);
  return wrong && String(wrong).split("\n")[0];
}
