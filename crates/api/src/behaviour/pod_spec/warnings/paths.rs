//! Warnings about files of one volume whose paths are the same, or one below the other.

use crate::behaviour::fill::{items, str_of};
use crate::types::core::v1::{
    ConfigMapProjection, KeyToPath, ProjectedVolumeSource, SecretProjection, Volume,
};
use std::collections::BTreeSet;

/// Clashes within each volume of files.
pub fn overlapping(warnings: &mut Vec<String>, volumes: &[Volume]) {
    for volume in volumes {
        let name = &volume.name;
        if let Some(source) = volume.config_map.as_ref().filter(|s| s.items.is_some()) {
            let told = format!("volume {name:?} (ConfigMap {:?}): overlapping paths", source.name);
            check(warnings, &files(items(&source.items)), &told);
        }
        if let Some(source) = volume.secret.as_ref().filter(|s| s.items.is_some()) {
            let secret = str_of(&source.secret_name);
            let told = format!("volume {name:?} (Secret {secret:?}): overlapping paths");
            check(warnings, &files(items(&source.items)), &told);
        }
        if let Some(source) = volume.downward_api.as_ref().filter(|s| s.items.is_some()) {
            let list: Vec<String> = items(&source.items).iter().map(|f| f.path.clone()).collect();
            check(warnings, &list, &format!("volume {name:?} (DownwardAPI): overlapping paths"));
        }
        if let Some(projected) = &volume.projected {
            sources(warnings, name, projected);
        }
    }
}

fn files(keys: &[KeyToPath]) -> Vec<String> {
    keys.iter().map(|key| key.path.clone()).collect()
}

/// Of projected volumes, each source, and then each together with those before it.
fn sources(warnings: &mut Vec<String>, name: &str, projected: &ProjectedVolumeSource) {
    let mut before: BTreeSet<String> = BTreeSet::new();
    let (mut list, mut told): (Vec<String>, String) = (vec![], String::new());
    for source in items(&projected.sources) {
        if *source == Default::default() {
            warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        }
        let of = |what: String| format!("volume {name:?} (Projected {what}): overlapping paths");
        if let Some(ConfigMapProjection { name, items: Some(keys), .. }) = &source.config_map {
            (list, told) = (files(keys), of(format!("ConfigMap {name:?}")));
        } else if let Some(SecretProjection { name, items: Some(keys), .. }) = &source.secret {
            (list, told) = (files(keys), of(format!("Secret {name:?}")));
        } else if let Some(keys) = source.downward_api.as_ref().and_then(|d| d.items.as_ref()) {
            (list, told) = (keys.iter().map(|f| f.path.clone()).collect(), of("DownwardAPI".to_owned()));
        } else if let Some(token) = &source.service_account_token {
            (list, told) = (vec![token.path.clone()], of("ServiceAccountToken".to_owned()));
        } else if let Some(bundle) = &source.cluster_trust_bundle {
            let which = bundle.name.as_ref().or(bundle.signer_name.as_ref()).map_or("", String::as_str);
            (list, told) = (vec![bundle.path.clone()], of(format!("ClusterTrustBundle {which:?}")));
        }
        if list.is_empty() {
            continue;
        }
        check(warnings, &list, &told);
        let own: BTreeSet<String> = list.iter().cloned().collect();
        let mut together: Vec<String> = own.iter().chain(&before).cloned().collect();
        together.sort();
        check(warnings, &together, &told);
        before.extend(own);
    }
}

fn check(warnings: &mut Vec<String>, paths: &[String], told: &str) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        let path = path.trim_end_matches('/');
        if let Some(other) = clash(&seen, path) {
            warnings.push(format!("{told}: {path:?} with {other:?}"));
        }
        seen.insert(path);
    }
}

fn clash<'a>(seen: &BTreeSet<&'a str>, path: &str) -> Option<&'a str> {
    let below = |a: &str, b: &str| format!("{a}/").starts_with(b);
    let both = |other: &&&str| !other.is_empty() && !path.is_empty();
    seen.iter()
        .filter(both)
        .find(|other| **other == path || below(other, path) || below(path, other))
        .copied()
}
