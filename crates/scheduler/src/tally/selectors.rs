//! Which pods belong together because a Service or a controller selects them: what pods without topology
//! spread constraints of their own are spread by.

use crate::view::PodView;
use krate_api::labels::{Labels, Selector};
use krate_api::meta::OwnerReference;
use krate_api::object::DecodeError;
use krate_api::types::apps::v1::{ReplicaSet, StatefulSet};
use krate_api::types::core::v1::{ReplicationController, Service};
use krate_api::{Kind, Shared};
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

/// A kind whose objects select pods.
pub trait Selects: Kind {
    fn selector(&self) -> Option<Selector>;
}

impl Selects for Service {
    fn selector(&self) -> Option<Selector> {
        let labels = self.spec.as_ref()?.selector.as_ref()?;
        Some(Selector::from_labels(labels))
    }
}

impl Selects for ReplicationController {
    fn selector(&self) -> Option<Selector> {
        Some(Selector::from_labels(self.spec.as_ref()?.selector.as_ref()?))
    }
}

impl Selects for ReplicaSet {
    fn selector(&self) -> Option<Selector> {
        Selector::of(Some(&self.spec.as_ref()?.selector)).ok()
    }
}

impl Selects for StatefulSet {
    fn selector(&self) -> Option<Selector> {
        Selector::of(Some(&self.spec.as_ref()?.selector)).ok()
    }
}

/// An object that selects pods, as slim as it is read here.
pub struct Owner<K> {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub selector: Option<Selector>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Selects> krate_client::View for Owner<K> {
    fn of(object: &Shared) -> Result<Arc<Self>, DecodeError> {
        let object = object.typed::<K>()?;
        let text = |part: &Option<String>| part.as_deref().unwrap_or_default().into();
        Ok(Arc::new(Self {
            namespace: text(&object.meta().namespace),
            name: text(&object.meta().name),
            selector: object.selector(),
            kind: PhantomData,
        }))
    }
}

/// The owner of a pod, if it is of a kind that is looked at: its kind and name.
#[must_use]
pub fn controller(owners: &[OwnerReference]) -> Option<(&'static str, Arc<str>)> {
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("v1", "ReplicationController") => ReplicationController::KIND,
        ("apps/v1", "ReplicaSet") => ReplicaSet::KIND,
        ("apps/v1", "StatefulSet") => StatefulSet::KIND,
        _ => return None,
    };
    Some((kind, owner.name.as_str().into()))
}

type Named = BTreeMap<Arc<str>, Selector>;

/// All selectors, by kind and namespace.
#[derive(Default)]
pub struct Selectors(HashMap<(&'static str, Arc<str>), Named>);

impl Selectors {
    pub fn set(&mut self, kind: &'static str, namespace: &Arc<str>, name: &Arc<str>, new: Option<Selector>) {
        let of_kind = self.0.entry((kind, namespace.clone())).or_default();
        match new {
            Some(selector) => drop(of_kind.insert(name.clone(), selector)),
            None => drop(of_kind.remove(name)),
        }
        if of_kind.is_empty() {
            self.0.remove(&(kind, namespace.clone()));
        }
    }

    /// What the Services and the controller of a pod select together; none if nothing selects it.
    #[must_use]
    pub fn of(&self, pod: &PodView) -> Option<Selector> {
        let named = |kind| self.0.get(&(kind, pod.namespace.clone()));
        let mut wanted = Labels::new();
        let services = named(Service::KIND).into_iter().flat_map(BTreeMap::values);
        for service in services.filter(|selector| selector.matches(&pod.labels)) {
            add(&mut wanted, service);
        }
        let owner = pod.controller.as_ref();
        let owner = owner.and_then(|(kind, name)| Some((*kind, named(kind)?.get(name)?)));
        let selector = match owner {
            Some((ReplicationController::KIND, selector)) => {
                add(&mut wanted, selector);
                Selector::from_labels(&wanted)
            }
            Some((_, selector)) => Selector::from_labels(&wanted).and(selector),
            None => Selector::from_labels(&wanted),
        };
        (!selector.is_everything()).then_some(selector)
    }
}

/// Adds the labels that a selector made of labels demands.
fn add(labels: &mut Labels, selector: &Selector) {
    for requirement in selector.requirements() {
        if let [value] = requirement.values() {
            labels.insert(requirement.key().to_owned(), value.clone());
        }
    }
}
