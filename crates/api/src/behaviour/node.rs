//! Nodes.

use super::check::{self, Check, entries};
use super::fill::{self, items, str_of};
use super::pod_spec::taint_effect;
use super::{Behaviour, Typed, address_warnings, internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::{Node, Taint};
use std::collections::BTreeSet;
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Node> {
        default,
        prepare_create,
        prepare_update,
        warnings: |node, _| warnings(node),
        prepare_subresource,
        validate,
        validate_update,
        fields,
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn default(node: &mut Node) {
    let spec = node.spec.get_or_insert_default();
    fill::agree(&mut spec.pod_cidr, &mut spec.pod_cidrs, String::clone, |cidr| cidr);
    let status = node.status.get_or_insert_default();
    fill::resources(&mut status.capacity);
    fill::resources(&mut status.allocatable);
    if status.allocatable.is_none() {
        status.allocatable.clone_from(&status.capacity);
    }
}

fn prepare_create(node: &mut Node) {
    // Where a kubelet's configuration is to be found belongs to a feature that is gone.
    if let Some(spec) = &mut node.spec {
        spec.config_source = None;
    }
}

fn prepare_update(new: &mut Node, old: &Node) {
    new.status.clone_from(&old.status);
    if old.spec.as_ref().is_none_or(|s| s.config_source.is_none()) {
        prepare_create(new);
    }
}

fn warnings(node: &Node) -> Vec<String> {
    let mut list = vec![];
    let Some(spec) = &node.spec else { return list };
    if spec.config_source.is_some() {
        list.push("spec.configSource: the feature is removed".to_owned());
    }
    if !str_of(&spec.external_id).is_empty() {
        let text = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
        list.push(text.to_owned());
    }
    for (i, cidr) in items(&spec.pod_cidrs).iter().enumerate() {
        list.extend(address_warnings::cidr(&Path::new("spec").child("podCIDRs").index(i), cidr));
    }
    list
}

fn prepare_subresource(_: &str, new: &mut Node, old: &Node) {
    new.spec.clone_from(&old.spec);
}

fn fields(node: &Node) -> Vec<(&'static str, String)> {
    let off = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    vec![("spec.unschedulable", off.to_string())]
}

fn validate(node: &Node) -> Errors {
    let mut errors = Errors::new();
    common(&mut errors, node);
    let cidrs = node.spec.as_ref().map_or(&[][..], |s| items(&s.pod_cidrs));
    let path = Path::new("spec").child("podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        errors.faults(&path.index(i), cidr, names::cidr(cidr));
    }
    let texts: Vec<&str> = cidrs.iter().map(String::as_str).collect();
    if texts.len() > 2 || (texts.len() == 2 && !check::dual_stack(&texts)) {
        errors.invalid(&path, cidrs, "may specify no more than one CIDR for each IP family");
    }
    for (i, cidr) in cidrs.iter().enumerate().filter(|(i, c)| cidrs[..*i].contains(c)) {
        errors.push(Error::duplicate(&path.index(i), cidr));
    }
    errors
}

fn common(errors: &mut Errors, node: &Node) {
    let list = node.spec.as_ref().map_or(&[][..], |s| items(&s.taints));
    // The original looks for taints in the metadata.
    taints(errors, &Path::new("metadata").child("taints"), list);
    let Some(status) = &node.status else { return };
    for (field, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, text) in entries(list.as_ref()) {
            check::amount(errors, &Path::new("status").child(field).child(name), name, text);
        }
    }
}

fn taints(errors: &mut Errors, path: &Path, taints: &[Taint]) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        errors.faults(&path.child("key"), &taint.key, names::qualified_name(&taint.key));
        let value = str_of(&taint.value);
        let faults = names::label_value(value);
        if !faults.is_empty() {
            errors.invalid(&path.child("value"), value, &faults.join(";"));
        }
        taint_effect(errors, &path.child("effect"), &taint.effect, false);
        if !seen.insert((&taint.key, &taint.effect)) {
            let text = "taints must be unique by key and effect pair";
            let error = Error::duplicate(&path, "").with_detail(text);
            errors.push(error.showing(internal::show(taint, internal::TAINT)));
        }
    }
}

fn validate_update(_: &str, new: &Node, old: &Node) -> Errors {
    let mut errors = Errors::new();
    common(&mut errors, new);
    let addresses = new.status.as_ref().map_or(&[][..], |s| items(&s.addresses));
    for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
        let path = Path::new("status").child("addresses").index(i);
        let shown = internal::show(address, internal::NODE_ADDRESS);
        errors.push(Error::duplicate(&path, "").showing(shown));
    }
    let (spec, was) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let path = Path::new("spec");
    let (cidrs, were) = (items(&spec.pod_cidrs), items(&was.pod_cidrs));
    let differ = if cidrs.len() == were.len() {
        cidrs.iter().zip(were).filter(|(now, was)| now != was).count()
    } else {
        usize::from(!were.is_empty())
    };
    for _ in 0..differ {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&path.child("podCIDRs"), text);
    }
    if !str_of(&was.provider_id).is_empty() && spec.provider_id != was.provider_id {
        let text = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path.child("providerID"), text);
    }
    if !check::same_text(&spec.external_id, &was.external_id) {
        errors.forbidden(&path.child("externalID"), "may not be updated");
    }
    errors
}
