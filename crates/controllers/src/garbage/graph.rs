//! Who owns whom: every object of the cluster by uid, with its owners and dependents. Pure.

use krate_api::Resource;
use krate_api::meta::OwnerReference;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// An object as far as ownership goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    pub foreground: bool,
    pub orphan: bool,
}

impl Node {
    /// It is being deleted and waits for its dependents.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.deleting && self.foreground
    }

    /// It is being deleted and its dependents are to be set free.
    #[must_use]
    pub fn frees(&self) -> bool {
        self.deleting && self.orphan
    }

    /// Whether it holds up the deletion of this owner.
    #[must_use]
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

/// A node and the resource in which it is.
#[derive(Clone, Debug)]
pub struct Entry {
    pub resource: Arc<Resource>,
    pub node: Arc<Node>,
}

#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Entry>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

/// Objects to look at, by uid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Todo {
    pub delete: BTreeSet<String>,
    pub orphan: BTreeSet<String>,
}

impl Graph {
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Entry> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Entry> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d))
    }

    /// An object appeared or changed.
    pub fn put(&mut self, resource: &Arc<Resource>, node: Arc<Node>) -> Todo {
        let mut todo = Todo::default();
        let old =
            self.nodes.insert(node.uid.clone(), Entry { resource: resource.clone(), node: node.clone() });
        let before = old.as_ref().map(|e| e.node.owners.as_slice()).unwrap_or_default();
        if before != node.owners.as_slice() {
            self.relink(&node, before, &mut todo);
        }
        let was = |state: fn(&Node) -> bool| old.as_ref().is_some_and(|e| state(&e.node));
        if node.waits() && !was(Node::waits) {
            todo.delete.insert(node.uid.clone());
            todo.delete.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
        }
        if node.frees() && !was(Node::frees) {
            todo.orphan.insert(node.uid.clone());
        }
        todo
    }

    fn relink(&mut self, node: &Node, before: &[OwnerReference], todo: &mut Todo) {
        for owner in before {
            // An owner may have waited for this one.
            todo.delete.insert(owner.uid.clone());
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&node.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
            let waits = self.nodes.get(&owner.uid).map(|e| e.node.waits());
            if waits != Some(false) {
                // The owner is not known, or on its way out.
                todo.delete.insert(node.uid.clone());
            }
        }
        todo.delete.retain(|uid| self.nodes.contains_key(uid));
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> Todo {
        let mut todo = Todo::default();
        let Some(entry) = self.nodes.remove(uid) else { return todo };
        for owner in &entry.node.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            if self.nodes.get(&owner.uid).is_some_and(|e| e.node.waits()) {
                todo.delete.insert(owner.uid.clone());
            }
        }
        todo.delete.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        todo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str, owners: &[&str]) -> Arc<Node> {
        let owner = |uid: &&str| OwnerReference { uid: (*uid).to_owned(), ..OwnerReference::default() };
        Arc::new(Node { uid: uid.to_owned(), owners: owners.iter().map(owner).collect(), ..Node::default() })
    }

    fn pods() -> Arc<Resource> {
        krate_api::Catalogue::builtin().get("", "v1", "pods").unwrap().clone()
    }

    fn set(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    fn what_has_an_unknown_owner_is_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.put(&pods(), node("rs", &["d"])).delete, set(&["rs"]));
        assert_eq!(graph.put(&pods(), node("d", &[])).delete, set(&[]));
        assert_eq!(graph.put(&pods(), node("pod", &["rs"])).delete, set(&[]));
        assert_eq!(graph.remove("d").delete, set(&["rs"]));
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_when_a_dependent_goes() {
        let mut graph = Graph::default();
        let _ = graph.put(&pods(), node("rs", &[]));
        let _ = graph.put(&pods(), node("pod", &["rs"]));
        let waiting = Node { deleting: true, foreground: true, ..(*node("rs", &[])).clone() };
        assert_eq!(graph.put(&pods(), Arc::new(waiting)).delete, set(&["pod", "rs"]));
        assert_eq!(graph.remove("pod").delete, set(&["rs"]));
    }
}
