//! VolumeRestrictions: a claim with the mode ReadWriteOncePod is for one pod at a time, on all nodes together.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::plugins::Settings;
use crate::queue::{Event, Events, Hint};
use crate::storage::Storage;
use crate::table::{NodeInfo, Table};
use crate::view::PodView;
use std::collections::BTreeSet;

const TAKEN: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

pub struct VolumeRestrictions {
    storage: Storage,
}

impl VolumeRestrictions {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { storage: settings.storage.clone() }
    }

    /// The pod's claims that nobody else may have.
    fn exclusive<'a>(&self, pod: &'a PodView) -> BTreeSet<&'a str> {
        let exclusive = |claim: &str| {
            let found = self.storage.claim(&krate_api::object::key(&pod.namespace, claim));
            let modes = found.as_ref().and_then(|c| c.spec.as_ref()).and_then(|s| s.access_modes.as_ref());
            modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
        };
        pod.claims.iter().map(|used| used.claim.as_str()).filter(|claim| exclusive(claim)).collect()
    }
}

#[derive(Clone)]
struct Filter<'a> {
    pod: &'a PodView,
    exclusive: BTreeSet<&'a str>,
    /// How many uses of them there are, on any node.
    uses: usize,
}

impl Filter<'_> {
    fn uses_of(&self, other: &PodView) -> usize {
        if other.namespace != self.pod.namespace || other.uid == self.pod.uid {
            return 0;
        }
        other.claims.iter().filter(|used| self.exclusive.contains(used.claim.as_str())).count()
    }
}

impl NodeFilter for Filter<'_> {
    fn check(&self, _: &NodeInfo) -> Result<(), Unfit> {
        if self.uses == 0 { Ok(()) } else { Err(Unfit::for_now(TAKEN)) }
    }

    fn is_local(&self) -> bool {
        false
    }

    fn add(&mut self, other: &PodView, _: &NodeInfo) {
        self.uses += self.uses_of(other);
    }

    fn remove(&mut self, other: &PodView, _: &NodeInfo) {
        self.uses = self.uses.saturating_sub(self.uses_of(other));
    }

    fn boxed_clone<'b>(&self) -> Box<dyn NodeFilter + 'b>
    where
        Self: 'b,
    {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, table: &'a Table) -> Look<'a> {
        if pod.claims.is_empty() {
            return Look::Skip;
        }
        let exclusive = self.exclusive(pod);
        if exclusive.is_empty() {
            return Look::Skip;
        }
        let mut filter = Filter { pod, exclusive, uses: 0 };
        let pods = table.order().iter().flat_map(|slot| &table.node(*slot).pods);
        filter.uses = pods.map(|other| filter.uses_of(other)).sum();
        Look::Filter(Box::new(filter))
    }

    fn interests(&self) -> Events {
        Events::POD_DELETE | Events::CLAIM
    }

    fn hint(&self, pod: &PodView, event: &Event) -> Hint {
        match event {
            Event::PodDeleted(other) => (other.namespace == pod.namespace
                && other.claims.iter().any(|used| pod.claims.iter().any(|own| own.claim == used.claim)))
            .into(),
            _ => Hint::Queue,
        }
    }
}
