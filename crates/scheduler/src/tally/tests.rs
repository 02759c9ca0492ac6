//! Counts that follow the table are those that a new count gives.

use super::*;
use crate::table::Table;
use crate::testing::{node, pod};
use krate_base::Rng;
use serde_json::json;

fn term(key: &str, label: &str) -> serde_json::Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": label}}})
}

fn questions() -> Vec<Question> {
    let template = pod("asks").select("disk", "ssd").tolerate("k").view();
    let selector = Selector::parse("app=a").unwrap();
    let who = Who::Staying { namespace: "default".into(), selector: selector.clone() };
    let choice = NodeChoice { preferred: vec![], ..template.choice.clone() };
    let meant = PodTerm {
        key: "zone".into(),
        selector,
        namespaces: vec![],
        namespace_selector: Some(Selector::parse("team=x").unwrap()),
    };
    let scope = |scope: Scope| Question { who: who.clone(), key: "zone".into(), scope };
    vec![
        scope(Scope::default()),
        scope(Scope { keys: vec!["kubernetes.io/hostname".into()], ..Scope::default() }),
        scope(Scope { choice: Some(choice), ..Scope::default() }),
        scope(Scope { tolerations: Some(vec![]), ..Scope::default() }),
        scope(Scope { tolerations: Some(template.tolerations.clone()), ..Scope::default() }),
        Question { who: who.clone(), key: "kubernetes.io/hostname".into(), scope: Scope::default() },
        Question { who: Who::Meant(vec![meant]), key: "zone".into(), scope: Scope::default() },
    ]
}

fn random_node(rng: &Rng) -> Arc<NodeView> {
    let name = format!("n{}", rng.below(12));
    let mut made = node(&name);
    if rng.below(6) > 0 {
        made = made.label("zone", &format!("z{}", rng.below(4)));
    }
    if rng.below(3) == 0 {
        made = made.label("disk", "ssd");
    }
    if rng.below(4) == 0 {
        made = made.taint(["k", "l"][rng.below(2) as usize], "v", "NoSchedule");
    }
    made.view()
}

fn random_pod(rng: &Rng, number: u64) -> Arc<PodView> {
    let label = ["a", "b"][rng.below(2) as usize];
    let mut made = pod(&format!("p{number}")).label("app", label);
    if rng.below(3) == 0 {
        made = made.spec(
            "affinity",
            json!({"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term("zone", label)],
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 7, "podAffinityTerm": term("kubernetes.io/hostname", label)}],
            }}),
        );
    }
    if rng.below(5) == 0 {
        made.0["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    made.view()
}

/// The same table, built at once.
fn rebuilt(table: &Table, team: &Option<String>) -> Table {
    let mut fresh = Table::default();
    set_team(&mut fresh, team);
    for node in table.nodes() {
        fresh.set_node(node.view.clone());
        for pod in &node.pods {
            fresh.add_pod(&node.view.name, pod.clone());
        }
    }
    fresh
}

fn set_team(table: &mut Table, team: &Option<String>) {
    let labels = team.iter().map(|team| ("team".to_owned(), team.clone())).collect();
    table.set_namespace("default", Some(labels));
}

#[test]
fn counts_that_follow_are_those_of_a_new_count() {
    for seed in 0..20 {
        let rng = Rng::from_seed(seed);
        let mut table = Table::default();
        let mut team = None;
        let mut placed: Vec<(Arc<str>, Arc<PodView>)> = Vec::new();
        for step in 0..300 {
            match rng.below(10) {
                0..3 => table.set_node(random_node(&rng)),
                3 => table.remove_node(&format!("n{}", rng.below(12))),
                4..8 => {
                    let (on, pod): (Arc<str>, _) =
                        (format!("n{}", rng.below(12)).into(), random_pod(&rng, step));
                    table.add_pod(&on, pod.clone());
                    placed.push((on, pod));
                }
                8 if !placed.is_empty() => {
                    let (on, pod) = placed.swap_remove(rng.below(placed.len() as u64) as usize);
                    table.remove_pod(&on, &pod.uid);
                }
                _ => {
                    team = [None, Some("x".to_owned())][rng.below(2) as usize].clone();
                    set_team(&mut table, &team);
                }
            }
            if step % 7 > 0 {
                continue;
            }
            let fresh = rebuilt(&table, &team);
            assert_eq!(table.carried(), fresh.carried(), "seed {seed} step {step}");
            for question in questions() {
                let (kept, new) = (table.tally(question.clone()), fresh.tally(question.clone()));
                assert_eq!(kept.by_value(), new.by_value(), "seed {seed} step {step} {question:?}");
                assert_eq!((kept.least(&[]), kept.total()), (new.least(&[]), new.total()));
                assert_eq!(kept.least(&[]), kept.by_value().values().copied().min());
            }
        }
    }
}

#[test]
fn the_least_is_known_as_if_pods_had_moved() {
    let mut table = Table::default();
    for (name, zone, pods) in [("a", "x", 3), ("b", "y", 1), ("c", "z", 2)] {
        table.set_node(node(name).label("zone", zone).view());
        for number in 0..pods {
            table.add_pod(&name.into(), pod(&format!("{name}{number}")).label("app", "a").view());
        }
    }
    let tally = table.tally(questions().remove(0));
    let of = |name: &str| tally.domain(table.slot(name).unwrap()).unwrap();
    assert_eq!(tally.least(&[]), Some(1));
    assert_eq!(tally.least(&[(of("a"), -3)]), Some(0));
    assert_eq!(tally.least(&[(of("b"), 5)]), Some(2));
    assert_eq!(tally.least(&[(of("c"), -1)]), Some(1));
}
