//! The faults of resource requests and limits, of containers and of the pod as a whole.

use crate::behaviour::check::{self, Check, entries};
use crate::behaviour::fill::{Resources, items, str_of};
use crate::behaviour::{internal, names, resources};
use crate::field::{Error, Errors, Path};
use crate::meta::ObjectMeta;
use crate::quantity::Quantity;
use crate::types::core::v1::{PodResourceClaim, PodSpec, ResourceClaim, ResourceRequirements};
use std::collections::{BTreeMap, BTreeSet};

type NameCheck = fn(&mut Errors, &Path, &str);

pub fn container(errors: &mut Errors, path: &Path, given: Option<&ResourceRequirements>, spec: &PodSpec) {
    let Some(given) = given else { return };
    requirements(errors, path, given, resources::container_name);
    let known: BTreeSet<&str> =
        items(&spec.resource_claims).iter().map(|c| c.name.as_str()).filter(|n| !n.is_empty()).collect();
    claims(errors, &path.child("claims"), items(&given.claims), &known);
}

/// A list that has the form of limits, such as a pod's overhead.
pub fn limits_only(errors: &mut Errors, path: &Path, limits: &Resources) {
    let given = ResourceRequirements { limits: Some(limits.clone()), ..Default::default() };
    requirements(errors, path, &given, resources::container_name);
}

fn requirements(errors: &mut Errors, path: &Path, given: &ResourceRequirements, name: NameCheck) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let mut limits = BTreeMap::new();
    let (mut ordinary, mut huge) = (false, false);
    let mut note = |resource: &str| {
        ordinary |= matches!(resource, "cpu" | "memory");
        huge |= resources::is_huge_pages(resource);
    };
    for (resource, text) in entries(given.limits.as_ref()) {
        let path = limits_path.key(resource);
        name(errors, &path, resource);
        if let Some(limit) = check::amount(errors, &path, resource, text) {
            huge_pages(errors, &path, resource, &limit);
            limits.insert(resource, limit);
        }
        note(resource);
    }
    for (resource, text) in entries(given.requests.as_ref()) {
        let path = requests_path.key(resource);
        name(errors, &path, resource);
        if let Some(request) = check::amount(errors, &path, resource, text) {
            match limits.get(resource) {
                Some(limit) => within(errors, &requests_path, resource, &request, limit),
                None if !resources::allows_overcommit(resource) => errors.push(Error::required(
                    &limits_path,
                    "Limit must be set for non overcommitable resources",
                )),
                None => {}
            }
            huge_pages(errors, &path, resource, &request);
        }
        note(resource);
    }
    if huge && !ordinary {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn within(errors: &mut Errors, path: &Path, resource: &str, request: &Quantity, limit: &Quantity) {
    let fault = if request != limit && !resources::allows_overcommit(resource) {
        format!("must be equal to {resource} limit of {limit}")
    } else if request > limit {
        format!("must be less than or equal to {resource} limit of {limit}")
    } else {
        return;
    };
    errors.invalid(path, &request.to_string(), &fault);
}

/// Huge pages come in whole pages.
fn huge_pages(errors: &mut Errors, path: &Path, resource: &str, amount: &Quantity) {
    let Some(size) = resource.strip_prefix("hugepages-") else { return };
    let whole = Quantity::parse(size)
        .ok()
        .filter(|page| page.signum() > 0)
        .is_some_and(|page| amount.value() % page.value() == 0);
    if !whole {
        let text = format!("{amount} is not positive integer multiple of {resource}");
        errors.invalid(path, &amount.to_string(), &text);
    }
}

fn claims(errors: &mut Errors, path: &Path, claims: &[ResourceClaim], known: &BTreeSet<&str>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        if !errors.required(&path, &claim.name) {
            continue;
        }
        if seen.contains(&claim.name) {
            // All of the claim is had already.
            errors.push(Error::duplicate(&path, &claim.name));
        } else {
            seen.insert(request_of_claim(errors, &path, claim, &seen));
        }
        if !known.contains(claim.name.as_str()) {
            let list: Vec<&str> = known.iter().copied().collect();
            let rest =
                if list.is_empty() { " which is empty".into() } else { format!(": {}", list.join(", ")) };
            let text = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.push(Error::not_found(&path, &claim.name).with_detail(text));
        }
    }
}

/// One entry of a container's claims, as the key under which it is told apart from the others.
fn request_of_claim(
    errors: &mut Errors,
    path: &Path,
    claim: &ResourceClaim,
    seen: &BTreeSet<String>,
) -> String {
    let request = str_of(&claim.request);
    if request.is_empty() {
        for _ in seen.iter().filter(|s| s.split_once('/').is_some_and(|(name, _)| name == claim.name)) {
            errors.push(Error::duplicate(path, &claim.name));
        }
        return claim.name.clone();
    }
    errors.faults(&path.child("request"), request, names::dns1123_label(request));
    let key = format!("{}/{request}", claim.name);
    if seen.contains(&key) {
        errors.push(Error::duplicate(path, &key));
    }
    key
}

/// The claims of a pod.
pub fn pod_claims(errors: &mut Errors, path: &Path, claims: &[PodResourceClaim], pod: Option<&ObjectMeta>) {
    let mirror = |m: &ObjectMeta| {
        m.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
    };
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        if pod.is_some_and(mirror) {
            errors.forbidden(&Path::new(""), "static pods do not support resource claims");
            continue;
        }
        let name = path.child("name");
        if errors.required(&name, &claim.name) {
            if seen.insert(&claim.name) {
                errors.faults(&name, &claim.name, names::dns1123_label(&claim.name));
            } else {
                errors.push(Error::duplicate(&name, &claim.name));
            }
        }
        let mut wrong = |text: &str| {
            let error = Error::invalid(&path, "", text);
            errors.push(error.showing(internal::show(claim, internal::POD_CLAIM)));
        };
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                wrong("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
            }
            (None, None) => wrong("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        for (field, value) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(value) = value {
                errors.faults(&path.child(field), value, names::dns1123_subdomain(value));
            }
        }
    }
}

/// The resources of the pod as a whole.
pub fn pod(errors: &mut Errors, path: &Path, spec: &PodSpec) {
    let Some(given) = &spec.resources else { return };
    let path = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&path, "may not be set for a windows pod");
        return;
    }
    if given.claims.is_some() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    requirements(errors, &path, given, resources::pod_name);
    let sums = requests_of_containers(spec);
    for (resource, sum) in &sums {
        let wanted = given.requests.as_ref().and_then(|r| r.get(resource)).and_then(|q| Quantity::of(q).ok());
        if let Some(wanted) = wanted.filter(|w| sum > w) {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(resource), &wanted.to_string(), &text);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (resource, text) in entries(container.resources.as_ref().and_then(|r| r.limits.as_ref())) {
            let whole =
                given.limits.as_ref().and_then(|l| l.get(resource)).and_then(|q| Quantity::of(q).ok());
            if let (Some(whole), Ok(own)) = (whole, Quantity::of(text))
                && own > whole
            {
                let path = path.child("containers").index(i).key(resource).child("limits");
                let text = format!("must be less than or equal to pod limits of {whole}");
                errors.invalid(&path, &own.to_string(), &text);
            }
        }
    }
}

/// What all containers need together: those that run side by side are added, the rest take turns.
pub fn requests_of_containers(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    of_containers(spec, |given| given.requests.as_ref())
}

/// What all containers may take together, in the same way.
pub fn limits_of_containers(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    of_containers(spec, |given| given.limits.as_ref())
}

fn of_containers(
    spec: &PodSpec,
    pick: fn(&ResourceRequirements) -> Option<&Resources>,
) -> BTreeMap<String, Quantity> {
    let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
    let add = |sum: &mut BTreeMap<String, Quantity>, given: Option<&ResourceRequirements>| {
        for (resource, text) in entries(given.and_then(pick)) {
            if let Ok(amount) = Quantity::of(text) {
                sum.entry(resource.clone()).or_default().add(&amount);
            }
        }
    };
    for container in &spec.containers {
        add(&mut sum, container.resources.as_ref());
    }
    let mut sidecars = BTreeMap::new();
    let mut peak: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in items(&spec.init_containers) {
        let mut now = sidecars.clone();
        add(&mut now, container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, container.resources.as_ref());
            sidecars = now.clone();
        }
        for (resource, amount) in now {
            let most = peak.entry(resource).or_default();
            *most = (*most).max(amount);
        }
    }
    for (resource, amount) in peak {
        let total = sum.entry(resource).or_default();
        *total = (*total).max(amount);
    }
    sum
}
