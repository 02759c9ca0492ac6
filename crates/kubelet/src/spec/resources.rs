//! Amounts: quantities of CPU and memory, what a pod asks for as a whole, and the numbers of control groups.
//!
//! CPU is in thousandths of a core, memory in bytes.

use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
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

/// A quantity in billionths, or `None` if it is not one.
fn nanos(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')));
    let (number, suffix) = match digits {
        // `E` alone is the suffix exa; followed by a number it is an exponent.
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let scale: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        "k" => 10i128.pow(12),
        "M" => 10i128.pow(15),
        "G" => 10i128.pow(18),
        "T" => 10i128.pow(21),
        "P" => 10i128.pow(24),
        "E" => 10i128.pow(27),
        "Ki" => 1_000_000_000 << 10,
        "Mi" => 1_000_000_000 << 20,
        "Gi" => 1_000_000_000 << 30,
        "Ti" => 1_000_000_000 << 40,
        "Pi" => 1_000_000_000 << 50,
        "Ei" => 1_000_000_000 << 60,
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-9..=18).contains(&exponent) {
                return None;
            }
            10i128.pow(u32::try_from(exponent + 9).ok()?)
        }
    };
    scaled(number, scale)
}

/// A decimal number times `scale`, rounded up, without going through floating point.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(scale)?;
    if !fraction.is_empty() {
        let fraction = &fraction[..fraction.len().min(12)];
        let unit = 10i128.pow(u32::try_from(fraction.len()).ok()?);
        value = value.checked_add((fraction.parse::<i128>().ok()?.checked_mul(scale)? + unit - 1) / unit)?;
    }
    Some(if negative { -value } else { value })
}

fn rounded_up(quantity: &Quantity, unit: i128) -> i64 {
    let nanos = nanos(&quantity.0).unwrap_or(0);
    let value = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Whole units, rounded up: bytes of a memory quantity.
pub fn value(quantity: &Quantity) -> i64 {
    rounded_up(quantity, 1_000_000_000)
}

/// Thousandths, rounded up: CPU.
pub fn milli_value(quantity: &Quantity) -> i64 {
    rounded_up(quantity, 1_000_000)
}

pub fn is_zero(quantity: &Quantity) -> bool {
    nanos(&quantity.0).unwrap_or(0) == 0
}

pub fn equal(a: &Quantity, b: &Quantity) -> bool {
    nanos(&a.0) == nanos(&b.0)
}

/// `quantity / divisor`, rounded up, as the downward API shows it.
pub fn divided(quantity: &Quantity, divisor: &Quantity) -> String {
    let divisor = match nanos(&divisor.0) {
        Some(n) if n > 0 => n,
        _ => 1_000_000_000,
    };
    let nanos = nanos(&quantity.0).unwrap_or(0);
    (nanos.div_euclid(divisor) + i128::from(nanos.rem_euclid(divisor) != 0)).to_string()
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
        assert_eq!(milli_value(&q("1u")), 1);
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
