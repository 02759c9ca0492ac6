//! Namespaces on the in-memory API.

use crate::world::{World, named};
use krate_api::types::core::v1::{ConfigMap, Namespace, Pod};

async fn namespace(w: &World, name: &str) {
    let mut object = Namespace::default();
    object.metadata.name = Some(name.to_owned());
    w.api::<Namespace>().create(object).await.unwrap();
}

fn conditions(w: &World) -> Vec<(String, String, String)> {
    let ns = w.fake.get::<Namespace>("", "default").unwrap();
    let all = ns.status.as_ref().unwrap().conditions.clone().unwrap();
    all.into_iter()
        .filter(|c| c.status == "True")
        .map(|c| (c.type_, c.reason.unwrap(), c.message.unwrap()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn pods_go_first_then_the_rest_then_the_namespace() {
    let w = World::new(&[super::start]);
    namespace(&w, "default").await;
    namespace(&w, "other").await;
    let mut pod = Pod::default();
    named(&mut pod, "web");
    w.set_ready(&w.fake.put(&pod), true);
    let mut config = ConfigMap::default();
    named(&mut config, "settings");
    w.fake.put(&config);
    config.metadata.namespace = Some("other".to_owned());
    w.fake.put(&config);
    w.api::<Namespace>().delete("", "default", Default::default()).await.unwrap();
    w.settle().await;
    let said = conditions(&w);
    assert_eq!(said[0].1, "SomeResourcesRemain");
    assert_eq!(said[0].2, "Some resources are remaining: pods. has 1 resource instances");
    assert_eq!(w.names::<ConfigMap>().len(), 2, "nothing else goes while a pod is left");
    w.finish_deletions();
    w.settle().await;
    assert_eq!(w.names::<Namespace>(), ["other"]);
    assert_eq!(w.fake.list::<ConfigMap>()[0].metadata.namespace.as_deref(), Some("other"));
}

#[tokio::test(start_paused = true)]
async fn finalizers_of_the_content_hold_it_and_are_named() {
    let w = World::new(&[super::start]);
    namespace(&w, "default").await;
    let mut config = ConfigMap::default();
    named(&mut config, "settings");
    config.metadata.finalizers = Some(vec!["example.com/keep".to_owned()]);
    w.fake.put(&config);
    w.api::<Namespace>().delete("", "default", Default::default()).await.unwrap();
    w.settle().await;
    let text =
        "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances";
    assert!(conditions(&w).iter().any(|c| c.2 == text), "{:?}", conditions(&w));
    w.fake.remove::<ConfigMap>("default", "settings");
    w.pass(30).await;
    assert!(w.names::<Namespace>().is_empty());
}
