// Keeps a page up to date: what the server sends takes the place of what is shown, piece by piece, so that the focus, the
// selection and what was opened stay where they are. It makes no markup itself, and asks nobody but the page's own server.
'use strict';

const main = document.getElementById('main');
const notice = document.getElementById('link');
const pause = document.getElementById('pause');
// The server sends at least every two seconds.
const SILENT_AFTER = 10000;
const AGAIN_AFTER = 3000;
let connection = null;
let watchdog = 0;
let again = 0;
// Since when nothing has come from the console.
let lost = '';

// Says why the page does not change, and that its figures are old; nothing when it does.
function say(text) {
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = text === '';
  main.classList.toggle('cut', text !== '');
}

function clock() {
  return new Date().toISOString().slice(11, 19) + ' UTC';
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || '' : '';
}

function isSame(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
}

// Makes `old` what `fresh` is, and keeps the elements that both have.
function update(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const name of old.getAttributeNames()) {
    // What a reader has opened stays open.
    if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const name of fresh.getAttributeNames()) {
    const value = fresh.getAttribute(name);
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, place) => {
    let have = old.childNodes[place];
    if (!have || !isSame(have, node)) {
      have = key(node) && [...old.childNodes].slice(place).find((other) => isSame(other, node));
      old.insertBefore(have || (have = node.cloneNode(false)), old.childNodes[place] || null);
    }
    update(have, node);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function show(markup) {
  const fresh = new DOMParser().parseFromString(markup, 'text/html').getElementById('view');
  const view = document.getElementById('view');
  if (!fresh || !view) return;
  const focused = document.activeElement;
  update(view, fresh);
  // An element that was moved loses the focus.
  if (focused !== document.activeElement && focused && focused.isConnected) focused.focus({ preventScroll: true });
  document.title = view.dataset.title;
  lost = '';
  say('');
}

function stop() {
  clearTimeout(watchdog);
  clearTimeout(again);
  if (connection) connection.abort();
  connection = null;
}

async function read(response, mine) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done || connection !== mine) return;
    clearTimeout(watchdog);
    watchdog = setTimeout(() => mine.abort(), SILENT_AFTER);
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    const last = events.pop();
    if (last !== undefined) {
      const lines = last.split('\n').filter((line) => line.startsWith('data: '));
      show(lines.map((line) => line.slice(6)).join('\n'));
    }
  }
}

async function follow() {
  stop();
  const mine = new AbortController();
  connection = mine;
  watchdog = setTimeout(() => mine.abort(), SILENT_AFTER);
  let reason = 'The console does not answer';
  try {
    const options = { signal: mine.signal, cache: 'no-store', redirect: 'error', headers: { Accept: 'text/event-stream' } };
    const response = await fetch(main.dataset.events, options);
    if (response.status === 401) {
      // The login has ended, as after a restart of the console.
      location.reload();
      return;
    }
    if (response.ok) await read(response, mine);
    else reason = (await response.text()).trim();
  } catch (error) {
    // The connection has ended, or was ended for its silence: both are said below.
  }
  if (connection !== mine) return;
  connection = null;
  clearTimeout(watchdog);
  lost = lost || clock();
  say(`${reason}, since ${lost}. The figures are old. Trying again.`);
  again = setTimeout(follow, AGAIN_AFTER);
}

function isPaused() {
  return pause.getAttribute('aria-pressed') === 'true';
}

function begin() {
  if (document.hidden || isPaused()) return;
  follow();
}

pause.hidden = false;
pause.addEventListener('click', () => {
  const paused = !isPaused();
  pause.setAttribute('aria-pressed', String(paused));
  if (paused) {
    stop();
    say(`Paused since ${clock()}. The figures are old.`);
  } else {
    begin();
  }
});
// A page that nobody sees takes no connection, of which browsers open six to a server, and keeps the bus from being asked.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    stop();
    // What is shown when it is looked at again is old until the first figures come.
    main.classList.add('cut');
  } else {
    begin();
  }
});
begin();
