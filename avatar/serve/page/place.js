// Where the server is, and the token that it wants: in the page's fragment, which no browser sends or logs.

const fragment = new URLSearchParams(location.hash.slice(1));
const token = fragment.get("token") || "";
const query = new URLSearchParams(location.search);

export const wantedDoor = query.get("door") || "";
export const wantedAvatar = query.get("avatar") || "";

/** The address of the WebSocket, with a query of what has a value. */
export function socketUrl(values) {
  const url = new URL("ws", document.baseURI.split(/[?#]/)[0]);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const asked = { avatar: wantedAvatar, access_token: token, ...values };
  for (const [name, value] of Object.entries(asked)) if (value) url.searchParams.set(name, value);
  return url.href;
}

/** Ask the server; an answer that is no success becomes an error with the server's sentence. */
export async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(content.error || content.message || `The server answered ${answer.status}.`);
    error.status = answer.status;
    throw error;
  }
  return content;
}
