//! How a pod's worker hears of things: one place per pod where the newest of everything lies, and one
//! signal. Nothing queues up, so nothing can overflow.

use crate::image::Pulled;
use crate::resize::Pending;
use crate::status::Verdict;
use krate_api::types::core::v1::Pod;
use krate_runtime::cri;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// What has come since the worker looked last.
#[derive(Default)]
pub struct News {
    /// The newest specification, if it changed.
    pub pod: Option<Arc<Pod>>,
    /// Whether a resize has to wait, if that was looked at anew.
    pub pending: Option<Option<Pending>>,
    /// The pod is no longer in the API (or its file is gone).
    pub gone: bool,
    /// The node wants to be rid of the pod.
    pub verdict: Option<Verdict>,
    /// Content of volumes may have changed.
    pub references: bool,
    /// Finished pulls by what they are for.
    pub pulls: BTreeMap<String, Result<Pulled, cri::Error>>,
    /// Ended postStart hooks by container id.
    pub hooks: BTreeMap<String, Result<(), String>>,
    /// Ended stops by container id.
    pub stops: BTreeMap<String, Result<(), cri::Error>>,
}

/// The way to a worker; clones lead to the same one.
#[derive(Clone, Default)]
pub struct Mailbox(Arc<(Mutex<News>, Notify)>);

impl Mailbox {
    /// Leaves something and wakes the worker.
    pub fn leave(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.0.0.lock());
        self.0.1.notify_one();
    }

    /// Wakes the worker to look around.
    pub fn wake(&self) {
        self.0.1.notify_one();
    }

    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let this = self.clone();
        Arc::new(move || this.wake())
    }

    /// Takes everything that has come.
    pub fn take(&self) -> News {
        std::mem::take(&mut self.0.0.lock())
    }

    /// Returns when there may be something new.
    pub async fn changed(&self) {
        self.0.1.notified().await;
    }
}
