// The fold of tracer/state.py for the browser: the same names, the same states, step by step.
// A state is a plain object that is never changed; what did not change is shared.

/** @typedef {{kind: string, seq: number, t_ns: number, thread: string, cause?: number,
 *   [field: string]: any}} Step */
/** @typedef {{base: any, functions: Map<number, any>, steps: Step[]}} Trace */
/** @typedef {{phase: string, steps: number, [field: string]: any}} LoopState */

export const READ = 1, PRI = 2, WRITE = 4, ERR = 8, HUP = 16, RDHUP = 0x2000;

/** @type {Record<string, number>} */
const INTEREST_BITS = {
  "read": READ | PRI | RDHUP,
  "write": WRITE,
  "read write": READ | PRI | RDHUP | WRITE,
};

/**
 * Read the text of a trace file; a torn last line is left out.
 * @param {string} text
 * @returns {Trace}
 */
export function parseTrace(text) {
  const lines = text.split("\n");
  const header = JSON.parse(lines[0]);
  if (header.format !== "netpoll-trace" || header.version !== 1) {
    throw new Error("this is no trace that this player can read");
  }
  const { kind: _, ...base } = JSON.parse(lines[1]);
  const functions = new Map();
  const steps = [];
  for (let number = 2; number < lines.length; number++) {
    if (!lines[number]) continue;
    let value;
    try {
      value = JSON.parse(lines[number]);
    } catch (error) {
      if (number === lines.length - 1) break;
      throw error;
    }
    if (value.kind === "function") functions.set(value.id, value);
    else steps.push(value);
  }
  return { base, functions, steps };
}

/**
 * The nickname of the connection `number`, from 0: client A, …, client Z, client AA.
 * @param {number} number
 */
export function clientName(number) {
  let letters = "";
  for (let left = number + 1; left > 0; left = Math.floor((left - 1) / 26)) {
    letters = String.fromCharCode(65 + ((left - 1) % 26)) + letters;
  }
  return `client ${letters}`;
}

/**
 * The state that a recording began with.
 * @param {any} base
 * @returns {LoopState}
 */
export function initial(base) {
  const queued = (/** @type {string} */ queue) =>
    base.tasks
      .filter((/** @type {any} */ task) => task.queue === queue)
      .map((/** @type {any} */ task) => ({ seq: task.seq ?? null, callback: task.callback }));
  /** @type {LoopState} */
  let state = {
    phase: base.running ? "between" : "outside",
    size: base.size,
    wakeup_fd: base.wakeup_fd,
    steps: 0,
    registrations: new Map(),
    descriptors: new Map(),
    ready: [],
    batch: [],
    running: null,
    finished: null,
    site: null,
    urgent: queued("high"),
    low: queued("low"),
    timers: (base.timers ?? [])
      .map((/** @type {any} */ timer) =>
        ({ seq: timer.seq ?? null, callback: timer.callback, due_ns: timer.due_ns }))
      .sort((/** @type {any} */ a, /** @type {any} */ b) => a.due_ns - b.due_ns),
    wakeup_counter: 0,
    counts: { waits: 0, dispatches: 0, tasks: 0, dropped: 0, errors: 0 },
    wait_began: null,
    error: null,
    closed: false,
    next_registration: 0,
    next_client: 0,
  };
  const own = base.registrations.find((/** @type {any} */ row) => row.fd === base.wakeup_fd);
  const wakeup = {
    fd: base.wakeup_fd,
    who: "wakeup",
    interest: own ? own.interest : "read",
    edge_triggered: own ? own.edge_triggered : false,
    oneshot: false,
    exclusive: false,
    callback: null,
  };
  state = { ...state, ...register(state, wakeup) };
  for (const row of base.registrations) {
    if (row !== own) state = { ...state, ...register(state, row) };
  }
  return state;
}

/**
 * The state after `step`; a call that failed changes no table.
 * @param {LoopState} state
 * @param {Step} step
 * @returns {LoopState}
 */
export function advance(state, step) {
  const known = Object.hasOwn(CHANGES, step.kind) || WITHOUT_CHANGE.has(step.kind);
  const error = known ? step.error ?? null : null; // a newer tracer's step says nothing to this one
  /** @type {LoopState} */
  const after = { ...state, steps: state.steps + 1, error };
  if (error === null || EVEN_IF_FAILED.has(step.kind)) {
    if (Object.hasOwn(CHANGES, step.kind)) Object.assign(after, CHANGES[step.kind](state, step));
  }
  if (error !== null) after.counts = { ...after.counts, errors: after.counts.errors + 1 };
  if (step.function != null && CALLS.has(step.kind)) {
    if (state.running === null || state.running.thread === step.thread) {
      after.site = { function: step.function, line: step.line ?? null };
    }
    if (state.running === null) after.finished = null; // the last call is not its any more
  }
  return after;
}

/** A trace to seek in: any step's state, at the price of a few dozen `advance` calls. */
export class Replay {
  /** @param {Trace} trace */
  constructor(trace) {
    this.trace = trace;
    this.spacing = 64;
    this.kept = [initial(trace.base)];
    this.at = -1;
    this.last = this.kept[0];
  }

  /**
   * The state after the steps up to `index`, which counts from 0; -1 is the base state.
   * @param {number} index
   * @returns {LoopState}
   */
  state(index) {
    let at = this.at;
    let state = this.last;
    if (index < at || index - at > this.spacing) {
      const kept = Math.min(Math.floor((index + 1) / this.spacing), this.kept.length - 1);
      at = kept * this.spacing - 1;
      state = this.kept[kept];
    }
    while (at < index) {
      at += 1;
      state = advance(state, this.trace.steps[at]);
      if (at + 1 === this.kept.length * this.spacing) this.kept.push(state);
    }
    this.at = index;
    this.last = state;
    return state;
  }

  /** Begin anew: the trace holds other steps now. */
  restart() {
    this.kept = [initial(this.trace.base)];
    this.at = -1;
    this.last = this.kept[0];
  }

  /**
   * Drop about `count` of the oldest steps, at most; return how many. The base state is then what
   * they left, with its counts and names. Its `steps` is 0: they number the steps that are there.
   * @param {number} count
   */
  drop(count) {
    const spacings = Math.floor(count / this.spacing);
    const dropped = spacings * this.spacing;
    this.state(dropped - 1);
    this.kept = this.kept.slice(spacings)
      .map((state) => ({ ...state, steps: state.steps - dropped }));
    this.trace.steps.splice(0, dropped);
    this.at = -1;
    this.last = this.kept[0];
    return dropped;
  }
}

/**
 * The state as plain values, as `LoopState.to_json` gives it: rows by slot, descriptors by number.
 * @param {LoopState} state
 */
export function stateToJson(state) {
  return {
    ...state,
    registrations: [...state.registrations.values()].sort((a, b) => a.slot - b.slot),
    descriptors: [...state.descriptors.values()].sort((a, b) => a.fd - b.fd),
  };
}

/**
 * What people call the descriptor `fd`; empty when nothing is known.
 * @param {LoopState} state
 * @param {number} fd
 * @returns {string}
 */
export function nameOf(state, fd) {
  return state.descriptors.get(fd)?.name ?? "";
}

const WITHOUT_CHANGE = new Set(["WouldBlock", "PollerOpened", "ListChecked", "BuffersSeen"]);
const EVEN_IF_FAILED = new Set(["WaitEnded", "DispatchEnded", "TaskEnded"]);
const CALLS = new Set([
  "PollerOpened", "Registered", "Modified", "Deleted", "TaskQueued", "TimerSet", "TimerCanceled",
  "Accepted", "Read", "Wrote", "WouldBlock", "Closed",
]);

/** @param {Map<any, any>} map @param {any} key @param {any} value */
function withEntry(map, key, value) {
  return new Map(map).set(key, value);
}

/** @param {number} fd @param {any[]} ready */
function withoutReady(fd, ready) {
  return ready.filter((entry) => entry.fd !== fd);
}

/** @param {LoopState} state */
function freeSlot(state) {
  const used = new Set();
  for (const known of state.descriptors.values()) used.add(known.slot);
  for (const row of state.registrations.values()) used.add(row.slot);
  let slot = state.next_registration ? 1 : 0; // 0 is the wakeup's, which comes first
  while (used.has(slot)) slot += 1;
  return slot;
}

/**
 * The batch when its entry `now` (null: something behind it) is being handled. The wakeup's own
 * event gets no DispatchStarted: it is done when something behind it begins.
 * @param {LoopState} state
 * @param {number | null} now
 */
function settle(state, now) {
  return state.batch.map((/** @type {any} */ entry, /** @type {number} */ index) => {
    if (index === now) return { ...entry, status: "now" };
    const passed = entry.status === "pending" && entry.fd === state.wakeup_fd
      && (now === null || index < now);
    return entry.status === "now" || passed ? { ...entry, status: "done" } : entry;
  });
}

/** @param {LoopState} state @param {number} fd */
function pending(state, fd) {
  return state.batch.findIndex(
    (/** @type {any} */ entry) => entry.fd === fd && entry.status === "pending",
  );
}

/** @param {LoopState} state @param {any} row */
function register(state, row) {
  const registrations = new Map(state.registrations);
  const descriptors = new Map(state.descriptors);
  const old = registrations.get(row.fd);
  registrations.delete(row.fd);
  let known = descriptors.get(row.fd);
  if (known && (known.closed || (old && known.registration === old.id))) {
    known = undefined; // the kernel took the number again, so what it meant before is gone
    descriptors.delete(row.fd);
  }
  const slot = known?.slot ?? freeSlot({ ...state, registrations, descriptors });
  const id = state.next_registration;
  known ??= {
    fd: row.fd, name: row.who, peer: "", slot, registration: id, accepted: false,
    bytes_read: 0, bytes_written: 0, end_of_stream: false, closed: false,
  };
  registrations.set(row.fd, {
    id, slot, fd: row.fd, name: known.name, who: row.who, interest: row.interest,
    edge_triggered: row.edge_triggered, oneshot: row.oneshot, exclusive: row.exclusive,
    armed: row.armed ?? true, callback: row.callback ?? null, closed: row.closed ?? false,
  });
  descriptors.set(row.fd, { ...known, slot, registration: id });
  return {
    registrations, descriptors,
    ready: withoutReady(row.fd, state.ready),
    next_registration: id + 1,
  };
}

/** @param {LoopState} state @param {number} fd @param {any} changes */
function changeKnown(state, fd, changes) {
  const known = state.descriptors.get(fd);
  if (!known) return {};
  return { descriptors: withEntry(state.descriptors, fd, { ...known, ...changes }) };
}

/** @param {LoopState} state @param {number | null} seq */
function withoutTimer(state, seq) {
  const index = state.timers.findIndex((/** @type {any} */ timer) => timer.seq === seq);
  return index < 0 ? {} : { timers: state.timers.filter((/** @type {any} */ _, /** @type {number} */ at) => at !== index) };
}

/** The fields of the state that each kind of step replaces.
 * @type {Record<string, (state: LoopState, step: Step) => any>} */
const CHANGES = {
  Registered: register,

  Modified(state, step) {
    const row = state.registrations.get(step.fd);
    if (!row) return register(state, step);
    const wanted = (INTEREST_BITS[step.interest] ?? 0) | ERR | HUP;
    return {
      registrations: withEntry(state.registrations, step.fd, {
        ...row, interest: step.interest, edge_triggered: step.edge_triggered,
        oneshot: step.oneshot, exclusive: step.exclusive, armed: true,
        callback: step.callback ?? null,
      }),
      ready: state.ready
        .map((/** @type {any} */ entry) =>
          entry.fd === step.fd ? { ...entry, event: entry.event & wanted } : entry)
        .filter((/** @type {any} */ entry) => entry.event),
    };
  },

  Deleted(state, step) {
    const row = state.registrations.get(step.fd);
    if (!row) return {};
    const registrations = new Map(state.registrations);
    registrations.delete(step.fd);
    const known = state.descriptors.get(step.fd);
    const changes = { registrations, ready: withoutReady(step.fd, state.ready) };
    if (known && known.registration === row.id) {
      const slot = known.accepted && !known.closed ? known.slot : null;
      Object.assign(changes, changeKnown(state, step.fd, { registration: null, slot }));
    }
    return changes;
  },

  ListRebuilt(state) {
    const registrations = new Map(state.registrations);
    for (const [fd, row] of registrations) registrations.set(fd, { ...row, armed: true });
    return { registrations };
  },

  WaitStarted(state, step) {
    // The kernel looks again at what it returned before; what we know for sure is the counter.
    const sure = state.wakeup_counter > 0;
    return {
      phase: "waiting",
      size: step.size,
      batch: [],
      ready: state.ready.filter((/** @type {any} */ e) => sure && e.fd === state.wakeup_fd),
      running: null,
      wait_began: step.t_ns,
      counts: { ...state.counts, waits: state.counts.waits + 1 },
    };
  },

  WaitEnded(state, step) {
    const registrations = new Map(state.registrations);
    const ready = [];
    for (const [fd, event] of step.events) {
      const row = registrations.get(fd);
      if (!row) continue;
      if (row.oneshot || row.closed) { // what the kernel reports, it has not dropped
        registrations.set(fd, { ...row, armed: !row.oneshot, closed: false });
      }
      if (!row.oneshot && !row.edge_triggered) ready.push({ fd, event, name: nameOf(state, fd) });
    }
    const woken = step.events.some((/** @type {any} */ [fd]) => fd === state.wakeup_fd);
    return {
      phase: "between",
      registrations,
      ready,
      batch: step.events.map((/** @type {any} */ [fd, event]) =>
        ({ fd, event, name: nameOf(state, fd), status: "pending" })),
      wakeup_counter: woken ? Math.max(state.wakeup_counter, 1) : state.wakeup_counter,
    };
  },

  DispatchStarted(state, step) {
    let index = pending(state, step.fd);
    if (index < 0) { // it was in flight before the recording began
      const name = nameOf(state, step.fd);
      const entry = { fd: step.fd, event: step.event, name, status: "pending" };
      state = { ...state, batch: [...state.batch, entry] };
      index = state.batch.length - 1;
    }
    return {
      phase: "dispatching",
      batch: settle(state, index),
      running: {
        seq: step.seq, thread: step.thread, callback: step.callback ?? null,
        fd: step.fd, event: step.event, name: state.batch[index].name,
      },
      finished: null,
      site: null,
      counts: { ...state.counts, dispatches: state.counts.dispatches + 1 },
    };
  },

  DispatchEnded(state) {
    const batch = state.batch.map((/** @type {any} */ entry) =>
      entry.status === "now" ? { ...entry, status: "done" } : entry);
    const more = batch.some((/** @type {any} */ entry) =>
      entry.status === "pending" && entry.fd !== state.wakeup_fd);
    return {
      phase: more ? "dispatching" : "between",
      batch,
      running: null,
      finished: state.running ?? state.finished,
    };
  },

  EventDropped(state, step) {
    const index = pending(state, step.fd);
    return {
      batch: state.batch.map((/** @type {any} */ entry, /** @type {number} */ at) =>
        at === index ? { ...entry, status: "dropped" } : entry),
      counts: { ...state.counts, dropped: state.counts.dropped + 1 },
    };
  },

  TaskQueued(state, step) {
    const task = { seq: step.seq, callback: step.callback ?? null };
    if (step.queue === "low") return { low: [...state.low, task] };
    return { urgent: [...state.urgent, task] };
  },

  WakeupSent(state) {
    // A write makes an eventfd readable at once: this much of the ready list is certain.
    const fd = state.wakeup_fd;
    const changes = { wakeup_counter: state.wakeup_counter + 1, ready: state.ready };
    if (state.registrations.has(fd)) {
      const entry = { fd, event: READ, name: nameOf(state, fd) };
      changes.ready = [...withoutReady(fd, state.ready), entry];
    }
    return changes;
  },

  WakeupReceived(state) {
    return {
      wakeup_counter: 0,
      batch: state.batch.map((/** @type {any} */ entry) =>
        entry.fd === state.wakeup_fd ? { ...entry, status: "done" } : entry),
    };
  },

  TimerSet(state, step) {
    const due_ns = step.t_ns + step.delay_ns;
    const timer = { seq: step.seq, callback: step.callback ?? null, due_ns };
    const after = state.timers.findIndex((/** @type {any} */ other) => other.due_ns > due_ns);
    const place = after < 0 ? state.timers.length : after;
    return { timers: [...state.timers.slice(0, place), timer, ...state.timers.slice(place)] };
  },

  TimerCanceled(state, step) {
    return withoutTimer(state, step.timer ?? null);
  },

  TimerFired(state, step) {
    const changes = { phase: "tasks", batch: settle(state, null) };
    return { ...changes, ...withoutTimer(state, step.cause ?? null) };
  },

  TaskStarted(state, step) {
    const changes = {
      phase: "tasks",
      batch: settle(state, null),
      running: {
        seq: step.seq, thread: step.thread, callback: step.callback ?? null,
        fd: null, event: null, name: "",
      },
      finished: null,
      site: null,
      counts: { ...state.counts, tasks: state.counts.tasks + 1 },
    };
    for (const name of ["urgent", "low"]) {
      const index = state[name].findIndex(
        (/** @type {any} */ task) => task.seq === (step.cause ?? null),
      );
      if (index >= 0) {
        const left = [...state[name]];
        left.splice(index, 1);
        return { ...changes, [name]: left };
      }
    }
    return changes;
  },

  TaskEnded(state) {
    return {
      phase: state.urgent.length || state.low.length ? "tasks" : "between",
      running: null,
      finished: state.running ?? state.finished,
    };
  },

  BatchResized(_state, step) {
    return { size: step.size };
  },

  PollerClosed(state) {
    const descriptors = new Map();
    for (const [fd, known] of state.descriptors) {
      const slot = known.accepted && !known.closed ? known.slot : null;
      descriptors.set(fd, { ...known, registration: null, slot });
    }
    return {
      phase: "outside", closed: true, registrations: new Map(), descriptors,
      ready: [], batch: [], urgent: [], low: [], timers: [], wakeup_counter: 0,
    };
  },

  Accepted(state, step) {
    const fd = step.new_fd ?? null;
    if (fd === null) return {};
    const changes = { next_client: state.next_client + 1 };
    const old = state.registrations.get(fd);
    if (old) { // the number was free, so its old socket had been closed
      Object.assign(changes, {
        registrations: withEntry(state.registrations, fd, { ...old, closed: true }),
        ready: withoutReady(fd, state.ready),
      });
    }
    const descriptors = new Map(state.descriptors);
    descriptors.delete(fd);
    descriptors.set(fd, {
      fd, name: clientName(state.next_client), peer: step.peer,
      slot: freeSlot({ ...state, descriptors }), registration: null, accepted: true,
      bytes_read: 0, bytes_written: 0, end_of_stream: false, closed: false,
    });
    return { ...changes, descriptors };
  },

  Read(state, step) {
    if (step.count === 0) return changeKnown(state, step.fd, { end_of_stream: true });
    const before = state.descriptors.get(step.fd)?.bytes_read ?? 0;
    return changeKnown(state, step.fd, { bytes_read: before + step.count });
  },

  Wrote(state, step) {
    const before = state.descriptors.get(step.fd)?.bytes_written ?? 0;
    return changeKnown(state, step.fd, { bytes_written: before + step.count });
  },

  Closed(state, step) {
    const known = state.descriptors.get(step.fd);
    const row = state.registrations.get(step.fd);
    if (row && (!known || known.registration === row.id)) {
      return {
        registrations: withEntry(state.registrations, step.fd, { ...row, closed: true }),
        ready: withoutReady(step.fd, state.ready),
        ...changeKnown(state, step.fd, { closed: true }),
      };
    }
    return changeKnown(state, step.fd, { closed: true, slot: null });
  },
};
