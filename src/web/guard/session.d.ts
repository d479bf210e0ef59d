/** What is known of the session of this page. */
export interface SessionView {
  /**
   * `confirmed`: it stands. `warning`: it ends soon unless somebody stays. `unconfirmed`: it may have ended; a click asks.
   * `ended`: it has. `unreachable`: the server cannot be asked, and the idle end may have passed. `asking`: the answer is
   * on its way, and nothing private may be shown before. `none`: nobody was signed in when this page began.
   */
  state: "unknown" | "none" | "confirmed" | "warning" | "unconfirmed" | "asking" | "ended" | "unreachable" | "left";
  /** The user, the `sub` claim. */
  sub: string | null;
  /** Why it ended: a name of the crate's `EndReason`. */
  reason: string | null;
  /** Until the idle end, as far as is known. */
  seconds: number;
  /** Whether the last question was answered. */
  reachable: boolean;
}

/** Tells `listener` of the session, now and whenever something changes; returns what stops that. */
export function onSession(listener: (view: SessionView) => void): () => void;

/** "Stay signed in": asks the provider now. `navigate`: only a page load can ask this provider. */
export function stay(): Promise<SessionView["state"] | "navigate">;

/**
 * `fetch` that outlives the session: where that has ended, it waits until the same user has signed in again, and sends again.
 * After the sign-in of somebody else it rejects with an `AbortError`.
 */
export function sessionFetch(resource: RequestInfo | URL, options?: RequestInit): Promise<Response>;

declare global {
  interface HTMLElementTagNameMap {
    "session-guard": HTMLElement;
  }
  interface DocumentEventMap {
    "session-warning": CustomEvent<{ seconds: number }>;
    "session-continued": CustomEvent<{}>;
    "session-ended": CustomEvent<{ reason: string | null }>;
  }
}
