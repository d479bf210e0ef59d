// The guard of a page: it warns before a session ends, says when and why it has ended, and keeps what was typed.
// <session-guard warn="60" hide="main"> shows it; onSession and sessionFetch are for pages with a look of their own.

const HERE = import.meta.url.replace(/session(\/[\da-f]{16})?\.js.*$/, "");
// Applications below paths of one host share channels, locks and storage.
const NAME = "oidc-session " + HERE;
const SESSION = HERE + "session", LOGIN = HERE + "login", LOGOUT = HERE + "logout";
// For an answer.
const PATIENCE = 10_000;
// more than this between the two clocks is sleep, or somebody who sets the time.
const JUMP = 2_000;

// in words: each language's texts in the order of NAMES; {0} is a time.
const NAMES = "warning left stay out ended again unsure continue away retry idle elsewhere admin here over".split(" ");
const TEXTS = {
  en: "Are you still there?|You will be signed out in {0}.|Stay signed in|Sign out now|You have been signed out|Sign in again|You may have been signed out|Continue|The server cannot be reached|Try again|You were signed out after a time without activity.|You signed out in another application.|Your session was ended by an administrator.|You signed out.|Your session has ended.",
  de: "Sind Sie noch da?|Sie werden in {0} abgemeldet.|Angemeldet bleiben|Jetzt abmelden|Sie wurden abgemeldet|Erneut anmelden|Sie wurden möglicherweise abgemeldet|Weiter|Der Server ist nicht erreichbar|Erneut versuchen|Sie wurden nach einer Zeit ohne Aktivität abgemeldet.|Sie haben sich in einer anderen Anwendung abgemeldet.|Ihre Sitzung wurde von der Administration beendet.|Sie haben sich abgemeldet.|Ihre Sitzung ist beendet.",
  fr: "Êtes-vous toujours là ?|Vous serez déconnecté dans {0}.|Rester connecté|Se déconnecter|Vous avez été déconnecté|Se reconnecter|Vous avez peut-être été déconnecté|Continuer|Le serveur est injoignable|Réessayer|Vous avez été déconnecté après une période d’inactivité.|Vous vous êtes déconnecté dans une autre application.|Votre session a été fermée par un administrateur.|Vous vous êtes déconnecté.|Votre session est terminée.",
  es: "¿Sigue ahí?|Su sesión se cerrará en {0}.|Seguir conectado|Cerrar sesión|Su sesión se ha cerrado|Iniciar sesión de nuevo|Es posible que su sesión se haya cerrado|Continuar|No se puede contactar con el servidor|Reintentar|Su sesión se cerró tras un tiempo sin actividad.|Ha cerrado la sesión en otra aplicación.|Un administrador ha cerrado su sesión.|Ha cerrado la sesión.|Su sesión ha terminado.",
  it: "È ancora lì?|La sessione terminerà tra {0}.|Resta connesso|Esci ora|La sessione è terminata|Accedi di nuovo|La sessione potrebbe essere terminata|Continua|Il server non è raggiungibile|Riprova|La sessione è terminata dopo un periodo di inattività.|È uscito da un’altra applicazione.|La sessione è stata chiusa da un amministratore.|È uscito.|La sessione è terminata.",
  pt: "Ainda está aí?|A sua sessão termina em {0}.|Continuar ligado|Terminar sessão|A sua sessão terminou|Iniciar sessão novamente|A sua sessão pode ter terminado|Continuar|Não é possível contactar o servidor|Tentar novamente|A sua sessão terminou após um período sem atividade.|Terminou a sessão noutra aplicação.|A sua sessão foi terminada por um administrador.|Terminou a sessão.|A sua sessão terminou.",
  nl: "Bent u er nog?|U wordt over {0} afgemeld.|Aangemeld blijven|Nu afmelden|U bent afgemeld|Opnieuw aanmelden|U bent mogelijk afgemeld|Doorgaan|De server is niet bereikbaar|Opnieuw proberen|U bent afgemeld na een tijd zonder activiteit.|U hebt zich in een andere toepassing afgemeld.|Uw sessie is door een beheerder beëindigd.|U hebt zich afgemeld.|Uw sessie is beëindigd.",
  pl: "Czy nadal tu jesteś?|Wylogowanie nastąpi za: {0}.|Pozostań zalogowany|Wyloguj teraz|Wylogowano|Zaloguj ponownie|Być może nastąpiło wylogowanie|Kontynuuj|Serwer jest nieosiągalny|Spróbuj ponownie|Wylogowano z powodu braku aktywności.|Wylogowano w innej aplikacji.|Sesja została zakończona przez administratora.|Wylogowano.|Sesja została zakończona.",
  ja: "まだご利用中ですか？|あと{0}でログアウトされます。|ログインを続ける|今すぐログアウト|ログアウトされました|もう一度ログイン|ログアウトされた可能性があります|続ける|サーバーに接続できません|再試行|操作がなかったためログアウトされました。|別のアプリケーションでログアウトしました。|管理者によってセッションが終了されました。|ログアウトしました。|セッションが終了しました。",
  zh: "您还在吗？|您将在{0}后退出登录。|保持登录|立即退出|您已退出登录|重新登录|您可能已退出登录|继续|无法连接服务器|重试|由于长时间没有操作，您已退出登录。|您已在其他应用中退出登录。|您的会话已被管理员结束。|您已退出登录。|您的会话已结束。",
};
const WHY = {
  idle_timeout: "idle", provider_session_expired: "idle", provider_user_logout: "elsewhere", provider_terminated: "admin",
  rp_initiated_logout: "here",
};

function languageOf(element) {
  const lang = (element?.closest("[lang]")?.lang || document.documentElement.lang).toLowerCase().split("-")[0];
  return TEXTS[lang] ? lang : "en";
}

function words(element) {
  const lang = languageOf(element), texts = TEXTS[lang].split("|");
  return (name, ...values) => {
    const text = element?.getAttribute("text-" + name) ?? texts[NAMES.indexOf(name)];
    return text.replace("{0}", values[0]);
  };
}

// What is known of the session. All of it comes from an answer of the server, asked by this tab or by another.
const known = { state: "unknown", sub: null, iss: null, session: null, reason: null };
// { left, sent, received }: milliseconds, and both clocks when it was asked and when it was answered
let idle = null;
let interval = { look: 15_000, signal: 90_000, timeout: 900_000 };
let asked = clocks();
// the last question has no answer
let failed = false;
let offset = Date.now() - performance.now();
let timer, typed = 0, signalTimer;
const listeners = new Set();
const waiting = new Set();
let warn = 60_000, isSigned = true, started = false, pending = null;

function clocks() { return { wall: Date.now(), steady: performance.now() }; }
function since(then) { return Math.max(Date.now() - then.wall, performance.now() - then.steady); }
/** Milliseconds to the idle end: at least, when private content is concerned, and at most. */
function atLeast() { return idle ? idle.left - since(idle.sent) : Infinity; }
function atMost() { return idle ? idle.left - since(idle.received) : Infinity; }
function warnAt() { return Math.min(warn, interval.timeout / 2); }

const channel = self.BroadcastChannel && new BroadcastChannel(NAME);
channel?.addEventListener("message", ({ data }) => {
  if (!started || known.state === "left") return;
  // Somebody is about to sign out: the server knows in a moment.
  if (data.leaving) known.reason = "rp_initiated_logout", [200, 600].forEach((pause) => setTimeout(() => known.state === "confirmed" && ask(true), pause));
  else if (data.failed) asked = { wall: data.at, steady: steadyOf(data.at) };
  // Whoever has signed in elsewhere is asked about, not believed; so is another session than this page's.
  else if (known.session && data.session === known.session) take(data.answer, data.sent, data.received);
  else if (data.answer.authenticated || known.state === "confirmed") ask(true);
});
function steadyOf(wall) { return performance.now() - Math.max(0, Date.now() - wall); }

/** One tab asks for all; the others hear the answer. A question that was put before something happened does not answer it. */
function ask(anew) {
  if (pending && !anew) return pending.answered;
  pending?.stop.abort();
  const mine = (pending = { stop: new AbortController() });
  mine.answered = (async () => {
    const sent = clocks();
    asked = sent;
    const patience = setTimeout(() => mine.stop.abort(), PATIENCE);
    let answer = null;
    try {
      const response = await fetch(SESSION, { cache: "no-store", signal: mine.stop.signal });
      if (response.ok) answer = await response.json();
    } catch {}
    clearTimeout(patience);
    if (pending !== mine) return pending?.answered;
    pending = null;
    const received = Date.now();
    if (answer) {
      if (known.session || answer.session)
        channel?.postMessage({ session: known.session ?? answer.session, answer, sent: sent.wall, received });
      take(answer, sent.wall, received);
    } else {
      failed = true;
      channel?.postMessage({ failed, at: sent.wall });
      tell();
    }
    plan();
  })();
  return mine.answered;
}

/** By a timer: not where another tab asks at this moment. */
async function askInTurn() {
  let is = !navigator.locks;
  try { is ||= await navigator.locks.request(NAME, { ifAvailable: true }, async (lock) => lock && (await ask(), true)); } catch { is = false; }
  if (is) return navigator.locks || ask();
  // One that is suspended keeps its lock.
  if (since(asked) > 2 * interval.look) ask(); else timer = setTimeout(plan, 500);
}

// when the answer was asked for that was taken last
let taken = 0;
function take(answer, sent, received) {
  const at = { wall: sent, steady: steadyOf(sent) };
  // It slept on the way, or a later one was faster.
  if (since(at) > PATIENCE + JUMP) return void ask(true);
  if (sent < taken && taken <= Date.now()) return;
  taken = sent;
  failed = false;
  asked = at;
  if (known.state === "left") return;
  if (answer.authenticated) {
    // With several providers a user is one of an issuer's.
    if (known.sub && (known.sub !== answer.sub || answer.iss && (known.iss ?? answer.iss) !== answer.iss)) return leave();
    idle = { left: answer.idle_expires_in * 1000, sent: asked, received: { wall: received, steady: steadyOf(received) } };
    interval = {
      look: Math.min(15_000, answer.signal_interval * 1000),
      signal: answer.signal_interval * 500,
      timeout: answer.idle_timeout * 1000,
    };
    Object.assign(known, { state: "confirmed", sub: answer.sub, iss: answer.iss ?? known.iss, session: answer.session, reason: null });
  } else {
    // A page that nobody was signed in at has nothing to end.
    const is = answer.state === "none" || answer.state === "ended";
    known.state = !known.sub ? "none" : is ? "ended" : "unconfirmed";
    known.reason = answer.reason ?? known.reason;
    idle = null;
  }
  tell();
  plan();
}

/** The page is another's. */
function leave() {
  known.state = "left";
  for (const one of waiting) one.fail(new DOMException("somebody else has signed in", "AbortError"));
  tell();
  // Not by a reload, which would send a form again, or give back what was typed. One that was fetched like this before, and may come from a
  // cache, is fetched every five seconds at most.
  const here = location.pathname + location.search;
  setTimeout(() => location.replace(here), document.referrer.endsWith(here) ? 5000 : 0);
}

let told = {};
function tell() {
  const left = atMost();
  const is = known.state;
  const view = { state: is, sub: known.sub, reason: known.reason, seconds: Math.max(0, Math.ceil(left / 1000)), reachable: !failed };
  if (is === "confirmed" && atLeast() <= 0) {
    // Nobody knows before the answer; until then nothing private is shown, and nothing is said.
    view.state = failed ? "unreachable" : "asking";
    if (!failed && !pending) ask();
  } else if (is === "confirmed" && left <= warnAt() && (failed || idle.left <= warnAt() + 100)) view.state = "warning";
  if (failed && is === "unconfirmed") view.state = "unreachable";
  const before = told.state;
  told = view;
  if (view.state !== before && view.state !== "asking") {
    if (view.state === "warning") { emit("session-warning", { seconds: view.seconds }); forgetInput(); }
    if (view.state === "ended") emit("session-ended", { reason: view.reason });
    if (view.state === "confirmed" && said && said !== "confirmed") emit("session-continued", {});
    if (["confirmed", "warning", "ended", "unconfirmed", "unreachable"].includes(view.state)) said = view.state;
  }
  if (is === "confirmed" && !failed && view.state !== "asking") for (const one of [...waiting]) one.go();
  for (const listener of listeners) try { listener(view); } catch (error) { reportError(error); }
}
// what people and pages were told last
let said;

function emit(name, detail) { document.dispatchEvent(new CustomEvent(name, { detail })); }

/** When to ask next: often enough to see an end in time, and when something is to be said. */
function plan() {
  clearTimeout(timer);
  if (!started || known.state === "left") return;
  const most = interval.look * 0.96;
  const gone = since(asked);
  let next = document.visibilityState === "visible" && known.state !== "none" ? Math.max(0, most - gone) : Infinity;
  if (idle && !failed) {
    const left = atMost();
    const due = left > warnAt() ? left - warnAt() : Math.max(left, 0) + 20;
    // Equal steps, so that none comes right after another.
    const steps = Math.ceil((gone + due) / most);
    next = Math.min(next, steps > 1 ? Math.max(0, (gone + due) / steps - gone) : due);
    if (document.visibilityState !== "visible") next = due;
  }
  if (next < Infinity) timer = setTimeout(askInTurn, next + Math.random() * 30);
}

// Sleep, and clocks that are set: it asks, and says nothing before it knows.
setInterval(() => {
  if (!started || known.state === "left") return;
  const now = Date.now() - performance.now();
  if (Math.abs(now - offset) > JUMP) { offset = now; ask(true); }
  if (idle || failed) tell();
}, 500);

function look() { if (started && document.visibilityState === "visible") { if (idle && atLeast() <= 0) tell(); ask(true); } }
document.addEventListener("visibilitychange", look);
document.addEventListener("resume", look);
addEventListener("online", look);
addEventListener("focus", () => { if (known.state === "ended" || known.state === "unconfirmed") look(); });
// What comes back from the back/forward cache is covered before anybody sees it.
addEventListener("pagehide", (event) => { if (event.persisted) cover(true); });
addEventListener("pageshow", (event) => { if (event.persisted && started) { cover(true); ask(true).then(() => cover(false)); } });
const covers = new Set();
function cover(is) { for (const one of covers) one(known.sub !== null && (is || known.state === "left")); }

// What a person does is activity, in a visible page, and nothing else.
const LAST = NAME + " signal";
function lastSignal() {
  try { const at = Number(localStorage.getItem(LAST)); return at <= Date.now() ? at : 0; } catch { return typed; }
}
function forgetInput() { clearTimeout(signalTimer); signalTimer = null; }
let pointer = "";
function input(event) {
  if (!event.isTrusted || !isSigned || !started || signalTimer || document.visibilityState !== "visible") return;
  if (told.state !== "confirmed") return;
  // A pointer at rest moves where the page moves under it.
  if (event.type === "pointermove") {
    const at = event.screenX + " " + event.screenY, before = pointer;
    pointer = at;
    if (!before || before === at) return;
  }
  signalWhenDue();
}
function signalWhenDue() {
  const due = lastSignal() + interval.signal - Date.now();
  signalTimer = setTimeout(async () => {
    signalTimer = null;
    if (told.state !== "confirmed") return;
    const signal = async (lock) => {
      if (lock === null) return;
      if (Date.now() < lastSignal() + interval.signal) return signalWhenDue();
      await stay();
    };
    if (navigator.locks) await navigator.locks.request(LAST, { ifAvailable: true }, signal).catch(() => {});
    else await signal();
  }, Math.max(0, due) + (due > 0 ? 5 : 0));
}
for (const name of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart", "touchmove"])
  addEventListener(name, input, { capture: true, passive: true });

function noteSignal(at) {
  typed = at;
  try { localStorage.setItem(LAST, String(at)); } catch {}
}

/** "Stay signed in": asks the provider. Resolves to "confirmed", "navigate" where only a navigation can ask, or what else it is. */
export async function stay() {
  noteSignal(Date.now());
  let answer = null, error = null;
  try {
    answer = await fetch(SESSION, { method: "POST", signal: AbortSignal.timeout(PATIENCE * 2) });
    if (answer.status === 401) error = (await answer.json()).error;
  } catch {}
  if (!answer || !(answer.ok || answer.status === 401)) {
    failed = true;
    tell();
    return "unreachable";
  }
  await ask(true);
  return error === "not_confirmed" ? "navigate" : known.state;
}

/** Tells `listener` of the session, now and whenever something changes; returns what stops that. */
export function onSession(listener) {
  listeners.add(listener);
  if (!started) { started = true; ask(); }
  if (told.state) listener(told);
  return () => listeners.delete(listener);
}

/** `fetch` that outlives the session: where that has ended, it waits until the same user has signed in again. */
export async function sessionFetch(resource, options) {
  onSession(() => {})();
  while (known.state === "unknown") { await ask(); if (failed) await new Promise((go) => setTimeout(go, 1000)); }
  const request = new Request(resource, options);
  if (new URL(request.url).origin !== location.origin) return fetch(request);
  const { sub, iss } = known;
  let tried;
  if (sub !== null) request.headers.set("oidc-session-sub", [sub, iss].filter(Boolean).map(encodeURIComponent).join(" "));
  for (;;) {
    const response = await fetch(request.clone());
    const isOurs = /^OidcSession /.test(response.headers.get("www-authenticate") ?? "");
    if (!isOurs || sub === null || ![401, 409].includes(response.status)) return response;
    await ask(true);
    // It is not the session that is missing, but a better login, say.
    if (response.status === 409 || (known.state === "confirmed" && tried === known.session)) return response;
    tried = known.session;
    request.signal.throwIfAborted();
    // The server is not asked again and again, whatever it says.
    await new Promise((go) => setTimeout(go, failed ? 1000 : 0));
    if (failed || known.state !== "confirmed") await new Promise((go, fail) => {
      const abort = () => one.fail(request.signal.reason);
      const done = (then) => (value) => { waiting.delete(one); request.signal.removeEventListener("abort", abort); then(value); };
      const one = { go: done(go), fail: done(fail) };
      waiting.add(one);
      request.signal.addEventListener("abort", abort);
    });
  }
}

const STYLE = `
:host{display:contents}
dialog{box-sizing:border-box;max-width:min(30rem,100vw - 2rem);padding:1.5rem;border:1px solid #767676;border-radius:.5rem;
  font:1rem/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff}
dialog.cover{width:100vw;height:100vh;max-width:none;max-height:none;margin:0;border:0;
  place-content:center;overflow:auto}
dialog.cover[open]{display:grid}
dialog::backdrop{background:rgb(0 0 0 / .5)}
h2{margin:0 0 .5rem;font-size:1.25rem}p{margin:0 0 1rem}
div{display:flex;flex-wrap:wrap;gap:.75rem}
button{font:inherit;padding:.5rem 1rem;border:1px solid #1a4fa3;border-radius:.25rem;background:#fff;color:#1a4fa3;
  cursor:pointer}
.first{background:#1a4fa3;color:#fff}
:focus-visible{outline:3px solid #1a4fa3;outline-offset:2px}
.live{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media (prefers-color-scheme:dark){
  dialog{color:#f2f2f2;background:#1c1c1e;border-color:#8e8e93}
  button{background:#1c1c1e;color:#9cc2ff;border-color:#9cc2ff}.first{background:#9cc2ff;color:#10131a}
:focus-visible{outline-color:#9cc2ff}
}`;

class SessionGuard extends HTMLElement {
  #dialog; #title; #text; #buttons; #live; #shown = null; #state; #hidden = []; #covered = false; #page = null; #stop; #announced;
  static observedAttributes = ["activity", "warn"];
  attributeChangedCallback(name, _, value) {
    if (name === "warn") warn = (value && value >= 0 ? value : 60) * 1000;
    else isSigned = value !== "off";
  }
  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    root.innerHTML = '<dialog role="alertdialog" aria-modal="true" aria-labelledby="title" aria-describedby="text"><h2 id="title"></h2>' +
      '<p id="text"></p><div></div><span class="live" role="status"></span></dialog>';
    [this.#dialog, this.#title, this.#text, this.#buttons, this.#live] = ["dialog", "h2", "p", "div", ".live"].map((one) => root.querySelector(one));
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (this.#shown === "warning") this.#stay();
    });
    // Browsers close a dialog at the second Escape whatever one says.
    this.#dialog.addEventListener("close", () => { if (this.#shown && this.isConnected && !this.#dialog.open) this.#dialog.showModal(); });
    if (this.hasAttribute("sub")) { known.sub ??= this.getAttribute("sub"); known.iss ??= this.getAttribute("iss"); }
    covers.add(this.#cover);
    this.#stop = onSession((view) => this.#show(view));
  }
  disconnectedCallback() { this.#stop?.(); covers.delete(this.#cover); this.#open(null); this.#hide(false); }

  #cover = (is) => { this.#covered = is; this.#hide(this.#covered || this.#isOver()); };
  #isOver() { return ["asking", "ended", "unconfirmed", "unreachable", "left"].includes(this.#state); }
  async #stay() {
    // Where only a navigation can ask the provider, another tab does; this one goes on when it hears.
    if (await stay() === "navigate") this.#buttons.replaceChildren(this.#link("continue", location.pathname + location.search));
  }
  #show(view) {
    this.#state = view.state;
    const shown = ["warning", "ended", "unconfirmed", "unreachable"].includes(view.state) ? view.state : null;
    this.#hide(this.#covered || this.#isOver());
    if (view.state === "asking" && this.#shown === "warning") return;
    this.#open(shown);
    if (shown === "warning") this.#count(view.seconds);
    if (shown === "ended") this.#text.textContent = words(this)(WHY[view.reason] ?? "over");
    if (shown === "unconfirmed") this.#text.textContent = view.reachable ? "" : words(this)("away");
  }
  #count(seconds) {
    const word = words(this);
    const [time, unit] = seconds > 90 ? [Math.round(seconds / 60), "minute"] : [seconds, "second"];
    const left = word("left", new Intl.NumberFormat(languageOf(this), { style: "unit", unit, unitDisplay: "long" }).format(time));
    this.#text.textContent = told.reachable ? left : left + " " + word("away") + ".";
    const step = [10, 30, 60].find((step) => seconds <= step);
    if (step && step !== this.#announced) { this.#announced = step; this.#live.textContent = left; }
    if (this.#page === null) this.#page = document.title;
    document.title = `(${seconds}) ${word("warning")} – ${this.#page}`;
  }
  #open(shown) {
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (this.#page !== null) { document.title = this.#page; this.#page = null; }
    this.#announced = null;
    this.#live.textContent = "";
    if (!shown) { if (this.#dialog.open) this.#dialog.close(); return; }
    const word = words(this);
    this.#dialog.className = shown === "warning" ? "" : "cover";
    this.#title.textContent = word({ warning: "warning", ended: "ended", unconfirmed: "unsure", unreachable: "away" }[shown]);
    this.#text.textContent = "";
    this.#buttons.replaceChildren(...{
      warning: [this.#button("stay", () => this.#stay()), this.#button("out", signOut)],
      ended: [this.#link("again", `${LOGIN}?return_to=${encodeURIComponent(location.pathname + location.search)}`)],
      unconfirmed: [this.#button("continue", () => this.#stay())],
      unreachable: [this.#button("retry", () => ask(true))],
    }[shown]);
    this.#buttons.firstElementChild.className = "first";
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#buttons.firstElementChild.focus();
  }
  #button(name, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words(this)(name);
    button.addEventListener("click", action);
    return button;
  }
  #link(name, url) { return this.#button(name, () => open(url, "_blank", "noopener")); }
  #hide(is) {
    const names = this.getAttribute("hide");
    const wanted = is && names ? [...document.querySelectorAll(names)] : [];
    for (const one of [...wanted, ...this.#hidden]) {
      const hides = wanted.includes(one);
      if (hides === this.#hidden.includes(one)) continue;
      one.inert = hides;
      for (const name of ["visibility", "content-visibility"])
        if (hides) one.style.setProperty(name, "hidden", "important"); else one.style.removeProperty(name);
    }
    this.#hidden = wanted;
  }
}

// Its own button, or the page's.
addEventListener("submit", ({ target }) => target.action === LOGOUT && channel?.postMessage({ leaving: true }));
function signOut() {
  const form = document.createElement("form");
  form.method = "post";
  form.action = LOGOUT;
  document.body.append(form);
  form.requestSubmit();
}

customElements.get("session-guard") || customElements.define("session-guard", SessionGuard);
