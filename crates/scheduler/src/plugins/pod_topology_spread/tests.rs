//! Spreading by the rules of the documentation's examples.

use super::*;
use crate::cycle::Attempt;
use crate::nominated::Nominated;
use crate::profile::{Profile, ProfileConfig};
use crate::testing::{PodBuilder, node, pod};
use krate_api::Kind as _;
use krate_base::Rng;
use serde_json::{Value, json};

fn constraint(key: &str, max_skew: i64, when: &str) -> Value {
    json!({"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}}})
}

fn web(name: &str) -> PodBuilder {
    pod(name).label("app", "web")
}

fn spread(name: &str, constraints: &[Value]) -> PodBuilder {
    web(name).spec("topologySpreadConstraints", json!(constraints))
}

/// Nodes `a1 a2` in zone a and `b1` in zone b, with so many pods on each.
fn zones(pods: [usize; 3]) -> Table {
    let mut table = Table::default();
    for ((name, zone), pods) in [("a1", "a"), ("a2", "a"), ("b1", "b")].into_iter().zip(pods) {
        table.set_node(node(name).label("zone", zone).view());
        for number in 0..pods {
            table.add_pod(&name.into(), web(&format!("{name}-{number}")).view());
        }
    }
    table.settle();
    table
}

/// For each node, in order of their names: nothing if the pod fits, or why not.
fn judged(table: &Table, pod: &PodView) -> Vec<(String, String)> {
    let plugin = PodTopologySpread::new(&Settings::default());
    let mut said: Vec<_> = match plugin.filter(pod, table) {
        Look::Filter(filter) => table
            .nodes()
            .map(|node| {
                let text = filter.check(node).err().map(|unfit| unfit.reasons.join(", "));
                (node.view.name.to_string(), text.unwrap_or_default())
            })
            .collect(),
        _ => panic!("there is a constraint"),
    };
    said.sort();
    said
}

fn fitting(table: &Table, pod: &PodView) -> Vec<String> {
    judged(table, pod).into_iter().filter(|(_, why)| why.is_empty()).map(|(name, _)| name).collect()
}

#[test]
fn no_domain_has_too_many_more_than_the_least() {
    let hard = |skew| spread("new", &[constraint("zone", skew, "DoNotSchedule")]).view();
    assert_eq!(fitting(&zones([1, 1, 1]), &hard(1)), ["b1"]);
    assert_eq!(fitting(&zones([1, 1, 1]), &hard(2)), ["a1", "a2", "b1"]);
    assert_eq!(fitting(&zones([1, 0, 1]), &hard(1)), ["a1", "a2", "b1"]);
    assert_eq!(judged(&zones([1, 1, 1]), &hard(1))[0].1, REASON);
}

#[test]
fn several_constraints_hold_together() {
    let both =
        [constraint("zone", 1, "DoNotSchedule"), constraint("kubernetes.io/hostname", 1, "DoNotSchedule")];
    assert_eq!(fitting(&zones([1, 0, 0]), &spread("new", &both).view()), ["b1"]);
    assert_eq!(fitting(&zones([1, 0, 1]), &spread("new", &both).view()), ["a2"]);
}

#[test]
fn a_node_without_the_label_cannot_be_helped() {
    let mut table = zones([0, 0, 0]);
    table.set_node(node("x").view());
    let pod = spread("new", &[constraint("zone", 1, "DoNotSchedule")]).view();
    assert_eq!(judged(&table, &pod)[3], ("x".to_owned(), NO_LABEL.to_owned()));
}

#[test]
fn too_few_domains_count_as_if_one_were_empty() {
    let mut hard = constraint("zone", 1, "DoNotSchedule");
    hard["minDomains"] = json!(3);
    assert!(fitting(&zones([1, 0, 1]), &spread("new", &[hard.clone()]).view()).is_empty());
    hard["minDomains"] = json!(2);
    assert_eq!(fitting(&zones([1, 0, 1]), &spread("new", &[hard]).view()).len(), 3);
}

#[test]
fn nodes_that_the_pod_rules_out_do_not_count_unless_asked_to() {
    let table = zones([1, 1, 0]);
    let mut hard = constraint("zone", 1, "DoNotSchedule");
    let pod = |c: &Value| spread("new", std::slice::from_ref(c)).select("zone", "a").view();
    assert_eq!(fitting(&table, &pod(&hard)), ["a1", "a2", "b1"], "b1 is another plugin's to refuse");
    hard["nodeAffinityPolicy"] = json!("Ignore");
    assert_eq!(fitting(&table, &pod(&hard)), ["b1"]);

    let mut table = zones([1, 1, 0]);
    table.set_node(node("b1").label("zone", "b").taint("k", "v", "NoSchedule").view());
    let mut hard = constraint("zone", 1, "DoNotSchedule");
    assert_eq!(fitting(&table, &spread("new", &[hard.clone()]).view()), ["b1"]);
    hard["nodeTaintsPolicy"] = json!("Honor");
    assert_eq!(fitting(&table, &spread("new", &[hard.clone()]).view()), ["a1", "a2", "b1"]);
    assert_eq!(fitting(&table, &spread("new", &[hard]).tolerate("k").view()), ["b1"]);
}

#[test]
fn pods_on_their_way_out_and_of_other_revisions_do_not_count() {
    let mut table = zones([0, 0, 1]);
    let mut leaving = web("leaving");
    leaving.0["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    table.add_pod(&"a1".into(), leaving.view());
    let hard = constraint("zone", 1, "DoNotSchedule");
    assert_eq!(fitting(&table, &spread("new", std::slice::from_ref(&hard)).view()), ["a1", "a2"]);
    let mut keyed = hard;
    keyed["matchLabelKeys"] = json!(["revision"]);
    let next = spread("new", &[keyed]).label("revision", "2").view();
    assert_eq!(fitting(&table, &next), ["a1", "a2", "b1"]);
}

#[test]
fn what_preemption_takes_away_is_seen() {
    let table = zones([1, 1, 0]);
    let pod = spread("new", &[constraint("zone", 1, "DoNotSchedule")]).view();
    let (profile, nominated) = (Profile::new(&ProfileConfig::default()).unwrap(), Nominated::default());
    let Ok(attempt) = Attempt::new(&profile, &table, &pod, &nominated) else { panic!("it can be tried") };
    let mut trial = attempt.trial(table.slot("a1").unwrap());
    assert!(trial.fits().is_err());
    let victims = trial.node.pods.clone();
    victims.iter().for_each(|victim| trial.remove(victim));
    assert!(trial.fits().is_err(), "one in zone a, none in zone b");
    trial.add(&victims[0]);
    assert!(trial.fits().is_err());
}

fn scores(plugin: &PodTopologySpread, table: &Table, pod: &PodView) -> Vec<i64> {
    let names = ["a1", "a2", "b1"];
    let fitting: Vec<Slot> = names.iter().filter_map(|name| table.slot(name)).collect();
    let score = plugin.score(pod, table, &fitting).unwrap();
    let mut scores: Vec<i64> = fitting.iter().map(|slot| score.score(table.node(*slot))).collect();
    score.normalize(&mut scores);
    scores
}

#[test]
fn the_emptier_domain_is_preferred() {
    let plugin = PodTopologySpread::new(&Settings::default());
    let soft = spread("new", &[constraint("zone", 1, "ScheduleAnyway")]).view();
    assert_eq!(scores(&plugin, &zones([0, 0, 0]), &soft), [100, 100, 100]);
    assert_eq!(scores(&plugin, &zones([2, 0, 1]), &soft), [33, 33, 100]);
    assert!(matches!(plugin.filter(&soft, &zones([9, 9, 0])), Look::Skip));
}

#[test]
fn pods_of_one_service_or_set_are_spread_by_default() {
    let plugin = PodTopologySpread::new(&Settings::default());
    let mut table = zones([2, 0, 0]);
    let new = web("new").view();
    let fitting: Vec<Slot> = table.order().to_vec();
    assert!(plugin.score(&new, &table, &fitting).is_none(), "nothing selects it");
    let kind = krate_api::types::core::v1::Service::KIND;
    let selector = Some(Selector::parse("app=web").unwrap());
    table.selectors.set(kind, &"default".into(), &"web".into(), selector.clone());
    let by_service = scores(&plugin, &table, &new);
    assert!(by_service[1] > by_service[0], "{by_service:?}");
    table.selectors.set(kind, &"default".into(), &"web".into(), None);

    let kind = krate_api::types::apps::v1::ReplicaSet::KIND;
    table.selectors.set(kind, &"default".into(), &"web".into(), selector);
    let mut owned = web("new");
    owned.0["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true},
    ]);
    assert_eq!(scores(&plugin, &table, &owned.view()), by_service);
}

/// Whatever comes and goes: a pod that is placed never breaks its constraint.
#[test]
fn the_skew_is_kept_at_every_step() {
    for seed in 0..10 {
        let rng = Rng::from_seed(seed);
        let skew = 1 + rng.below(3) as i64;
        let mut table = Table::default();
        for number in 0..9 {
            table.set_node(node(&format!("n{number}")).label("zone", &format!("z{}", number % 3)).view());
        }
        for number in 0..60 {
            let new = spread(&format!("p{number}"), &[constraint("zone", skew, "DoNotSchedule")]).view();
            let places = fitting(&table, &new);
            assert!(!places.is_empty());
            let on = &places[rng.below(places.len() as u64) as usize];
            table.add_pod(&on.as_str().into(), new);
            let mut counts = [0_i64; 3];
            for node in table.nodes() {
                let zone: usize = node.view.labels["zone"][1..].parse().unwrap();
                counts[zone] += node.pods.len() as i64;
            }
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= skew, "seed {seed}: {counts:?}");
        }
    }
}
