// Asks a YAML language server about a document: what is wrong, what could stand at the end of its last
// line, and what the word in its fourth line means. Standard input is the text, arguments are the server
// and the document's path.
const { spawn } = require("child_process");
const fs = require("fs");
const { pathToFileURL } = require("url");

const [server, path] = process.argv.slice(2);
const text = fs.readFileSync(0, "utf-8");
fs.writeFileSync(path, text);
const uri = pathToFileURL(path).href;
const child = spawn(server, ["--stdio"], { stdio: ["pipe", "pipe", "inherit"] });
const waiting = new Map();
const found = { diagnostics: null, completions: [], hover: "" };
let next = 1;
let buffer = Buffer.alloc(0);

function send(message) {
  const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }));
  child.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
  child.stdin.write(body);
}

function ask(method, params) {
  const id = next++;
  send({ id, method, params });
  return new Promise((resolve) => waiting.set(id, resolve));
}

function receive(message) {
  if (message.method && message.id !== undefined) {
    const items = message.params && message.params.items;
    send({ id: message.id, result: items ? items.map(() => null) : null });
  } else if (message.method === "textDocument/publishDiagnostics") {
    if (message.params.diagnostics.length) found.diagnostics = message.params.diagnostics.map((d) => d.message);
  } else if (message.id !== undefined && waiting.has(message.id)) {
    waiting.get(message.id)(message.result);
    waiting.delete(message.id);
  }
}

child.stdout.on("data", (chunk) => {
  buffer = Buffer.concat([buffer, chunk]);
  for (;;) {
    const end = buffer.indexOf("\r\n\r\n");
    if (end < 0) return;
    const length = Number(/Content-Length: (\d+)/i.exec(buffer.subarray(0, end).toString())[1]);
    if (buffer.length < end + 4 + length) return;
    const body = buffer.subarray(end + 4, end + 4 + length).toString();
    buffer = buffer.subarray(end + 4 + length);
    receive(JSON.parse(body));
  }
});

async function main() {
  await ask("initialize", { processId: process.pid, rootUri: null, capabilities: {} });
  send({ method: "initialized", params: {} });
  const settings = { yaml: { validate: true, completion: true, hover: true, schemaStore: { enable: false } } };
  send({ method: "workspace/didChangeConfiguration", params: { settings } });
  send({ method: "textDocument/didOpen", params: { textDocument: { uri, languageId: "yaml", version: 1, text } } });
  const lines = text.split("\n");
  const last = lines.length - 2;
  const at = { textDocument: { uri }, position: { line: last, character: lines[last].length } };
  const completed = await ask("textDocument/completion", at);
  found.completions = (completed.items || completed).map((item) => item.label);
  const hovered = await ask("textDocument/hover", { textDocument: { uri }, position: { line: 3, character: 6 } });
  found.hover = hovered ? JSON.stringify(hovered.contents) : "";
  while (found.diagnostics === null) await new Promise((resolve) => setTimeout(resolve, 20));
  process.stdout.write(JSON.stringify(found));
  child.kill();
}

main().catch((fault) => {
  process.stderr.write(String(fault));
  child.kill();
  process.exit(1);
});
