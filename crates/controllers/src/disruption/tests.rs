//! Disruption budgets on the in-memory API.

use crate::world::{World, deployment, named, selector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use krate_api::types::core::v1::Pod;
use krate_api::types::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};

fn budget(name: &str, most: IntOrString) -> PodDisruptionBudget {
    let mut budget = PodDisruptionBudget::default();
    named(&mut budget, name);
    let spec = budget.spec.get_or_insert_default();
    spec.max_unavailable = Some(most);
    spec.selector = Some(selector(name));
    budget
}

fn status(w: &World, name: &str) -> PodDisruptionBudgetStatus {
    w.fake.get::<PodDisruptionBudget>("default", name).unwrap().status.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_budget_follows_its_pods_and_their_scale_and_then_rests() {
    let w = World::new(&[super::start, crate::deployment::start, crate::replicas::start_replica_sets]);
    w.fake.put(&budget("web", IntOrString::String("50%".to_owned())));
    w.fake.put(&deployment("web", 4));
    w.settle().await;
    assert_eq!((status(&w, "web").expected_pods, status(&w, "web").disruptions_allowed), (Some(4), Some(0)));
    w.run_pods();
    w.settle().await;
    let now = status(&w, "web");
    assert_eq!(
        (now.current_healthy, now.desired_healthy, now.disruptions_allowed),
        (Some(4), Some(2), Some(2))
    );
    let condition = &now.conditions.unwrap()[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
    let pods = w.fake.list::<Pod>();
    w.set_ready(&pods[0], false);
    w.settle().await;
    assert_eq!(status(&w, "web").disruptions_allowed, Some(1));
    let _ = w.fake.take_writes();
    w.pass(3600).await;
    let others: Vec<_> = w.fake.take_writes().into_iter().filter(|x| x.contains("disruption")).collect();
    assert_eq!(others, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pods_whose_owner_has_no_scale_close_it() {
    let w = World::new(&[super::start]);
    let mut pod = Pod::default();
    named(&mut pod, "a");
    pod.metadata.labels = Some([("app".to_owned(), "pi".to_owned())].into());
    pod.metadata.owner_references = Some(vec![krate_api::meta::OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: "pi".to_owned(),
        uid: "u".to_owned(),
        controller: Some(true),
        ..Default::default()
    }]);
    w.fake.put(&pod);
    w.fake.put(&budget("pi", IntOrString::Int(1)));
    w.settle().await;
    let condition = &status(&w, "pi").conditions.unwrap()[0];
    assert_eq!(condition.reason, "SyncFailed");
    assert_eq!(condition.message, "jobs.batch does not implement the scale subresource");
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_came_to_nothing_is_taken_back() {
    let w = World::new(&[super::start]);
    let mut pod = Pod::default();
    named(&mut pod, "a");
    let now = w.context.clock.now_seconds();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    crate::pods::disrupt(conditions, "EvictionByEvictionAPI", "Eviction API: evicting", now);
    w.fake.put(&pod);
    let mark =
        || w.fake.get::<Pod>("default", "a").unwrap().status.clone().unwrap().conditions.unwrap()[0].clone();
    w.pass(110).await;
    assert_eq!(mark().status, "True");
    w.pass(20).await;
    assert_eq!((mark().status.as_str(), mark().reason), ("False", None));
}
