// The page that a browser opens: it starts the worker that runs the suite, and says so if that cannot be started.

import type { Answer } from "./server";

void fetch("/alive"); // is not answered: when it ends, so has the page
const worker = new Worker(`/worker.js${location.search}`, { type: "module" });
worker.onerror = ({ message }) => {
  const answer: Answer = { error: `the worker failed: ${message}` };
  void fetch("/answer", { method: "POST", body: JSON.stringify(answer) });
};
