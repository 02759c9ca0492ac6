//! The collector on the in-memory API.

use super::start;
use crate::meta::controller_reference;
use crate::world::{World, named};
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::ReplicaSet;
use krate_api::types::core::v1::{ConfigMap, Pod};
use krate_api::{Kind, Reason, Status};
use krate_client::Verb;

fn owned<K: Kind, O: Kind>(w: &World, name: &str, owner: Option<&O>) -> K {
    let mut object = K::default();
    named(&mut object, name);
    object.meta_mut().owner_references = owner.map(|o| vec![controller_reference(o)]);
    (*w.fake.put(&object)).clone()
}

async fn delete<K: Kind>(w: &World, name: &str, policy: &str) {
    let options = DeleteOptions { propagation_policy: Some(policy.to_owned()), ..DeleteOptions::default() };
    w.api::<K>().delete("default", name, options).await.unwrap();
    w.settle().await;
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owner_and_only_with_theirs() {
    let w = World::new(&[start]);
    let set: ReplicaSet = owned::<_, Pod>(&w, "web", None);
    let pod: Pod = owned(&w, "web-1", Some(&set));
    let _: ConfigMap = owned(&w, "of-the-pod", Some(&pod));
    let _: Pod = owned::<_, Pod>(&w, "alone", None);
    w.settle().await;
    assert_eq!(w.names::<Pod>(), ["alone", "web-1"]);
    delete::<ReplicaSet>(&w, "web", "Background").await;
    assert_eq!(w.names::<Pod>(), ["alone"]);
    assert!(w.names::<ConfigMap>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_owner_goes_last() {
    let w = World::new(&[start]);
    let set: ReplicaSet = owned::<_, Pod>(&w, "web", None);
    let pod: Pod = owned(&w, "web-1", Some(&set));
    w.set_ready(&pod, true);
    w.settle().await;
    delete::<ReplicaSet>(&w, "web", "Foreground").await;
    assert_eq!(w.names::<ReplicaSet>(), ["web"], "its pod still ends");
    assert!(w.fake.list::<Pod>()[0].metadata.deletion_timestamp.is_some());
    w.finish_deletions();
    w.settle().await;
    assert!(w.names::<ReplicaSet>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn orphans_are_freed_before_their_owner_goes() {
    let w = World::new(&[start]);
    let set: ReplicaSet = owned::<_, Pod>(&w, "web", None);
    let _: Pod = owned(&w, "web-1", Some(&set));
    w.settle().await;
    delete::<ReplicaSet>(&w, "web", "Orphan").await;
    assert!(w.names::<ReplicaSet>().is_empty());
    let pod = &w.fake.list::<Pod>()[0];
    assert!(pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    w.pass(600).await;
    assert_eq!(w.names::<Pod>(), ["web-1"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_was_counts_as_gone_and_an_unknown_kind_does_not() {
    let w = World::new(&[start]);
    let mut never = ReplicaSet::default();
    named(&mut never, "never");
    never.metadata.uid = Some("no-such-uid".to_owned());
    let _: Pod = owned(&w, "lost", Some(&never));
    let mut strange: Pod = owned(&w, "strange", Some(&never));
    strange.metadata.owner_references.as_mut().unwrap()[0].kind = "Widget".to_owned();
    w.fake.put(&strange);
    w.settle().await;
    assert_eq!(w.names::<Pod>(), ["strange"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_came_and_went_unseen_takes_its_dependents_along() {
    let w = World::new(&[start]);
    w.settle().await;
    w.fake.fail(|r| {
        let unseen = r.plural == "replicasets" && r.verb == Verb::List;
        unseen.then(|| Status::failure(Reason::ServiceUnavailable, "the server is away"))
    });
    w.fake.break_watches();
    let set: ReplicaSet = owned::<_, Pod>(&w, "web", None);
    let _: Pod = owned(&w, "web-1", Some(&set));
    w.fake.compact();
    w.pass(120).await;
    assert_eq!(w.names::<Pod>(), ["web-1"], "its owner lives, as the API says");
    w.fake.remove::<ReplicaSet>("default", "web");
    w.fake.heal();
    w.pass(300).await;
    assert!(w.names::<Pod>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_living_owner_is_enough() {
    let w = World::new(&[start]);
    let first: ReplicaSet = owned::<_, Pod>(&w, "first", None);
    let second: ReplicaSet = owned::<_, Pod>(&w, "second", None);
    let mut pod: Pod = owned(&w, "shared", Some(&first));
    pod.metadata.owner_references.as_mut().unwrap().push(controller_reference(&second));
    w.fake.put(&pod);
    w.settle().await;
    delete::<ReplicaSet>(&w, "first", "Background").await;
    let pod = w.fake.get::<Pod>("default", "shared").unwrap();
    assert_eq!(pod.metadata.owner_references.as_ref().unwrap().len(), 1);
    delete::<ReplicaSet>(&w, "second", "Background").await;
    assert!(w.names::<Pod>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_owners_goes_in_the_foreground() {
    let w = World::new(&[start]);
    let mut circle: Vec<ConfigMap> =
        ["a", "b", "c"].iter().map(|name| owned::<_, Pod>(&w, name, None)).collect();
    let owners: Vec<_> = circle.iter().map(controller_reference).collect();
    for (n, member) in circle.iter_mut().enumerate() {
        member.metadata.owner_references = Some(vec![owners[(n + 2) % 3].clone()]);
        w.fake.put(member);
    }
    w.settle().await;
    assert_eq!(w.names::<ConfigMap>(), ["a", "b", "c"]);
    delete::<ConfigMap>(&w, "a", "Foreground").await;
    assert!(w.names::<ConfigMap>().is_empty());
}
