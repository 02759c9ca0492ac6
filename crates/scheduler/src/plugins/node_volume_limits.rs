//! NodeVolumeLimits: a driver says (in the node's CSINode) how many of its volumes a node can have.

use crate::framework::{Look, NodeFilter, Plugin, Unfit};
use crate::plugins::Settings;
use crate::queue::Events;
use crate::storage::Storage;
use crate::table::{NodeInfo, Table};
use crate::view::PodView;
use std::collections::{BTreeMap, BTreeSet};

const TOO_MANY: &str = "node(s) exceed max volume count";

pub struct NodeVolumeLimits {
    storage: Storage,
}

impl NodeVolumeLimits {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { storage: settings.storage.clone() }
    }
}

/// Volumes by driver.
type Handles = BTreeMap<String, BTreeSet<String>>;

/// The driver's volumes that a pod uses. A claim without a volume yet counts as one of its own.
fn handles(storage: &Storage, pod: &PodView, into: &mut Handles) {
    for used in &pod.claims {
        let key = krate_api::object::key(&pod.namespace, &used.claim);
        let Some(claim) = storage.claim(&key) else { continue };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let found = match storage.volume(&name) {
            Some(volume) => volume
                .spec
                .as_ref()
                .and_then(|s| s.csi.as_ref())
                .map(|s| (s.driver.clone(), s.volume_handle.clone())),
            None => krate_api::volumes::class_of_claim(&claim)
                .and_then(|class| storage.class(class))
                .map(|class| (class.provisioner.clone(), format!("{} {key}", class.provisioner))),
        };
        if let Some((driver, handle)) = found {
            into.entry(driver).or_default().insert(handle);
        }
    }
}

#[derive(Clone)]
struct Filter {
    storage: Storage,
    wanted: Handles,
}

impl NodeFilter for Filter {
    fn check(&self, node: &NodeInfo) -> Result<(), Unfit> {
        let Some(limits) = self.storage.csi_node(&node.view.name) else { return Ok(()) };
        let mut taken = Handles::new();
        node.pods.iter().for_each(|pod| handles(&self.storage, pod, &mut taken));
        for driver in &limits.spec.drivers {
            let (Some(limit), Some(wanted)) =
                (driver.allocatable.as_ref().and_then(|a| a.count), self.wanted.get(&driver.name))
            else {
                continue;
            };
            let empty = BTreeSet::new();
            let there = taken.get(&driver.name).unwrap_or(&empty);
            let (fresh, limit) = (wanted.difference(there).count(), usize::try_from(limit).unwrap_or(0));
            if fresh > 0 && there.len() + fresh > limit {
                return Err(Unfit::for_now(TOO_MANY));
            }
        }
        Ok(())
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

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&'a self, pod: &'a PodView, _: &'a Table) -> Look<'a> {
        let mut wanted = Handles::new();
        handles(&self.storage, pod, &mut wanted);
        if wanted.is_empty() {
            return Look::Skip;
        }
        Look::Filter(Box::new(Filter { storage: self.storage.clone(), wanted }))
    }

    fn interests(&self) -> Events {
        Events::CSI_NODE | Events::NODE_ADD | Events::POD_DELETE | Events::CLAIM
    }
}
