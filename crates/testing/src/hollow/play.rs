//! What the containers of hollow pods do: scripts by pod, and orders to single ones. Knows no API.

use krate_api::Object;
use krate_api::types::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How the containers of one pod behave. The default starts at once, is ready, runs for ever and ends
/// at once when asked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Play {
    /// From being bound to running.
    pub start: Duration,
    /// Runs, but does not become ready.
    pub unready: bool,
    pub exits: Exits,
    /// From being asked to end to having ended; the grace period cuts it short.
    pub stop: Duration,
}

/// When containers end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exits {
    #[default]
    Never,
    /// Every run ends after this time.
    Each { after: Duration, code: i32 },
    /// The run after so many restarts ends at once.
    Once { restarts: i32, code: i32 },
}

impl Play {
    /// Runs for this time and exits.
    #[must_use]
    pub fn exits(after: Duration, code: i32) -> Self {
        Self { exits: Exits::Each { after, code }, ..Self::default() }
    }

    #[must_use]
    pub fn unready() -> Self {
        Self { unready: true, ..Self::default() }
    }
}

type Script = Box<dyn Fn(&Pod) -> Play + Send + Sync>;

/// The scripts of a cluster's hollow pods. Clones share them.
#[derive(Clone)]
pub struct Stage(Arc<Inner>);

struct Inner {
    script: Mutex<Script>,
    orders: Mutex<HashMap<String, Play>>,
    /// The nodes that want to know of new orders, in the order in which they asked.
    nodes: Mutex<Vec<Weak<Notify>>>,
}

impl Default for Stage {
    fn default() -> Self {
        let script: Script = Box::new(|_| Play::default());
        Self(Arc::new(Inner {
            script: Mutex::new(script),
            orders: Mutex::default(),
            nodes: Mutex::default(),
        }))
    }
}

impl Stage {
    /// Says how pods behave for which there is no order of their own.
    pub fn script(&self, script: impl Fn(&Pod) -> Play + Send + Sync + 'static) {
        *self.0.script.lock() = Box::new(script);
        self.told();
    }

    /// Gives one pod (by its uid) a play of its own.
    pub fn order(&self, pod: &Pod, change: impl FnOnce(&mut Play)) {
        let mut play = self.of(pod);
        change(&mut play);
        self.0.orders.lock().insert(uid(pod), play);
        self.told();
    }

    /// The play of a pod.
    #[must_use]
    pub fn of(&self, pod: &Pod) -> Play {
        let order = self.0.orders.lock().get(&uid(pod)).cloned();
        order.unwrap_or_else(|| (self.0.script.lock())(pod))
    }

    pub(super) fn forget(&self, pod: &Pod) {
        self.0.orders.lock().remove(&uid(pod));
    }

    /// Is notified of every new script or order from now on.
    pub(super) fn changes(&self) -> Arc<Notify> {
        let node = Arc::new(Notify::new());
        self.0.nodes.lock().push(Arc::downgrade(&node));
        node
    }

    fn told(&self) {
        self.0.nodes.lock().retain(|node| {
            node.upgrade().is_some_and(|node| {
                node.notify_one();
                true
            })
        });
    }
}

fn uid(pod: &Pod) -> String {
    pod.meta().uid.clone().unwrap_or_default()
}
