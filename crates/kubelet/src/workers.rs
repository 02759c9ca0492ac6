//! All workers of the node: one per pod, by uid, each with its mailbox.
//!
//! Whoever learns something about a pod tells it here and is done; nothing here waits.

use crate::admit;
use crate::context::Context;
use crate::events;
use crate::preempt;
use crate::resize::{Pending, allocate};
use crate::spec;
use crate::status::Verdict;
use crate::worker::{Mailbox, Worker};
use krate_api::types::core::v1::Pod;
use krate_base::Shutdown;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

struct Entry {
    mailbox: Mailbox,
    /// With the amounts that it was given.
    pod: Arc<Pod>,
    /// As the API has it, while it asks for amounts that the node cannot give.
    asked: Option<Arc<Pod>>,
    rejected: bool,
}

impl Entry {
    fn uses(&self) -> bool {
        !self.rejected && !spec::is_terminal(&self.pod)
    }
}

#[derive(Default)]
struct State {
    pods: HashMap<String, Entry>,
    /// Static pods that wait for their predecessor of the same name to be gone, by that name.
    next: HashMap<String, Arc<Pod>>,
}

/// What a pod asks for, and why it has to wait for it.
type Waits = Option<(Arc<Pod>, Pending)>;

impl State {
    /// The pods that use what the node has.
    fn living(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|e| e.uses()).map(|e| &*e.pod)
    }

    /// Notes what a pod was given and tells its worker.
    fn enter(&mut self, pod: Arc<Pod>, waits: Waits) {
        let Some(entry) = self.pods.get_mut(spec::uid(&pod)) else { return };
        entry.pod = pod.clone();
        let (asked, pending) = waits.unzip();
        entry.asked = asked;
        entry.mailbox.leave(|news| {
            news.pod = Some(pod);
            news.pending = Some(pending);
        });
    }
}

/// The workers; clones share them.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    context: Arc<Context>,
    shutdown: Shutdown,
    state: Mutex<State>,
}

impl Workers {
    pub fn new(context: Arc<Context>, shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner { context, shutdown, state: Mutex::default() }))
    }

    /// The newest state of a pod; a new pod gets its worker.
    pub fn update(&self, pod: &Arc<Pod>) {
        let mut state = self.0.state.lock();
        if let Some(given) = state.pods.get(spec::uid(pod)).map(|entry| entry.pod.clone()) {
            let (pod, pending) = self.allocate(&state, pod, &given);
            state.enter(pod, pending);
            self.retry(&mut state);
            return;
        }
        let key = krate_api::object::key(spec::namespace(pod), spec::name(pod));
        let same_name =
            |e: &Entry| krate_api::object::key(spec::namespace(&e.pod), spec::name(&e.pod)) == key;
        if spec::is_static(pod) && state.pods.values().any(same_name) {
            state.next.insert(key, pod.clone());
            return;
        }
        self.begin(&mut state, pod, false);
    }

    fn begin(&self, state: &mut State, pod: &Arc<Pod>, gone: bool) {
        let (uid, mailbox) = (spec::uid(pod).to_owned(), Mailbox::default());
        let verdict = if gone { None } else { self.judge(state, pod) };
        let rejected = verdict.is_some();
        let (asked, published) = (pod, Arc::new(allocate::as_published(pod)));
        let (pod, pending) = self.allocate(state, asked, &published);
        mailbox.leave(|news| {
            news.gone = gone;
            news.verdict = verdict;
        });
        let worker =
            Worker::new(self.0.context.clone(), pod.clone(), mailbox.clone(), self.0.shutdown.clone());
        state.pods.insert(uid.clone(), Entry { mailbox, pod: pod.clone(), asked: None, rejected });
        state.enter(pod, pending);
        let this = self.clone();
        self.0.context.supervisor.spawn(async move {
            // A bug in one worker must not take the others with it.
            if let Err(error) = tokio::spawn(worker.run()).await {
                tracing::error!(pod = %uid, %error, "a pod's worker failed");
            }
            if !this.0.shutdown.is_cancelled() {
                this.finished(&uid);
            }
        });
    }

    /// Whether the node can take a pod that it has not begun with.
    fn judge(&self, state: &mut State, pod: &Pod) -> Option<Verdict> {
        let begun = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if begun || spec::is_deleting(pod) {
            return None;
        }
        let pressures = self.0.context.pressures.borrow().clone();
        let verdict = admit::under_pressure(pod, &pressures)
            .or_else(|| admit::judge(pod, state.living(), &self.0.context.allocatable))?;
        if verdict.reason.starts_with(admit::OUT_OF) && self.make_room(state, pod) {
            return None;
        }
        self.0.context.recorder.warning(&events::about(pod), &verdict.reason, verdict.message.clone());
        let message = format!("Pod was rejected: {}", verdict.message);
        Some(Verdict { message, rejected: true, ..verdict })
    }

    /// Tells others to go for a pod without which the node or the cluster does not work; false if that is not such
    /// a pod, or nobody's going would help.
    fn make_room(&self, state: &mut State, pod: &Pod) -> bool {
        let living: Vec<&Pod> = state.living().collect();
        let Some(victims) = preempt::victims(pod, &living, &self.0.context.allocatable) else { return false };
        for uid in victims {
            let Some(entry) = state.pods.get_mut(&uid) else { continue };
            tracing::warn!(pod = %spec::describe(&entry.pod), by = %spec::describe(pod), "preempting");
            let about = events::about(&entry.pod);
            self.0.context.recorder.warning(&about, preempt::REASON, preempt::MESSAGE.to_owned());
            let verdict = preempt::verdict(&entry.pod);
            entry.rejected = true;
            entry.mailbox.leave(|news| news.verdict = Some(verdict));
        }
        true
    }

    /// The pod with what it may have, and what it asks for and why that has to wait.
    fn allocate(&self, state: &State, asked: &Arc<Pod>, given: &Pod) -> (Arc<Pod>, Waits) {
        if allocate::asks_the_same(asked, given) {
            return (asked.clone(), None);
        }
        let over = spec::is_deleting(asked) || spec::is_terminal(asked);
        let others = state.living().filter(|pod| spec::uid(pod) != spec::uid(asked));
        match allocate::judge(asked, others, &self.0.context.allocatable) {
            Ok(()) if !over => (asked.clone(), None),
            verdict => {
                let waits = verdict.err().filter(|_| !over).map(|pending| (asked.clone(), pending));
                (Arc::new(allocate::with_amounts_of(asked, given)), waits)
            }
        }
    }

    /// Gives what had to wait and fits now, the most important pods first.
    fn retry(&self, state: &mut State) {
        let mut waiting: Vec<(Arc<Pod>, Arc<Pod>)> =
            state.pods.values().filter_map(|e| Some((e.asked.clone()?, e.pod.clone()))).collect();
        waiting.sort_by_key(|(asked, _)| std::cmp::Reverse(spec::spec(asked).priority.unwrap_or(0)));
        for (asked, given) in waiting {
            let (pod, waits) = self.allocate(state, &asked, &given);
            state.enter(pod, waits);
        }
    }

    /// The pod is no longer in the API, or its file is gone.
    pub fn gone(&self, uid: &str) {
        let mut state = self.0.state.lock();
        state.next.retain(|_, pod| spec::uid(pod) != uid);
        if let Some(entry) = state.pods.get(uid) {
            entry.mailbox.leave(|news| news.gone = true);
        }
    }

    /// Ends what the runtime still has of a pod that nobody knows.
    pub fn orphan(&self, pod: &Arc<Pod>) {
        let mut state = self.0.state.lock();
        if !state.pods.contains_key(spec::uid(pod)) {
            self.begin(&mut state, pod, true);
        }
    }

    /// The pods that use what the node has.
    pub fn living(&self) -> Vec<Arc<Pod>> {
        let state = self.0.state.lock();
        state.pods.values().filter(|e| e.uses()).map(|e| e.pod.clone()).collect()
    }

    /// The node wants to be rid of the pod.
    pub fn evict(&self, uid: &str, verdict: Verdict) {
        if let Some(entry) = self.0.state.lock().pods.get_mut(uid) {
            entry.rejected = true;
            entry.mailbox.leave(|news| news.verdict = Some(verdict));
        }
    }

    /// Something of the pod changed in the runtime.
    pub fn wake(&self, uid: &str) {
        if let Some(entry) = self.0.state.lock().pods.get(uid) {
            entry.mailbox.wake();
        }
    }

    pub fn wake_all(&self) {
        self.0.state.lock().pods.values().for_each(|entry| entry.mailbox.wake());
    }

    pub fn knows(&self, uid: &str) -> bool {
        self.0.state.lock().pods.contains_key(uid)
    }

    fn finished(&self, uid: &str) {
        let mut state = self.0.state.lock();
        if let Some(entry) = state.pods.remove(uid) {
            let key = krate_api::object::key(spec::namespace(&entry.pod), spec::name(&entry.pod));
            if let Some(next) = state.next.remove(&key) {
                self.begin(&mut state, &next, false);
            }
        }
        self.retry(&mut state);
    }
}
