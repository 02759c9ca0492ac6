//! Affinity and anti-affinity between pods.

use super::*;
use crate::testing::{PodBuilder, node, pod};
use krate_api::labels::Labels;
use serde_json::{Value, json};

const HOST: &str = "kubernetes.io/hostname";

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required(terms: &[Value]) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
}

fn preferred(weight: i64, term: Value) -> Value {
    json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]})
}

fn near(pod: PodBuilder, terms: &[Value]) -> PodBuilder {
    pod.spec("affinity", json!({"podAffinity": required(terms)}))
}

fn away(pod: PodBuilder, terms: &[Value]) -> PodBuilder {
    pod.spec("affinity", json!({"podAntiAffinity": required(terms)}))
}

/// Nodes `a1 a2` in zone a and `b1` in zone b.
fn zones() -> Table {
    let mut table = Table::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        table.set_node(node(name).label("zone", zone).view());
    }
    table.settle();
    table
}

fn judged(table: &Table, pod: &PodView) -> Vec<(String, Option<Unfit>)> {
    let plugin = InterPodAffinity::new(&Settings::default());
    let look = plugin.filter(pod, table);
    let check = |node: &NodeInfo| match &look {
        Look::Filter(filter) => filter.check(node).err(),
        _ => None,
    };
    let mut said: Vec<_> = table.nodes().map(|node| (node.view.name.to_string(), check(node))).collect();
    said.sort_by(|a, b| a.0.cmp(&b.0));
    said
}

fn fitting(table: &Table, pod: PodBuilder) -> Vec<String> {
    let judged = judged(table, &pod.view());
    judged.into_iter().filter(|(_, unfit)| unfit.is_none()).map(|(name, _)| name).collect()
}

#[test]
fn a_pod_goes_where_those_are_that_it_wants() {
    let mut table = zones();
    table.add_pod(&"a1".into(), pod("db").label("app", "db").view());
    assert_eq!(fitting(&table, near(pod("web"), &[term("zone", "db")])), ["a1", "a2"]);
    assert_eq!(fitting(&table, near(pod("web"), &[term(HOST, "db")])), ["a1"]);
    let none = near(pod("web"), &[term("zone", "cache")]).view();
    let said = judged(&table, &none);
    assert!(said.iter().all(|(_, unfit)| *unfit == Some(Unfit::for_good(NO_AFFINITY))));
    table.remove_pod("a1", "uid-db");
    assert!(fitting(&table, near(pod("web"), &[term("zone", "db")])).is_empty());
}

#[test]
fn all_terms_must_be_met_by_the_same_pods() {
    let mut table = zones();
    table.add_pod(&"a1".into(), pod("x").label("app", "x").view());
    table.add_pod(&"a1".into(), pod("y").label("app", "y").view());
    assert!(fitting(&table, near(pod("web"), &[term("zone", "x"), term("zone", "y")])).is_empty());
}

#[test]
fn the_first_of_a_group_begins_anywhere_that_has_the_label() {
    let mut table = zones();
    table.set_node(node("x").view());
    let member = |name: &str| near(pod(name).label("app", "g"), &[term("zone", "g")]);
    assert_eq!(fitting(&table, member("one")), ["a1", "a2", "b1"]);
    table.add_pod(&"b1".into(), member("one").view());
    assert_eq!(fitting(&table, member("two")), ["b1"]);
}

#[test]
fn a_pod_stays_away_and_others_are_kept_away_from_it() {
    let mut table = zones();
    table.add_pod(&"a1".into(), away(pod("lone").label("app", "lone"), &[term("zone", "noise")]).view());
    let noise = pod("noise").label("app", "noise").view();
    let said = judged(&table, &noise);
    assert_eq!(said[0].1, Some(Unfit::for_now(OTHERS_ANTI_AFFINITY)));
    assert_eq!(said[2].1, None);
    let shy = away(pod("shy"), &[term(HOST, "lone")]).view();
    let said = judged(&table, &shy);
    assert_eq!(said[0].1, Some(Unfit::for_now(ANTI_AFFINITY)));
    assert_eq!(said[1].1, None);
    table.remove_pod("a1", "uid-lone");
    assert!(judged(&table, &noise).iter().all(|(_, unfit)| unfit.is_none()));
}

#[test]
fn a_node_that_changes_its_zone_takes_its_pods_along() {
    let mut table = zones();
    table.add_pod(&"a1".into(), away(pod("lone"), &[term("zone", "noise")]).view());
    table.set_node(node("a1").label("zone", "b").view());
    assert_eq!(fitting(&table, pod("noise").label("app", "noise")), ["a2"]);
}

#[test]
fn namespaces_are_the_pods_own_or_as_the_term_says() {
    let mut table = zones();
    let mut other = pod("db").label("app", "db");
    other.0["metadata"]["namespace"] = "data".into();
    table.add_pod(&"a1".into(), other.view());
    table.set_namespace("data", Some(Labels::from([("team".into(), "x".into())])));
    let with = |key: &str, value: Value| {
        let mut term = term("zone", "db");
        term[key] = value;
        fitting(&table, near(pod("web"), &[term])).len()
    };
    assert_eq!(fitting(&table, near(pod("web"), &[term("zone", "db")])).len(), 0);
    assert_eq!(with("namespaces", json!(["data"])), 2);
    assert_eq!(with("namespaceSelector", json!({"matchLabels": {"team": "x"}})), 2);
    assert_eq!(with("namespaceSelector", json!({"matchLabels": {"team": "y"}})), 0);
    assert_eq!(with("namespaceSelector", json!({})), 2);
}

#[test]
fn what_is_tried_on_a_node_counts_while_it_is_tried() {
    let mut table = zones();
    let lone = away(pod("lone").label("app", "lone"), &[term("zone", "noise")]).view();
    table.add_pod(&"a1".into(), lone.clone());
    let (plugin, noise) =
        (InterPodAffinity::new(&Settings::default()), pod("n").label("app", "noise").view());
    let Look::Filter(mut filter) = plugin.filter(&noise, &table) else { panic!("there is something to say") };
    let node = table.get("a1").unwrap();
    assert!(filter.check(node).is_err());
    filter.remove(&lone, node);
    assert!(filter.check(node).is_ok());
    filter.add(&lone, node);
    assert!(filter.check(node).is_err());

    let shy = away(pod("shy"), &[term(HOST, "lone")]).view();
    let Look::Filter(mut filter) = plugin.filter(&shy, &table) else { panic!("it has a term") };
    filter.remove(&lone, node);
    assert!(filter.check(node).is_ok());
}

fn scores(table: &Table, pod: &PodView) -> Vec<i64> {
    let plugin = InterPodAffinity::new(&Settings::default());
    let slots: Vec<Slot> = ["a1", "a2", "b1"].iter().filter_map(|name| table.slot(name)).collect();
    let Some(score) = plugin.score(pod, table, &slots) else { return vec![] };
    let mut scores: Vec<i64> = slots.iter().map(|slot| score.score(table.node(*slot))).collect();
    score.normalize(&mut scores);
    scores
}

#[test]
fn preferences_of_both_sides_are_weighed() {
    let mut table = zones();
    table.add_pod(&"a1".into(), pod("db").label("app", "db").view());
    let plain = pod("web").label("app", "web").view();
    assert!(scores(&table, &plain).is_empty());
    let likes = pod("web").spec("affinity", json!({"podAffinity": preferred(5, term("zone", "db"))})).view();
    assert_eq!(scores(&table, &likes), [100, 100, 0]);
    let dislikes =
        pod("web").spec("affinity", json!({"podAntiAffinity": preferred(5, term(HOST, "db"))})).view();
    assert_eq!(scores(&table, &dislikes), [0, 100, 100]);

    let fan = pod("fan").spec("affinity", json!({"podAffinity": preferred(5, term("zone", "web"))}));
    table.add_pod(&"b1".into(), fan.view());
    assert_eq!(scores(&table, &plain), [0, 0, 100], "someone there likes it");
    let needy = near(pod("needy"), &[term(HOST, "web")]);
    table.add_pod(&"a2".into(), needy.view());
    assert_eq!(scores(&table, &plain), [0, 20, 100], "a demand counts one");
}
