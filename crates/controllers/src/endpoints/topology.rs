//! Topology aware routing: with the annotation `service.kubernetes.io/topology-mode: Auto`, each zone gets a share of
//! a Service's endpoints like its share of the nodes' processors. Pure.
//!
//! Endpoints serve their own zone first; of zones with too many some are given to those with too few. If a zone's
//! endpoints would bear more than [`OVERLOAD`] above their share, nobody is told anything:
//! <https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/>.

use crate::nodes::NodeView;
use krate_api::types::core::v1::Service;
use krate_api::types::discovery::v1::{Endpoint, EndpointHints, ForZone};
use std::collections::BTreeMap;

const MODE: &str = "service.kubernetes.io/topology-mode";
/// What it was called before; it has the first word.
const OLD_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Labels of nodes that run no endpoints as a rule.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more than its share an endpoint may bear.
const OVERLOAD: f64 = 0.2;

/// The part of the nodes' processors that each zone has; none if the nodes do not tell, or have one zone only.
pub type Shares = BTreeMap<String, f64>;

/// Whether the Service asks for it.
#[must_use]
pub fn is_asked(service: &Service) -> bool {
    let annotation = |name| crate::meta::annotation(&service.metadata, name);
    matches!(annotation(OLD_MODE).or_else(|| annotation(MODE)), Some("Auto" | "auto"))
}

/// What shares depend on in one node: nothing if it does not count.
#[must_use]
pub fn weight(node: &NodeView) -> Option<(Option<&str>, i64)> {
    let excluded = CONTROL_PLANE.iter().any(|label| node.metadata.labels.contains_key(*label));
    let ready = node.condition("Ready").is_some_and(|c| c.status == "True");
    (!excluded && ready).then(|| (node.zone(), node.allocatable_cpu()))
}

/// The shares of all zones.
#[must_use]
pub fn shares<'a>(nodes: impl IntoIterator<Item = &'a NodeView>) -> Shares {
    let mut cpu: BTreeMap<String, i64> = BTreeMap::new();
    for (zone, millis) in nodes.into_iter().filter_map(weight) {
        match zone {
            Some(zone) if millis > 0 => *cpu.entry(zone.to_owned()).or_default() += millis,
            _ => return Shares::new(),
        }
    }
    let total: i64 = cpu.values().sum();
    if cpu.len() < 2 {
        return Shares::new();
    }
    cpu.into_iter().map(|(zone, millis)| (zone, millis as f64 / total as f64)).collect()
}

/// Gives hints to the ready ones of a family's endpoints, or takes all hints and says why.
pub fn hint(endpoints: &mut [&mut Endpoint], shares: &Shares) -> Result<(), String> {
    endpoints.iter_mut().for_each(|e| e.hints = None);
    let mut ready: Vec<&mut Endpoint> =
        endpoints.iter_mut().map(|e| &mut **e).filter(|e| is_ready(e)).collect();
    let wanted = wanted(ready.len(), shares)?;
    let mut zones = Vec::with_capacity(ready.len());
    for endpoint in &ready {
        let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
        zones.push(zone.ok_or("One or more endpoints do not have a zone specified")?);
    }
    if zones.is_empty() {
        return Err("No hints allocated for zones".to_owned());
    }
    redistribute(&mut zones, &wanted);
    for (endpoint, name) in ready.iter_mut().zip(zones) {
        endpoint.hints = Some(EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None });
    }
    Ok(())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// How many endpoints each zone should have.
fn wanted(count: usize, shares: &Shares) -> Result<BTreeMap<&str, f64>, String> {
    let of = format!("({count} endpoints, {} zones)", shares.len());
    if shares.is_empty() {
        let why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        return Err(why.to_owned());
    }
    if shares.len() > count {
        return Err(format!("Insufficient number of endpoints {of}"));
    }
    let exact = |share: &f64| share * count as f64;
    let least = |share: &f64| (exact(share) * (1.0 / (1.0 + OVERLOAD))).ceil();
    if shares.values().map(least).sum::<f64>() > count as f64 {
        let why =
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {of}"));
    }
    Ok(shares.iter().map(|(zone, share)| (zone.as_str(), exact(share).max(least(share)))).collect())
}

/// Moves endpoints from the zone that has most too many to the one that has most too few, one by one.
fn redistribute(zones: &mut [String], wanted: &BTreeMap<&str, f64>) {
    let mut over: BTreeMap<&str, f64> = wanted
        .iter()
        .map(|(zone, wanted)| (*zone, zones.iter().filter(|z| z == zone).count() as f64 - wanted))
        .collect();
    // Each step moves one endpoint, each at most once.
    for _ in 0..zones.len() {
        let most = |sign: f64| over.iter().map(|(z, n)| (*z, n * sign)).max_by(|a, b| a.1.total_cmp(&b.1));
        let (Some((from, give)), Some((to, take))) = (most(1.0), most(-1.0)) else { return };
        if give < 0.5 || take < 0.5 || (give < 1.0 && take < 1.0) {
            return;
        }
        let Some(moved) = zones.iter().rposition(|zone| zone == from) else { return };
        to.clone_into(&mut zones[moved]);
        *over.entry(from).or_default() -= 1.0;
        *over.entry(to).or_default() += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::types::discovery::v1::EndpointConditions;

    fn shares_of(of: &[(&str, f64)]) -> Shares {
        of.iter().map(|(zone, share)| ((*zone).to_owned(), *share)).collect()
    }

    /// The hints of endpoints in these zones; a capital is not ready.
    fn hinted(zones: &str, shares: &[(&str, f64)]) -> Result<String, String> {
        let endpoint = |zone: char| Endpoint {
            zone: Some(zone.to_lowercase().to_string()).filter(|z| z != "-"),
            conditions: Some(EndpointConditions { ready: Some(!zone.is_uppercase()), ..Default::default() }),
            ..Endpoint::default()
        };
        let mut endpoints: Vec<Endpoint> = zones.chars().map(endpoint).collect();
        hint(&mut endpoints.iter_mut().collect::<Vec<_>>(), &shares_of(shares))?;
        let shown = |e: &Endpoint| {
            let zones = e.hints.as_ref().and_then(|h| h.for_zones.as_ref());
            zones.map_or("_".to_owned(), |zones| zones[0].name.clone())
        };
        Ok(endpoints.iter().map(shown).collect())
    }

    const HALVES: &[(&str, f64)] = &[("a", 0.5), ("b", 0.5)];

    #[test]
    fn endpoints_serve_their_own_zone_if_shares_are_even() {
        assert_eq!(hinted("aabb", HALVES).unwrap(), "aabb");
        assert_eq!(hinted("aAbBab", HALVES).unwrap(), "a_b_ab", "those that are not ready have no hint");
    }

    #[test]
    fn zones_with_too_many_give_to_those_with_too_few() {
        assert_eq!(hinted("aaab", HALVES).unwrap(), "aabb");
        assert_eq!(hinted("aaaaaa", &[("a", 0.5), ("b", 0.25), ("c", 0.25)]), Err(
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
             (6 endpoints, 3 zones)".to_owned()
        ));
        let spread = hinted("aaaaaaaaaaaa", &[("a", 0.5), ("b", 0.25), ("c", 0.25)]).unwrap();
        let count = |zone| spread.chars().filter(|c| *c == zone).count();
        assert_eq!([count('a'), count('b'), count('c')], [6, 3, 3]);
    }

    #[test]
    fn without_what_it_takes_there_are_no_hints_but_a_reason() {
        let why = |zones, shares| hinted(zones, shares).unwrap_err();
        assert!(why("aabb", &[]).starts_with("Insufficient Node information"));
        assert_eq!(why("a", HALVES), "Insufficient number of endpoints (1 endpoints, 2 zones)");
        assert_eq!(why("ab-b", HALVES), "One or more endpoints do not have a zone specified");
        assert!(why("aab", HALVES).starts_with("Unable to allocate minimum"));
    }

    #[test]
    fn shares_need_zones_and_processors_of_all_nodes_that_count() {
        let node = |zone: &str, cpu: &str, ready: &str, label: &str| {
            let json = format!(
                r#"{{"metadata":{{"labels":{{"topology.kubernetes.io/zone":"{zone}","{label}":""}}}},
                "status":{{"allocatable":{{"cpu":"{cpu}"}},"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
            );
            serde_json::from_str::<NodeView>(&json).unwrap()
        };
        let of = |nodes: &[NodeView]| shares(nodes);
        let (one, three) = (node("a", "1", "True", "x"), node("b", "3000m", "True", "x"));
        assert_eq!(of(&[one.clone(), three.clone()]), shares_of(&[("a", 0.25), ("b", 0.75)]));
        let others = [node("c", "9", "False", "x"), node("c", "9", "True", CONTROL_PLANE[0])];
        assert_eq!(of(&[&[one.clone(), three.clone()][..], &others].concat()).len(), 2);
        assert!(of(std::slice::from_ref(&one)).is_empty(), "one zone");
        assert!(of(&[one.clone(), three.clone(), node("", "1", "True", "x")]).is_empty(), "no zone");
        assert!(of(&[one, three, node("a", "0", "True", "x")]).is_empty(), "no processor");
    }
}
