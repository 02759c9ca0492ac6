//! The files of configMap, secret, downwardAPI and projected volumes, as pure functions of their sources.

use super::atomic::{File, Payload};
use crate::env::Referenced;
use crate::env::fields::{self, Facts};
use crate::spec;
use krate_api::k8s_openapi::ByteString;
use krate_api::types::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    ServiceAccountTokenProjection,
};
use std::collections::BTreeMap;

/// Mode of a file whose volume names none.
pub const DEFAULT_MODE: i32 = 0o644;

type Made = Result<Payload, String>;

fn mode(of: Option<i32>, default: i32) -> u32 {
    u32::try_from(of.unwrap_or(default)).unwrap_or(0) & 0o777
}

fn file(data: &[u8], mode: u32) -> File {
    File { data: data.to_vec(), mode, user: None }
}

/// Chooses and renames keys. `what` begins the error of a key that is not there.
fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&Vec<KeyToPath>>,
    default: i32,
    optional: bool,
    what: &str,
) -> Made {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.iter().map(|(k, v)| ((*k).to_owned(), file(v, mode(None, default)))).collect());
    };
    let mut out = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                out.insert(item.path.clone(), file(value, mode(item.mode, default)));
            }
            None if optional => {}
            None => return Err(format!("{what} key: {}", item.key)),
        }
    }
    Ok(out)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, ByteString(v))| (k.as_str(), v.as_slice()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret.data.iter().flatten().map(|(k, ByteString(v))| (k.as_str(), v.as_slice())).collect()
}

pub fn config_map(
    referenced: &Referenced,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    default: i32,
    optional: Option<bool>,
) -> Made {
    let optional = optional == Some(true);
    match referenced.config_map(name) {
        Ok(map) => select(
            &config_map_data(map),
            items,
            default,
            optional,
            "configmap references non-existent config",
        ),
        Err(_) if optional => Ok(Payload::new()),
        Err(error) => Err(error),
    }
}

pub fn secret(
    referenced: &Referenced,
    name: &str,
    items: Option<&Vec<KeyToPath>>,
    default: i32,
    optional: Option<bool>,
) -> Made {
    let optional = optional == Some(true);
    match referenced.secret(name) {
        Ok(secret) => {
            select(&secret_data(secret), items, default, optional, "references non-existent secret")
        }
        Err(_) if optional => Ok(Payload::new()),
        Err(error) => Err(error),
    }
}

pub fn downward(pod: &Pod, facts: &Facts, items: Option<&Vec<DownwardAPIVolumeFile>>, default: i32) -> Made {
    let mut out = Payload::new();
    for item in items.into_iter().flatten() {
        let text = if let Some(selector) = &item.field_ref {
            fields::field(pod, facts, selector)
                .ok_or_else(|| format!("unsupported fieldPath: {}", selector.field_path))?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let (_, container) =
                spec::find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
            fields::resource(&container, facts, selector)?
        } else {
            continue;
        };
        out.insert(item.path.clone(), file(text.as_bytes(), mode(item.mode, default)));
    }
    Ok(out)
}

/// A token that a projected volume asks for.
pub fn token_requests(
    source: &ProjectedVolumeSource,
) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    source.sources.iter().flatten().filter_map(|s| s.service_account_token.as_ref())
}

/// All sources of a projected volume in one. `tokens` are those of [`token_requests`], in their order.
pub fn projected(
    pod: &Pod,
    facts: &Facts,
    referenced: &Referenced,
    source: &ProjectedVolumeSource,
    tokens: &[String],
) -> Made {
    let default = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut tokens = tokens.iter();
    let mut out = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(s) = &part.config_map {
            out.extend(config_map(referenced, &s.name, s.items.as_ref(), default, s.optional)?);
        } else if let Some(s) = &part.secret {
            out.extend(secret(referenced, &s.name, s.items.as_ref(), default, s.optional)?);
        } else if let Some(s) = &part.downward_api {
            out.extend(downward(pod, facts, s.items.as_ref(), default)?);
        } else if let Some(s) = &part.service_account_token {
            let token = tokens.next().ok_or("the token of the service account has not been fetched")?;
            out.insert(s.path.clone(), token_file(pod, token, default));
        } else if part.cluster_trust_bundle.is_some() {
            return Err("ClusterTrustBundle projection is not supported by this kubelet".to_owned());
        } else if part.pod_certificate.is_some() {
            return Err("PodCertificate projection is not supported by this kubelet".to_owned());
        }
    }
    Ok(out)
}

/// A token is for the pod's user alone where that is one user.
fn token_file(pod: &Pod, token: &str, default: i32) -> File {
    let group = spec::spec(pod).security_context.as_ref().and_then(|s| s.fs_group);
    match (group, common_user(pod)) {
        (Some(_), _) => file(token.as_bytes(), 0o600),
        (None, Some(user)) => File { user: Some(user), ..file(token.as_bytes(), 0o600) },
        (None, None) => file(token.as_bytes(), mode(None, default)),
    }
}

/// The user that all containers of the pod run as, if the specification says so.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = spec::spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let mut all = spec::init_containers(pod)
        .iter()
        .chain(spec::containers(pod))
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = all.next()??;
    if all.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use std::sync::Arc;

    fn referenced() -> Referenced {
        let map = ConfigMap {
            data: Some([("a".into(), "1".into()), ("b".into(), "2".into())].into()),
            binary_data: Some([("c".into(), ByteString(vec![0, 255]))].into()),
            ..Default::default()
        };
        Referenced { config_maps: [("m".to_owned(), Arc::new(map))].into(), ..Default::default() }
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.into(), mode, path: path.into() }
    }

    #[test]
    fn all_keys_or_the_chosen_ones() {
        let all = config_map(&referenced(), "m", None, 0o644, None).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let items = vec![item("a", "x/y", Some(0o400))];
        let some = config_map(&referenced(), "m", Some(&items), 0o644, None).unwrap();
        assert_eq!(some["x/y"], File { data: b"1".to_vec(), mode: 0o400, user: None });
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        assert_eq!(
            config_map(&referenced(), "n", None, 0o644, None).unwrap_err(),
            "configmap \"n\" not found"
        );
        assert!(config_map(&referenced(), "n", None, 0o644, Some(true)).unwrap().is_empty());
        let items = vec![item("z", "z", None)];
        let error = config_map(&referenced(), "m", Some(&items), 0o644, None).unwrap_err();
        assert_eq!(error, "configmap references non-existent config key: z");
        assert!(config_map(&referenced(), "m", Some(&items), 0o644, Some(true)).unwrap().is_empty());
    }

    #[test]
    fn a_token_is_the_users_own() {
        let pod = edit(pod("web"), |s| {
            s.security_context = Some(krate_api::types::core::v1::PodSecurityContext {
                run_as_user: Some(1000),
                ..Default::default()
            });
        });
        let file = token_file(&pod, "t", DEFAULT_MODE);
        assert_eq!((file.mode, file.user), (0o600, Some(1000)));
    }
}
