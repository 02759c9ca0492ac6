//! Amounts: quantities of CPU and memory, what a pod asks for as a whole, and the numbers of control groups.
//!
//! CPU is in thousandths of a core, memory in bytes.

use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use krate_api::quantity::Quantity as Exact;
use krate_api::types::core::v1::{Container, Pod, ResourceRequirements};
use std::collections::BTreeMap;

use super::{containers, init_containers, is_restartable_init, spec};

pub type Amounts = BTreeMap<String, Quantity>;

/// Least weight that the kernel accepts.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Least quota that the kernel accepts, in microseconds per period.
const MIN_QUOTA: i64 = 1_000;
/// The period of CPU quotas in microseconds.
pub const CPU_PERIOD: i64 = 100_000;

/// The exact amount; the API has validated it, so that what cannot be read counts as nothing.
fn exact(quantity: &Quantity) -> Exact {
    Exact::of(quantity).unwrap_or_default()
}

/// Whole units, rounded up: bytes of a memory quantity.
pub fn value(quantity: &Quantity) -> i64 {
    exact(quantity).value()
}

/// Thousandths, rounded up: CPU.
pub fn milli_value(quantity: &Quantity) -> i64 {
    exact(quantity).millis()
}

pub fn is_zero(quantity: &Quantity) -> bool {
    exact(quantity).is_zero()
}

pub fn equal(a: &Quantity, b: &Quantity) -> bool {
    exact(a) == exact(b)
}

/// `quantity / divisor`, rounded up, as the downward API shows it.
pub fn divided(quantity: &Quantity, divisor: &Quantity) -> String {
    let (quantity, divisor) = (exact(quantity), exact(divisor));
    // Thousandths tell small divisors (`1m`) apart and are too coarse for nothing that is divided.
    match i128::from(divisor.millis()) {
        ..=0 => quantity.value().to_string(),
        unit => (i128::from(quantity.millis()) + unit - 1).div_euclid(unit).to_string(),
    }
}

/// The amount of `resource` that a container requests (a limit stands in for a missing request).
pub fn request<'a>(resources: Option<&'a ResourceRequirements>, resource: &str) -> Option<&'a Quantity> {
    let resources = resources?;
    let of = |amounts: &'a Option<Amounts>| amounts.as_ref().and_then(|a| a.get(resource));
    of(&resources.requests).or_else(|| of(&resources.limits))
}

pub fn limit<'a>(resources: Option<&'a ResourceRequirements>, resource: &str) -> Option<&'a Quantity> {
    resources?.limits.as_ref()?.get(resource)
}

/// CPU thousandths and memory bytes of a whole pod: the larger of what its containers need together and
/// what any moment of initialization needs, plus the overhead of its runtime class.
pub fn pod_total(pod: &Pod, resource: &str, of: impl Fn(&Container) -> Option<i64>) -> i64 {
    let regular: i64 = containers(pod).iter().filter_map(&of).sum();
    let (mut sidecars, mut peak) = (0, 0);
    for container in init_containers(pod) {
        let own = of(container).unwrap_or(0);
        if is_restartable_init(container) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let overhead =
        spec(pod).overhead.as_ref().and_then(|o| o.get(resource)).map_or(0, |q| amount(resource, q));
    (regular + sidecars).max(peak) + overhead
}

/// Thousandths for CPU, whole units for everything else.
pub fn amount(resource: &str, quantity: &Quantity) -> i64 {
    if resource == "cpu" { milli_value(quantity) } else { value(quantity) }
}

/// What the pod requests of `resource`; a pod-level request decides over the sum of the containers'.
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    if let Some(q) = request(spec(pod).resources.as_ref(), resource) {
        return amount(resource, q);
    }
    pod_total(pod, resource, |c| request(c.resources.as_ref(), resource).map(|q| amount(resource, q)))
}

/// What the pod is limited to, or `None` when a container of it has no limit.
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<i64> {
    if let Some(q) = limit(spec(pod).resources.as_ref(), resource) {
        return Some(amount(resource, q));
    }
    let own = |c: &Container| limit(c.resources.as_ref(), resource).map(|q| amount(resource, q));
    let all = containers(pod).iter().chain(init_containers(pod));
    if all.clone().any(|c| own(c).is_none_or(|v| v == 0)) {
        return None;
    }
    Some(pod_total(pod, resource, own))
}

/// Thousandths of a core as a control-group (v1) weight.
pub fn cpu_shares(milli: i64) -> i64 {
    if milli == 0 { MIN_SHARES } else { (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// Thousandths of a core as microseconds per period; 0 means no quota.
pub fn cpu_quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.into())
    }

    #[test]
    fn quantities() {
        assert_eq!(milli_value(&q("1.5")), 1500);
        assert_eq!(milli_value(&q("100m")), 100);
        assert_eq!(value(&q("128Mi")), 128 << 20);
        assert_eq!(value(&q("1e3")), 1000);
        assert_eq!(value(&q("0.5Gi")), 1 << 29);
        assert_eq!(value(&q("1E")), 10i64.pow(18));
        assert_eq!(divided(&q("250m"), &q("1")), "1");
        assert_eq!(divided(&q("250m"), &q("1m")), "250");
        assert_eq!(divided(&q("64Mi"), &q("1Mi")), "64");
    }

    #[test]
    fn weights_and_quotas() {
        assert_eq!((cpu_shares(0), cpu_shares(1), cpu_shares(500), cpu_shares(1000)), (2, 2, 512, 1024));
        assert_eq!((cpu_quota(0), cpu_quota(5), cpu_quota(500)), (0, 1000, 50_000));
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let with = |name: &str, cpu: &str| Container {
            resources: Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), q(cpu))].into()),
                ..Default::default()
            }),
            ..container(name)
        };
        let pod = edit(pod("web"), |s| {
            s.containers = vec![with("a", "100m"), with("b", "200m")];
            s.init_containers = Some(vec![
                Container { restart_policy: Some("Always".into()), ..with("side", "50m") },
                with("setup", "1"),
            ]);
        });
        assert_eq!(pod_request(&pod, "cpu"), 1050);
    }
}
