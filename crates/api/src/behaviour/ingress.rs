//! Ingresses.

use super::check::{self, Check};
use super::fill::{self, is_empty, items, str_of};
use super::{Behaviour, Typed, names};
use crate::field::{Error, Errors, Path};
use crate::types::core::v1::TypedLocalObjectReference;
use crate::types::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressLoadBalancerIngress, IngressServiceBackend, IngressSpec,
    IngressStatus, IngressTLS,
};
use std::sync::Arc;

/// Where the class was written once.
const CLASS: &str = "kubernetes.io/ingress.class";

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<Ingress> {
        default: |ingress| {
            ingress.spec.get_or_insert_default();
            ingress.status.get_or_insert_default().load_balancer.get_or_insert_default();
        },
        prepare_create: |ingress| {
            ingress.metadata.generation = Some(1);
            ingress.status = Some(IngressStatus { load_balancer: Some(Default::default()) });
        },
        prepare_update: |new, old| {
            new.status.clone_from(&old.status);
            let changed = !fill::same(&new.spec, &old.spec);
            fill::generation(&mut new.metadata, &old.metadata, changed);
        },
        prepare_subresource: |_, new, old| new.spec.clone_from(&old.spec),
        validate,
        validate_update,
        warnings: |ingress, _| {
            let old = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
            let text =
                format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
            if old { vec![text] } else { vec![] }
        },
        check_name: names::subdomain_name,
        ..Default::default()
    })
}

fn validate(ingress: &Ingress) -> Errors {
    let mut errors = validate_spec(ingress);
    let annotation = ingress.metadata.annotations.as_ref().and_then(|a| a.get(CLASS));
    let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        let path = Path::new("annotations").child(CLASS);
        errors.invalid(&path, annotation, "must match `ingressClassName` when both are specified");
    }
    errors
}

fn validate_update(subresource: &str, new: &Ingress, old: &Ingress) -> Errors {
    if subresource == "status" { validate_status(new, old) } else { validate_spec(new) }
}

fn validate_spec(ingress: &Ingress) -> Errors {
    let mut errors = Errors::new();
    let default = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&default);
    let path = Path::new("spec");
    let rules = items(&spec.rules);
    if rules.is_empty() && spec.default_backend.is_none() {
        let text = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&path, &spec.rules, text);
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(&mut errors, &path.child("defaultBackend"), backend);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        if !is_empty(&rule.host) {
            host(&mut errors, &path.child("host"), str_of(&rule.host));
        }
        let Some(http) = &rule.http else { continue };
        let path = path.child("http").child("paths");
        if http.paths.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        for (j, one) in http.paths.iter().enumerate() {
            validate_path(&mut errors, &path.index(j), one);
        }
    }
    for (i, tls) in items(&spec.tls).iter().enumerate() {
        validate_tls(&mut errors, &path.child("tls").index(i), tls);
    }
    if let Some(class) = &spec.ingress_class_name {
        errors.faults(&path.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
    errors
}

fn host(errors: &mut Errors, path: &Path, host: &str) {
    if names::sloppy_ip(host).is_some() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
    errors.faults(path, host, host_faults(host));
}

fn host_faults(host: &str) -> Vec<String> {
    if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host) }
}

fn validate_path(errors: &mut Errors, path: &Path, one: &HTTPIngressPath) {
    let text = str_of(&one.path);
    let at = path.child("path");
    match one.path_type.as_str() {
        "" => {
            errors.push(Error::required(&path.child("pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| text.contains(bad)) {
                errors.invalid(&at, text, &format!("must not contain '{bad}'"));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| text.ends_with(bad)) {
                errors.invalid(&at, text, &format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
        }
        other => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.one_of(&path.child("pathType"), other, &types);
        }
    }
    validate_backend(errors, &path.child("backend"), &one.backend);
}

fn validate_backend(errors: &mut Errors, path: &Path, backend: &IngressBackend) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => reference(errors, &path.child("resource"), resource),
        (None, Some(service)) => validate_service(errors, path, service),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

fn reference(errors: &mut Errors, path: &Path, target: &TypedLocalObjectReference) {
    if let Some(group) = &target.api_group {
        errors.faults(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    named(errors, path, &target.kind, &target.name);
}

/// Kind and name of what is referred to, also by a class.
pub fn named(errors: &mut Errors, path: &Path, kind: &str, name: &str) {
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.push(Error::required(&path.child(field), &format!("{field} is required")));
        } else {
            errors.faults(&path.child(field), value, names::path_segment(value));
        }
    }
}

fn validate_service(errors: &mut Errors, path: &Path, service: &IngressServiceBackend) {
    let at = path.child("service");
    if errors.required(&at.child("name"), &service.name) {
        errors.faults(&at.child("name"), &service.name, names::dns1123_label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    let (name, number) = (str_of(&port.name), port.number.unwrap_or(0));
    let at = at.child("port");
    match (name.is_empty(), number) {
        (true, 0) => errors.push(Error::required(path, "port name or number is required")),
        (true, number) => check::port_number(errors, &at.child("number"), number),
        (false, 0) => errors.faults(&at.child("name"), name, names::port_name(name)),
        (false, _) => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn validate_tls(errors: &mut Errors, path: &Path, tls: &IngressTLS) {
    for (i, host) in items(&tls.hosts).iter().enumerate() {
        errors.faults(&path.child("hosts").index(i), host, host_faults(host));
    }
    if !is_empty(&tls.secret_name) {
        let name = str_of(&tls.secret_name);
        errors.faults(&path.child("secretName"), name, names::dns1123_subdomain(name));
    }
}

/// Where the traffic of an ingress comes in.
fn entries(ingress: &Ingress) -> &[IngressLoadBalancerIngress] {
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    balancer.map_or(&[], |b| items(&b.ingress))
}

/// Addresses that were accepted once stay acceptable.
fn validate_status(ingress: &Ingress, old: &Ingress) -> Errors {
    let mut errors = Errors::new();
    for (i, entry) in entries(ingress).iter().enumerate() {
        let path = Path::new("status").child("loadBalancer").child("ingress").index(i);
        if !is_empty(&entry.ip) {
            let ip = str_of(&entry.ip);
            let known = entries(old).iter().any(|e| e.ip == entry.ip);
            errors.faults(&path.child("ip"), ip, if known { vec![] } else { names::ip(ip) });
        }
        if !is_empty(&entry.hostname) {
            let name = str_of(&entry.hostname);
            errors.faults(&path.child("hostname"), name, names::dns1123_subdomain(name));
            if names::sloppy_ip(name).is_some() {
                errors.invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
    errors
}
