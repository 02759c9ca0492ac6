//! What the informers have told and the loop has not yet taken. Several changes of one object are one, so
//! the bound is the number of objects.

use crate::budgets::Budget;
use crate::queue::{StorageKind, Waiting};
use crate::view::{NodeView, PodView};
use krate_api::labels::{Labels, Selector};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::Notify;

/// An object's state before and after.
pub type Change<V> = (Option<V>, Option<V>);

/// Changes by key, in the order in which the keys first changed.
struct Changes<K, V> {
    order: Vec<K>,
    changes: HashMap<K, Change<V>>,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self { order: Vec::new(), changes: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Changes<K, V> {
    fn put(&mut self, key: K, old: Option<V>, new: Option<V>) {
        match self.changes.get_mut(&key) {
            Some((_, latest)) => *latest = new,
            None => {
                self.order.push(key.clone());
                self.changes.insert(key, (old, new));
            }
        }
    }

    fn take(&mut self) -> Vec<(K, Change<V>)> {
        let changes = &mut self.changes;
        self.order.drain(..).filter_map(|key| changes.remove_entry(&key)).collect()
    }
}

/// Namespace and name.
pub type PodKey = (Arc<str>, Arc<str>);
/// Kind, namespace and name of what selects pods.
pub type OwnerKey = (&'static str, Arc<str>, Arc<str>);

/// A decision that could not be carried out.
pub struct Failure {
    pub waiting: Waiting,
    pub node: Arc<str>,
}

/// Everything that has come in.
#[derive(Default)]
pub struct Mail {
    pub nodes: Vec<(Arc<str>, Change<Arc<NodeView>>)>,
    pub namespaces: Vec<(String, Change<Labels>)>,
    pub budgets: Vec<(String, Change<Arc<Budget>>)>,
    pub owners: Vec<(OwnerKey, Change<Selector>)>,
    pub storage: Vec<((StorageKind, String), Change<()>)>,
    pub pods: Vec<(PodKey, Change<Arc<PodView>>)>,
    pub failures: Vec<Failure>,
}

#[derive(Default)]
struct Boxes {
    nodes: Changes<Arc<str>, Arc<NodeView>>,
    namespaces: Changes<String, Labels>,
    budgets: Changes<String, Arc<Budget>>,
    owners: Changes<OwnerKey, Selector>,
    storage: Changes<(StorageKind, String), ()>,
    pods: Changes<PodKey, Arc<PodView>>,
    failures: Vec<Failure>,
}

#[derive(Default)]
pub struct Inbox {
    boxes: Mutex<Boxes>,
    wake: Notify,
}

impl Inbox {
    pub fn node(&self, old: Option<&Arc<NodeView>>, new: Option<&Arc<NodeView>>) {
        let Some(any) = new.or(old) else { return };
        self.boxes.lock().nodes.put(any.name.clone(), old.cloned(), new.cloned());
        self.wake.notify_one();
    }

    pub fn pod(&self, old: Option<&Arc<PodView>>, new: Option<&Arc<PodView>>) {
        let Some(any) = new.or(old) else { return };
        let key = (any.namespace.clone(), any.name.clone());
        self.boxes.lock().pods.put(key, old.cloned(), new.cloned());
        self.wake.notify_one();
    }

    pub fn namespace(&self, name: &str, labels: Option<Labels>) {
        self.boxes.lock().namespaces.put(name.to_owned(), None, labels);
        self.wake.notify_one();
    }

    pub fn budget(&self, key: String, budget: Option<&Arc<Budget>>) {
        self.boxes.lock().budgets.put(key, None, budget.cloned());
        self.wake.notify_one();
    }

    /// What a Service or a controller selects.
    pub fn owner(&self, key: OwnerKey, selector: Option<Selector>) {
        self.boxes.lock().owners.put(key, None, selector);
        self.wake.notify_one();
    }

    /// A claim, a volume or a class changed; what it is now is elsewhere.
    pub fn storage(&self, kind: StorageKind, key: &str) {
        self.boxes.lock().storage.put((kind, key.to_owned()), None, None);
        self.wake.notify_one();
    }

    pub fn failed(&self, failure: Failure) {
        self.boxes.lock().failures.push(failure);
        self.wake.notify_one();
    }

    /// Takes everything that has come.
    pub fn take(&self) -> Mail {
        let mut boxes = self.boxes.lock();
        Mail {
            nodes: boxes.nodes.take(),
            namespaces: boxes.namespaces.take(),
            budgets: boxes.budgets.take(),
            owners: boxes.owners.take(),
            storage: boxes.storage.take(),
            pods: boxes.pods.take(),
            failures: std::mem::take(&mut boxes.failures),
        }
    }

    /// Returns when something has come since the last call.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn changes_of_one_pod_are_one_from_the_first_state_to_the_last() {
        let inbox = Inbox::default();
        let states = [pod("a").view(), pod("a").label("x", "1").view(), pod("a").on("n").view()];
        inbox.pod(Some(&states[0]), Some(&states[1]));
        inbox.pod(None, Some(&pod("b").view()));
        inbox.pod(Some(&states[1]), Some(&states[2]));
        let mail = inbox.take();
        let names: Vec<_> = mail.pods.iter().map(|((_, name), _)| &**name).collect();
        assert_eq!(names, ["a", "b"]);
        let (old, new) = &mail.pods[0].1;
        assert!(Arc::ptr_eq(old.as_ref().unwrap(), &states[0]));
        assert!(Arc::ptr_eq(new.as_ref().unwrap(), &states[2]));
        assert!(inbox.take().pods.is_empty());
    }
}
