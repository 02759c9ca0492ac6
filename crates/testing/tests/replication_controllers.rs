//! ReplicationControllers on a whole control plane with hollow nodes, in virtual time.

mod common;

use common::{cluster, is_ready, living, names, pod, template};
use krate_api::types::core::v1::{Pod, ReplicationController};
use krate_client::{Informer, PatchKind};
use krate_testing::ControlPlane;

fn controller(name: &str, replicas: i32) -> ReplicationController {
    let mut object = ReplicationController::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.namespace = Some("default".to_owned());
    let spec = object.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    // Without a selector: the labels of the template are it.
    spec.template = Some(template(name));
    object
}

async fn ready(cluster: &ControlPlane, name: &str, n: i32) {
    cluster
        .until("default", name, |rc: Option<&ReplicationController>| {
            let Some(rc) = rc else { return false };
            let s = rc.status.clone().unwrap_or_default();
            s.observed_generation == rc.metadata.generation
                && (s.replicas, s.ready_replicas.unwrap_or(0), s.available_replicas.unwrap_or(0)) == (n, n, n)
        })
        .await;
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata.owner_references.as_ref()?.first().map(|owner| owner.name.as_str())
}

#[tokio::test(start_paused = true)]
async fn what_fits_is_adopted_and_what_no_longer_fits_is_released() {
    let (cluster, _nodes) = cluster(2).await;
    let mut stray = pod("stray");
    stray.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    cluster.of::<Pod>().create(stray).await.unwrap();
    cluster.of::<ReplicationController>().create(controller("web", 3)).await.unwrap();
    ready(&cluster, "web", 3).await;
    assert!(names::<Pod>(&cluster, "default").await.contains(&"stray".to_owned()));
    assert_eq!(owner(&cluster.of::<Pod>().get("default", "stray").await.unwrap()), Some("web"));
    let patch = r#"{"metadata":{"labels":{"app":"other"}}}"#;
    cluster.of::<Pod>().patch("default", "stray", PatchKind::Merge, patch).await.unwrap();
    cluster.until("default", "stray", |p: Option<&Pod>| p.is_some_and(|p| owner(p).is_none())).await;
    cluster.until_all(|pods: &Informer<Pod>| pods.len() == 4).await;
    ready(&cluster, "web", 3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_least_useful_pods_go_first() {
    let (cluster, _nodes) = cluster(2).await;
    cluster.of::<ReplicationController>().create(controller("web", 4)).await.unwrap();
    ready(&cluster, "web", 4).await;
    let all = names::<Pod>(&cluster, "default").await;
    let (sick, cheap) = (&all[2], &all[1]);
    cluster.set_ready("default", sick, false).await.unwrap();
    cluster.until("default", sick, |p: Option<&Pod>| p.is_some_and(|p| !is_ready(p))).await;
    let cost = r#"{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"-5"}}}"#;
    cluster.of::<Pod>().patch("default", cheap, PatchKind::Merge, cost).await.unwrap();
    for (replicas, gone) in [(3, sick), (2, cheap)] {
        let patch = format!(r#"{{"spec":{{"replicas":{replicas}}}}}"#);
        cluster.of::<ReplicationController>().patch("default", "web", PatchKind::Merge, patch).await.unwrap();
        cluster.until("default", gone, |p: Option<&Pod>| p.is_none()).await;
        ready(&cluster, "web", replicas).await;
    }
    let left = cluster.of::<Pod>().list("default", Default::default()).await.unwrap().items;
    assert_eq!(living(&left).len(), 2);
    cluster.stop().await;
}
