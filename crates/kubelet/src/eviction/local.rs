//! The limits of ephemeral storage: of emptyDir volumes, of containers, of pods.

use super::rank::Usage;
use crate::spec::{self, resources};
use krate_api::types::core::v1::Pod;
use std::collections::BTreeMap;

const STORAGE: &str = "ephemeral-storage";

/// Whether the pod has a limit that must be looked after.
pub fn is_limited(pod: &Pod) -> bool {
    let limited =
        |c: &krate_api::types::core::v1::Container| resources::limit(c.resources.as_ref(), STORAGE).is_some();
    spec::containers(pod).iter().chain(spec::init_containers(pod)).any(limited)
        || spec::spec(pod).volumes.iter().flatten().any(|v| {
            v.empty_dir
                .as_ref()
                .is_some_and(|e| e.size_limit.is_some() && e.medium.as_deref().unwrap_or_default().is_empty())
        })
}

/// Which limit the pod has passed, in the words of its status. `volumes` are the bytes of its emptyDir
/// volumes by name.
pub fn passed(pod: &Pod, usage: &Usage, volumes: &BTreeMap<String, i64>) -> Option<String> {
    for volume in spec::spec(pod).volumes.iter().flatten() {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) else { continue };
        let used = volumes.get(&volume.name).copied().unwrap_or(0);
        if resources::value(limit) > 0 && used > resources::value(limit) {
            let name = &volume.name;
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", limit.0));
        }
    }
    if let Some(limit) = resources::pod_limit(pod, STORAGE).filter(|limit| usage.disk > *limit) {
        let limit = super::rank::bytes(limit);
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    for container in spec::containers(pod) {
        let Some(limit) = resources::limit(container.resources.as_ref(), STORAGE) else { continue };
        let used = usage.containers.get(&container.name).map_or(0, |(_, disk)| *disk);
        if used > resources::value(limit) {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                container.name, limit.0
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use krate_api::types::core::v1::{EmptyDirVolumeSource, ResourceRequirements, Volume};

    fn limited(limit: &str) -> Pod {
        edit(pod("web"), |s| {
            let mut second = container("side");
            second.resources = None;
            s.containers[0].resources = Some(ResourceRequirements {
                limits: Some([(STORAGE.to_owned(), Quantity(limit.into()))].into()),
                ..Default::default()
            });
            s.volumes = Some(vec![Volume {
                name: "data".into(),
                empty_dir: Some(EmptyDirVolumeSource {
                    size_limit: Some(Quantity("2Mi".into())),
                    ..Default::default()
                }),
                ..Default::default()
            }]);
        })
    }

    #[test]
    fn each_limit_has_its_words() {
        let pod = limited("1Mi");
        let usage = |disk: i64, own: i64| Usage {
            disk,
            containers: [("web".to_owned(), (0, own))].into(),
            ..Default::default()
        };
        let data = |bytes: i64| BTreeMap::from([("data".to_owned(), bytes)]);
        assert!(is_limited(&pod));
        assert_eq!(passed(&pod, &usage(1 << 20, 1 << 20), &data(0)), None);
        assert_eq!(
            passed(&pod, &usage(0, 0), &data(3 << 20)).unwrap(),
            "Usage of EmptyDir volume \"data\" exceeds the limit \"2Mi\". "
        );
        assert_eq!(
            passed(&pod, &usage(2 << 20, 0), &data(0)).unwrap(),
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
        );
        let two = edit(pod, |s| s.containers.push(container("side")));
        assert_eq!(
            passed(&two, &usage(2 << 20, 2 << 20), &data(0)).unwrap(),
            "Container web exceeded its local ephemeral storage limit \"1Mi\". "
        );
    }
}
