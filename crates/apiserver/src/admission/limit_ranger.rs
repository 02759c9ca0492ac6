//! LimitRanger: a namespace's default requests and limits, and the bounds of what pods and claims may ask.

use super::{Attributes, Operation, Plugin, cast, cast_mut};
use crate::server::Inner;
use async_trait::async_trait;
use krate_api::behaviour::pod_spec::{limits_of_containers, requests_of_containers};
use krate_api::quantity::Quantity;
use krate_api::types::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use krate_api::{Object, Status};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    async fn admit(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), Status> {
        let creates = at.operation == Operation::Create && at.is_core("pods");
        let Some(pod) = cast_mut::<Pod>(object).filter(|_| creates) else { return Ok(()) };
        for item in items(server, &at.call.namespace).await? {
            if item.type_ == "Container" {
                apply_defaults(pod, &item);
            }
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &Inner,
        at: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| at.call.subresource.is_empty()) else { return Ok(()) };
        let pod = cast::<Pod>(object).filter(|_| at.operation == Operation::Create);
        let claim = cast::<PersistentVolumeClaim>(object);
        if pod.is_none() && claim.is_none() {
            return Ok(());
        }
        let mut faults = Vec::new();
        for item in items(server, &at.call.namespace).await? {
            match (item.type_.as_str(), pod, claim) {
                ("Container", Some(pod), _) => {
                    let spec = pod.spec.as_ref();
                    for container in spec.iter().flat_map(|s| &s.containers) {
                        faults.extend(check(
                            &item,
                            "Container",
                            &requests(container),
                            Some(&limits(container)),
                        ));
                    }
                }
                ("Pod", Some(pod), _) => {
                    let (requests, limits) = pod.spec.as_ref().map(totals).unwrap_or_default();
                    faults.extend(check(&item, "Pod", &requests, Some(&limits)));
                }
                ("PersistentVolumeClaim", _, Some(claim)) => {
                    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
                    let asked = amounts(resources.and_then(|r| r.requests.as_ref()));
                    faults.extend(check(&item, "PersistentVolumeClaim", &asked, None));
                }
                _ => {}
            }
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(at.forbidden(one)),
            many => Err(at.forbidden(&format!("[{}]", many.join(", ")))),
        }
    }
}

async fn items(server: &Inner, namespace: &str) -> Result<Vec<LimitRangeItem>, Status> {
    let mut found = Vec::new();
    for range in server.read_all::<LimitRange>(namespace).await? {
        let range = range.typed::<LimitRange>().map_err(Status::internal)?;
        found.extend(range.spec.iter().flat_map(|s| s.limits.clone()));
    }
    Ok(found)
}

fn amounts(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Amounts {
    list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::of(v).ok()?))).collect()
}

fn requests(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn limits(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// What all containers of a pod ask together, requests and limits.
fn totals(spec: &PodSpec) -> (Amounts, Amounts) {
    (requests_of_containers(spec), limits_of_containers(spec))
}

fn apply_defaults(pod: &mut Pod, item: &LimitRangeItem) {
    let mut notes = Vec::new();
    let Some(spec) = &mut pod.spec else { return };
    let containers = spec.containers.iter_mut().map(|c| ("container", c));
    let init = spec.init_containers.iter_mut().flatten().map(|c| ("init container", c));
    for (what, container) in containers.chain(init) {
        let name = container.name.clone();
        let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
        for (kind, defaults, list) in [
            ("request", &item.default_request, &mut resources.requests),
            ("limit", &item.default, &mut resources.limits),
        ] {
            let mut set = Vec::new();
            for (key, value) in defaults.iter().flatten() {
                let list = list.get_or_insert_default();
                if !list.contains_key(key) {
                    list.insert(key.clone(), value.clone());
                    set.push(key.as_str());
                }
            }
            if !set.is_empty() {
                notes.push(format!("{} {kind} for {what} {name}", set.join(", ")));
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

/// The faults of one item, in the original's words. What knows no limits, a claim, has none to fall short of.
fn check(
    item: &LimitRangeItem,
    kind: &str,
    requests: &Amounts,
    known_limits: Option<&Amounts>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let none = Amounts::new();
    let limits = known_limits.unwrap_or(&none);
    for (name, least) in amounts(item.min.as_ref()) {
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => faults.push(format!(
                "minimum {name} usage per {kind} is {}.  No request is specified",
                text(&least)
            )),
            (Some(asked), _) if *asked < least => {
                faults.push(format!(
                    "minimum {name} usage per {kind} is {}, but request is {}",
                    text(&least),
                    text(asked)
                ));
            }
            (_, Some(limit)) if *limit < least => {
                faults.push(format!(
                    "minimum {name} usage per {kind} is {}, but limit is {}",
                    text(&least),
                    text(limit)
                ));
            }
            _ => {}
        }
    }
    for (name, most) in amounts(item.max.as_ref()) {
        match (requests.get(&name), limits.get(&name)) {
            (_, None) if known_limits.is_some() => faults
                .push(format!("maximum {name} usage per {kind} is {}.  No limit is specified", text(&most))),
            (None, None) => faults.push(format!(
                "maximum {name} usage per {kind} is {}.  No request is specified",
                text(&most)
            )),
            (_, Some(limit)) if *limit > most => {
                faults.push(format!(
                    "maximum {name} usage per {kind} is {}, but limit is {}",
                    text(&most),
                    text(limit)
                ));
            }
            (Some(asked), _) if *asked > most => {
                faults.push(format!(
                    "maximum {name} usage per {kind} is {}, but request is {}",
                    text(&most),
                    text(asked)
                ));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(item.max_limit_request_ratio.as_ref().filter(|_| known_limits.is_some())) {
        let (asked, limit) = (requests.get(&name), limits.get(&name));
        let shown = text(&ratio);
        match (asked, limit) {
            (Some(asked), Some(limit)) if !asked.is_zero() && !limit.is_zero() => {
                let actual = limit.to_f64() / asked.to_f64();
                if actual > ratio.to_f64() {
                    faults.push(format!(
                        "{name} max limit to request ratio per {kind} is {shown}, but provided ratio is {actual:.6}"
                    ));
                }
            }
            _ => faults.push(format!(
                "{name} max limit to request ratio per {kind} is {shown}, but no request is specified or request is 0"
            )),
        }
    }
    faults
}

fn text(quantity: &Quantity) -> String {
    quantity.text().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
        let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned());
        BTreeMap::from([("storage".to_owned(), quantity)])
    }

    #[test]
    fn a_claim_is_measured_by_what_it_requests() {
        let item = LimitRangeItem { min: Some(of("1Gi")), max: Some(of("2Gi")), ..LimitRangeItem::default() };
        let faults = |asked: &str| check(&item, "PersistentVolumeClaim", &amounts(Some(&of(asked))), None);
        assert_eq!(faults("2Gi"), [""; 0]);
        assert_eq!(
            faults("3Gi"),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
        assert_eq!(
            faults("512Mi"),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi"]
        );
    }
}
