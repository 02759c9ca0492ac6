//! VolumeZone: a volume that is labelled with zones or regions is mounted by nodes of these only.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::plugins::Settings;
use crate::queue::Events;
use crate::storage::Storage;
use crate::table::{NodeInfo, Table};
use crate::view::PodView;
use std::collections::BTreeSet;

const CONFLICT: &str = "node(s) had no available volume zone";
/// Labels of a volume that bind it to nodes, with the same labels' other names.
const KEYS: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
];

pub struct VolumeZone {
    storage: Storage,
}

impl VolumeZone {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { storage: settings.storage.clone() }
    }
}

/// A label that the node must have, under either name, with one of these values.
#[derive(Clone)]
struct Demand {
    key: &'static str,
    other: &'static str,
    values: BTreeSet<String>,
}

#[derive(Clone)]
struct Filter(Vec<Demand>);

impl NodeFilter for Filter {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let labels = &node.view.labels;
        let met = |demand: &Demand| {
            let value = labels.get(demand.key).or_else(|| labels.get(demand.other));
            value.is_some_and(|value| demand.values.contains(value))
        };
        if self.0.iter().all(met) { Ok(()) } else { Err(Unfit::for_good(CONFLICT)) }
    }

    fn is_local(&self) -> bool {
        false
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        let mut demands = vec![];
        for used in &pod.claims {
            let volume = self.storage.claim(&krate_api::object::key(&pod.namespace, &used.claim));
            let volume = volume.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            let Some(volume) = volume.and_then(|name| self.storage.volume(&name)) else { continue };
            for (key, other) in KEYS {
                let Some(value) = volume.metadata.labels.as_ref().and_then(|l| l.get(key)) else { continue };
                // Several zones are written one after another.
                let values = value.split("__").map(str::to_owned).collect();
                demands.push(Demand { key, other, values });
            }
        }
        if demands.is_empty() { Look::Skip } else { Look::Filter(Box::new(Filter(demands))) }
    }

    fn interests(&self) -> Events {
        Events::NODE_ADD | Events::NODE_LABEL | Events::CLAIM | Events::VOLUME | Events::STORAGE_CLASS
    }
}
