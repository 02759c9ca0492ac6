//! What the kubelet runs with, as `/configz` tells it: in the fields of a KubeletConfiguration
//! (kubelet.config.k8s.io/v1beta1), those that mean something here.

use crate::eviction::threshold::{Amount, NAMES, Threshold};
use crate::node::{REPORT_EVERY, UPDATE_EVERY, lease};
use crate::sync::backoff::go_seconds;
use crate::{Config, eviction};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The document.
pub fn describe(config: &Config) -> Value {
    let whole = |d: Duration| go_seconds(d);
    let mut all = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": config.server.is_some(),
        "authentication": {"x509": {}, "webhook": {"enabled": false}, "anonymous": {"enabled": false}},
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "nodeStatusUpdateFrequency": whole(UPDATE_EVERY),
        "nodeStatusReportFrequency": whole(REPORT_EVERY),
        "nodeLeaseDurationSeconds": lease::DURATION_SECONDS,
        "cgroupRoot": format!("/{}", config.cgroup_parent.trim_start_matches('/')),
        "cgroupDriver": "cgroupfs",
        "maxPods": config.max_pods,
        "resolvConf": config.resolv_conf,
        "containerLogMaxSize": quantity(config.log_limits.size),
        "containerLogMaxFiles": config.log_limits.files,
        "kubeReserved": config.reserved,
        "evictionPressureTransitionPeriod": whole(config.eviction.transition),
        "evictionMaxPodGracePeriod": config.eviction.max_pod_grace,
    });
    let Some(fields) = all.as_object_mut() else { return all };
    fields.extend(thresholds(&config.eviction));
    if let Some(policy) = &config.image_garbage {
        fields.insert("imageMinimumGCAge".to_owned(), whole(policy.least_age).into());
        fields.insert("imageMaximumGCAge".to_owned(), whole(policy.most_age.unwrap_or_default()).into());
        fields.insert("imageGCHighThresholdPercent".to_owned(), policy.high.into());
        fields.insert("imageGCLowThresholdPercent".to_owned(), policy.low.into());
    }
    if let Some(folder) = &config.static_pods {
        fields.insert("staticPodPath".to_owned(), json!(folder));
    }
    if let Some(address) = config.server.as_ref().and_then(|(listener, _)| listener.local_addr().ok()) {
        fields.insert("address".to_owned(), address.ip().to_string().into());
        fields.insert("port".to_owned(), address.port().into());
    }
    json!({ "kubeletconfig": all })
}

fn thresholds(config: &eviction::Config) -> Map<String, Value> {
    let of = |chosen: &dyn Fn(&Threshold) -> Option<String>| -> Map<String, Value> {
        let named =
            |t: &Threshold| NAMES.iter().find(|(signal, _)| *signal == t.signal).map(|(_, name)| *name);
        config.thresholds.iter().filter_map(|t| Some((named(t)?.to_owned(), chosen(t)?.into()))).collect()
    };
    let hard = of(&|t| t.grace.is_none().then(|| amount(t.least)));
    let soft = of(&|t| t.grace.map(|_| amount(t.least)));
    let graces = of(&|t| t.grace.map(go_seconds));
    [("evictionHard", hard), ("evictionSoft", soft), ("evictionSoftGracePeriod", graces)]
        .into_iter()
        .filter(|(_, map)| !map.is_empty())
        .map(|(name, map)| (name.to_owned(), Value::Object(map)))
        .collect()
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount::Absolute(bytes) => quantity(u64::try_from(bytes).unwrap_or(0)),
        Amount::Share(share) => format!("{}%", share * 100.0),
    }
}

/// Bytes in the largest unit that has a whole number of them.
fn quantity(bytes: u64) -> String {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_shown_as_they_are_written() {
        let text = "memory.available<100Mi,nodefs.available<10%,pid.available<1000";
        let thresholds = eviction::threshold::parse(text).unwrap();
        let mut config = eviction::Config { thresholds, ..Default::default() };
        config.thresholds[1].grace = Some(Duration::from_secs(90));
        let shown = Value::Object(super::thresholds(&config));
        let expected = json!({
            "evictionHard": {"memory.available": "100Mi", "pid.available": "1000"},
            "evictionSoft": {"nodefs.available": "10%"},
            "evictionSoftGracePeriod": {"nodefs.available": "1m30s"}});
        assert_eq!(shown, expected);
    }
}
