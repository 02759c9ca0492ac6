//! All workers of the node: one per pod, by uid, each with its mailbox.
//!
//! Whoever learns something about a pod tells it here and is done; nothing here waits.

use crate::admit;
use crate::context::Context;
use crate::events;
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
    pod: Arc<Pod>,
    rejected: bool,
}

#[derive(Default)]
struct State {
    pods: HashMap<String, Entry>,
    /// Static pods that wait for their predecessor of the same name to be gone, by that name.
    next: HashMap<String, Arc<Pod>>,
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
        if let Some(entry) = state.pods.get_mut(spec::uid(pod)) {
            entry.pod = pod.clone();
            let pod = pod.clone();
            entry.mailbox.leave(|news| news.pod = Some(pod));
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
        mailbox.leave(|news| {
            news.gone = gone;
            news.verdict = verdict;
        });
        let worker =
            Worker::new(self.0.context.clone(), pod.clone(), mailbox.clone(), self.0.shutdown.clone());
        state.pods.insert(uid.clone(), Entry { mailbox, pod: pod.clone(), rejected });
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
    fn judge(&self, state: &State, pod: &Pod) -> Option<Verdict> {
        let begun = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if begun || spec::is_deleting(pod) {
            return None;
        }
        let others =
            state.pods.values().filter(|e| !e.rejected && !spec::is_terminal(&e.pod)).map(|e| &*e.pod);
        let verdict = admit::judge(pod, others, &self.0.context.allocatable)?;
        self.0.context.recorder.warning(&events::about(pod), &verdict.reason, verdict.message.clone());
        Some(Verdict { message: format!("Pod was rejected: {}", verdict.message), ..verdict })
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
    }
}
