//! IPAddresses and ServiceCIDRs.

use super::check::{self, Check};
use super::fill::{items, str_of};
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::networking::v1::{IPAddress, ServiceCIDR};
use std::sync::Arc;

pub fn ip_address() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<IPAddress> {
        validate: validate_address,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            errors.unchanged(&Path::new("spec").child("parentRef"), &new.spec, &old.spec);
            errors
        },
        check_name: |name, _| names::ip(name),
        ..Default::default()
    })
}

pub fn service_cidr() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<ServiceCIDR> {
        default: |cidr| {
            cidr.spec.get_or_insert_default();
            cidr.status.get_or_insert_default();
        },
        prepare_create: |cidr| cidr.status = Some(Default::default()),
        prepare_update: |new, old| new.status.clone_from(&old.status),
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        validate: validate_cidrs,
        validate_update: |subresource, new, old| {
            let mut errors = Errors::new();
            let list = |c: &ServiceCIDR| c.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
            let (now, was) = (list(new), list(old));
            if subresource.is_empty() && !(was.len() == 1 && now.len() == 2 && now[0] == was[0]) {
                errors.unchanged(&Path::new("spec").child("cidrs"), &now, &was);
            }
            errors.extend(validate_cidrs(new));
            errors
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate_address(address: &IPAddress) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("parentRef");
    let parent = &address.spec.parent_ref;
    if *parent == Default::default() {
        errors.push(Error::required(&path, ""));
        return errors;
    }
    let group = str_of(&parent.group);
    if !group.is_empty() {
        errors.faults(&path.child("group"), group, names::dns1123_subdomain(group));
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        if errors.required(&path.child(field), value) {
            errors.faults(&path.child(field), value, names::path_segment(value));
        }
    }
    let namespace = str_of(&parent.namespace);
    if !namespace.is_empty() {
        errors.faults(&path.child("namespace"), namespace, names::path_segment(namespace));
    }
    errors
}

fn validate_cidrs(cidr: &ServiceCIDR) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("cidrs");
    let list = cidr.spec.as_ref().map_or(&[][..], |s| items(&s.cidrs));
    if list.is_empty() {
        errors.push(Error::required(&path, "at least one CIDR required"));
    }
    if list.len() > 2 {
        errors.invalid(&path, list, "may only hold up to 2 values");
    }
    let texts: Vec<&str> = list.iter().map(String::as_str).collect();
    if list.len() == 2 && !check::dual_stack(&texts) {
        errors.invalid(&path, list, "may specify no more than one IP for each IP family");
    }
    for (i, text) in list.iter().enumerate() {
        errors.faults(&path.index(i), text, names::cidr(text));
    }
    errors
}
