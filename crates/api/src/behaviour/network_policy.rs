//! NetworkPolicies.

use super::fill::{self, items, items_mut, value};
use super::{Behaviour, Typed, names};
use crate::types::networking::v1::NetworkPolicy;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<NetworkPolicy> {
        default,
        prepare_create: |policy| policy.metadata.generation = Some(1),
        prepare_update: |new, old| {
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    spec.pod_selector.get_or_insert_default();
    let ingress = items_mut(&mut spec.ingress).iter_mut().flat_map(|r| items_mut(&mut r.ports));
    let egress = items_mut(&mut spec.egress).iter_mut().flat_map(|r| items_mut(&mut r.ports));
    for port in ingress.chain(egress) {
        value(&mut port.protocol, "TCP".to_owned());
    }
    if items(&spec.policy_types).is_empty() {
        let mut types = vec!["Ingress".to_owned()];
        if !items(&spec.egress).is_empty() {
            types.push("Egress".to_owned());
        }
        spec.policy_types = Some(types);
    }
}
