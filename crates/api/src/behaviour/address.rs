//! IPAddresses and ServiceCIDRs.

use super::check::{self, Check};
use super::fill::{items, str_of};
use super::{Behaviour, Typed, internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::networking::v1::{IPAddress, ServiceCIDR};
use std::sync::Arc;

pub fn ip_address() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<IPAddress> {
        validate: validate_address,
        validate_update: |_, new, old| {
            let mut errors = Errors::new();
            let (now, was) = (&new.spec.parent_ref, &old.spec.parent_ref);
            let form = internal::ADDRESS_PARENT;
            check::kept(&mut errors, &Path::new("spec").child("parentRef"), now, was, form);
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
            if subresource.is_empty() { validate_new_cidrs(new, old) } else { vec![] }
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

fn cidrs(cidr: &ServiceCIDR) -> &[String] {
    cidr.spec.as_ref().map_or(&[], |s| items(&s.cidrs))
}

/// Networks stay; one of the other family may join the first.
fn validate_new_cidrs(new: &ServiceCIDR, old: &ServiceCIDR) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("cidrs");
    let (now, was) = (cidrs(new), cidrs(old));
    let joins = was.len() == 1 && now.len() == 2;
    if now.len() != was.len() && !joins {
        errors.invalid(&path, now, check::IMMUTABLE);
        return errors;
    }
    for (i, (now, was)) in now.iter().zip(was).enumerate() {
        errors.unchanged(&path.index(i), now, was);
    }
    if joins {
        errors.extend(validate_cidrs(new));
    }
    errors
}

fn validate_cidrs(cidr: &ServiceCIDR) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("cidrs");
    let list = cidrs(cidr);
    if list.is_empty() {
        errors.push(Error::required(&path, "at least one CIDR required"));
        return errors;
    }
    if list.len() > 2 {
        let value = internal::show(&cidr.spec, internal::SERVICE_CIDR);
        errors.push(Error::invalid(&path, "", "may only hold up to 2 values").showing(value));
        return errors;
    }
    for (i, text) in list.iter().enumerate() {
        errors.faults(&path.index(i), text, names::cidr(text));
    }
    let texts: Vec<&str> = list.iter().map(String::as_str).collect();
    let readable = list.iter().all(|text| text.contains('/'));
    if list.len() == 2 && readable && !check::dual_stack(&texts) {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, list, text);
    }
    errors
}
