// Everything that is asked of the server. The token comes in the fragment of the link, which no browser sends, and leaves in a header.

const KEY = "selftrain-token";

/** Take the token out of the address, once. */
export function takeToken() {
  const match = /^#token=([\w-]+)$/.exec(location.hash);
  if (match) {
    sessionStorage.setItem(KEY, match[1]);
    history.replaceState(null, "", location.pathname);
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const setToken = (token) => sessionStorage.setItem(KEY, token);
const headers = () => (hasToken() ? { "X-Selftrain-Token": sessionStorage.getItem(KEY) } : {});

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

function address(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== false);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `api/${path}?${text}` : `api/${path}`;
}

async function checked(response) {
  const found = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error; // nobody waits for it any more
    return {};
  });
  if (!response.ok) throw new Refused(response.status, found.error ?? `the server answered ${response.status}`);
  return found;
}

export const get = async (path, query, signal) => checked(await fetch(address(path, query), { headers: headers(), signal }));

export const post = async (path, query, body) =>
  checked(await fetch(address(path, query), { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body) }));

/**
 * Follow a stream of server-sent events until `stop()`. query: a function, so that a new connection goes on where the last one ended.
 * A page that nobody sees lets go of its connection: a browser has six for a server, and tabs are many.
 * onLink(words, why): no words while news comes; else what is the matter, and why where the server said it.
 */
export function follow(query, onEvent, onLink) {
  let stopped = false, connection = null, wake = () => {};
  const run = async () => {
    let wait = 500;
    while (!stopped) {
      let words = "no connection, trying again", why = "";
      if (document.hidden) {
        await new Promise((done) => (wake = done));
        continue;
      }
      connection = new AbortController();
      try {
        const response = await fetch(address("events", query()), { headers: headers(), signal: connection.signal });
        if (!response.ok) await checked(response);
        await read(response.body, (name, data) => {
          if (name === "failed") return ([words, why] = ["the record cannot be read, trying again", data.error]);
          wait = 500;
          onLink("");
          return onEvent(name, data);
        });
      } catch (error) {
        if (error instanceof Refused && error.status === 401) return onLink("the token is no longer valid: open the link that selftrain watch printed");
        if (connection.signal.aborted) continue;
        if (error instanceof Refused) [words, why] = ["the server refuses, trying again", error.message];
      }
      if (stopped) return;
      onLink(words, why);
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(2 * wait, 8000);
    }
  };
  const seen = () => (document.hidden ? connection?.abort() : wake());
  const away = () => connection?.abort();
  document.addEventListener("visibilitychange", seen);
  addEventListener("pagehide", away);
  run();
  return {
    stop() {
      stopped = true;
      document.removeEventListener("visibilitychange", seen);
      removeEventListener("pagehide", away);
      connection?.abort();
      wake();
    },
  };
}

async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name) onEvent(name, JSON.parse(data ?? "{}"));
    }
  }
}
