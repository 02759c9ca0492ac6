//! Which ReplicaSet gets how many replicas. Pure.
//!
//! Each function answers with the wanted numbers of those sets that change, or with nothing when there is
//! nothing to do now: status changes will ask again.

use super::model::{DESIRED_REPLICAS, MAX_REPLICAS, Set, Sets, Wanted};
use krate_api::types::apps::v1::Deployment;

/// A set, by name, and the number that it is to have.
pub type Scale = (String, i32);

fn to(set: &Set, replicas: i32) -> Scale {
    (set.name().to_owned(), replicas)
}

/// The number for the new set: as many as the surge allows beside all others, and no more than wanted.
#[must_use]
pub fn new_replicas(deployment: &Deployment, total: i32, new: i32) -> i32 {
    let wanted = deployment.replicas();
    if deployment.is_recreate() {
        return wanted;
    }
    let room = wanted + deployment.max_surge() - total;
    if room <= 0 { new } else { new + room.min(wanted - new) }
}

/// Brings the new set nearer to the wanted number.
#[must_use]
pub fn grow_new(deployment: &Deployment, sets: &Sets) -> Vec<Scale> {
    let Some(new) = &sets.new else { return vec![] };
    let wanted = deployment.replicas();
    let number = match new.replicas().cmp(&wanted) {
        std::cmp::Ordering::Equal => return vec![],
        std::cmp::Ordering::Greater => wanted,
        std::cmp::Ordering::Less => new_replicas(deployment, sets.total(), new.replicas()),
    };
    if number == new.replicas() { vec![] } else { vec![to(new, number)] }
}

/// Takes from the old sets what availability allows: first pods that do no work anyway, then the oldest.
#[must_use]
pub fn shrink_old(deployment: &Deployment, sets: &Sets) -> Vec<Scale> {
    if sets.old_total() == 0 {
        return vec![];
    }
    let min_available = deployment.replicas() - deployment.max_unavailable();
    let new_unavailable = sets.new.as_ref().map_or(0, |n| n.replicas() - n.available());
    let may_go = sets.total() - min_available - new_unavailable;
    if may_go <= 0 {
        return vec![];
    }
    let mut numbers: Vec<i32> = sets.old.iter().map(Set::replicas).collect();
    let mut gone = 0;
    for (set, number) in sets.old.iter().zip(&mut numbers) {
        let idle = (*number - set.available()).max(0);
        let take = idle.min(may_go - gone);
        *number -= take;
        gone += take;
    }
    // A set that was scaled a moment ago may still report the pods that it has to give up: those are spent.
    let sure: i32 = sets.iter().map(|s| s.available().min(s.replicas())).sum();
    let mut spare = (sure - min_available).max(0);
    for number in &mut numbers {
        let take = spare.min(*number);
        *number -= take;
        spare -= take;
    }
    changed(&sets.old, &numbers)
}

/// Takes everything from the old sets.
#[must_use]
pub fn drop_old(sets: &Sets) -> Vec<Scale> {
    changed(&sets.old, &vec![0; sets.old.len()])
}

fn changed(sets: &[Set], numbers: &[i32]) -> Vec<Scale> {
    sets.iter().zip(numbers).filter(|(s, n)| s.replicas() != **n).map(|(s, n)| to(s, *n)).collect()
}

/// Whether the wanted number was changed since the sets were scaled.
#[must_use]
pub fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = deployment.replicas();
    sets.iter().any(|s| s.replicas() > 0 && s.number(DESIRED_REPLICAS).is_some_and(|n| n != wanted))
}

/// Spreads a change of the wanted number over the sets in proportion to their sizes, so that a rollout in
/// progress keeps its balance. What rounding leaves goes to the largest. Sets whose number stays are
/// answered too when their annotations are behind (see [`annotations_differ`]).
#[must_use]
pub fn spread(deployment: &Deployment, sets: &Sets) -> Vec<Scale> {
    let wanted = deployment.replicas();
    if let Some(only) = active_or_latest(sets) {
        return vec![to(only, wanted)];
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(new, wanted)) {
        return drop_old(sets);
    }
    if deployment.is_recreate() {
        return vec![];
    }
    let mut active: Vec<&Set> = sets.iter().filter(|s| s.replicas() > 0).collect();
    let total: i32 = active.iter().map(|s| s.replicas()).sum();
    let allowed = if wanted > 0 { wanted + deployment.max_surge() } else { 0 };
    let to_add = allowed - total;
    let newest_first = to_add > 0;
    active.sort_by(|a, b| {
        let age = a.object.metadata.creation_timestamp.cmp(&b.object.metadata.creation_timestamp);
        let age = if newest_first { age.reverse() } else { age };
        b.replicas().cmp(&a.replicas()).then(age)
    });
    let mut added = 0;
    let mut numbers = vec![];
    for set in &active {
        let share = proportion(set, deployment, to_add, added);
        added += share;
        numbers.push(set.replicas() + share);
    }
    if let Some(first) = numbers.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    active.iter().zip(numbers).map(|(s, n)| to(s, n)).collect()
}

/// The one set that matters when at most one has pods.
fn active_or_latest(sets: &Sets) -> Option<&Set> {
    let mut active = sets.iter().filter(|s| s.replicas() > 0);
    match (active.next(), active.next()) {
        (None, _) => sets.new.as_ref().or(sets.old.last()),
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// Everything that is wanted runs and is available in this set.
fn is_saturated(set: &Set, wanted: i32) -> bool {
    set.number(DESIRED_REPLICAS) == Some(wanted) && set.replicas() == wanted && set.available() == wanted
}

fn proportion(set: &Set, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if set.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (fraction(set, deployment), to_add - added);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// How much a set would grow (or shrink) if it kept its share of the whole.
fn fraction(set: &Set, deployment: &Deployment) -> i32 {
    if deployment.replicas() == 0 {
        return -set.replicas();
    }
    let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = set.number(MAX_REPLICAS).filter(|n| *n > 0).unwrap_or(status);
    if before <= 0 {
        return 0;
    }
    let most = deployment.replicas() + deployment.max_surge();
    let size = f64::from(set.replicas()) * f64::from(most) / f64::from(before);
    size.round() as i32 - set.replicas()
}

/// Whether a set does not yet say what the Deployment wanted when it was scaled.
#[must_use]
pub fn annotations_differ(deployment: &Deployment, set: &Set) -> bool {
    let wanted = deployment.replicas();
    set.number(DESIRED_REPLICAS) != Some(wanted)
        || set.number(MAX_REPLICAS) != Some(wanted + deployment.max_surge())
}

/// Old sets to remove: those beyond the history limit that have no pods, the lowest revisions first.
#[must_use]
pub fn beyond_history(deployment: &Deployment, sets: &Sets) -> Vec<Set> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
    let Some(limit) = limit.filter(|l| *l != i32::MAX) else { return vec![] };
    let mut old: Vec<&Set> = sets.old.iter().filter(|s| !s.is_deleting()).collect();
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.sort_by_key(|s| s.revision());
    let settled = |s: &&&Set| {
        let observed = s.object.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        s.actual() == 0 && s.replicas() == 0 && s.object.metadata.generation.unwrap_or(0) <= observed
    };
    old[..excess].iter().filter(settled).map(|s| (*s).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{deployment, named};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use krate_api::meta::Time;
    use krate_api::types::apps::v1::ReplicaSet;
    use std::sync::Arc;

    /// A set with a wanted number, available pods, and the Deployment's number when it was scaled.
    fn set(name: &str, replicas: i32, available: i32, desired: i32, max: i32) -> Set {
        let mut rs = ReplicaSet::default();
        named(&mut rs, name);
        let second = name.bytes().map(i64::from).sum();
        rs.metadata.creation_timestamp = Some(Time(jiff::Timestamp::from_second(second).unwrap()));
        rs.metadata.annotations = Some(
            [(DESIRED_REPLICAS.to_owned(), desired.to_string()), (MAX_REPLICAS.to_owned(), max.to_string())]
                .into(),
        );
        rs.spec.get_or_insert_default().replicas = Some(replicas);
        let status = rs.status.get_or_insert_default();
        status.replicas = replicas;
        status.available_replicas = Some(available);
        Set { object: Arc::new(rs) }
    }

    fn sets(new: Option<Set>, old: Vec<Set>) -> Sets {
        Sets { new, old }
    }

    fn limited(replicas: i32, surge: i32, unavailable: i32) -> krate_api::types::apps::v1::Deployment {
        let mut d = deployment("web", replicas);
        let strategy = d.spec.as_mut().unwrap().strategy.as_mut().unwrap();
        let rolling = strategy.rolling_update.as_mut().unwrap();
        rolling.max_surge = Some(IntOrString::Int(surge));
        rolling.max_unavailable = Some(IntOrString::Int(unavailable));
        d
    }

    #[test]
    fn the_new_set_grows_within_the_surge() {
        let d = limited(10, 3, 2);
        let s = sets(Some(set("n", 0, 0, 10, 13)), vec![set("a", 10, 10, 10, 13)]);
        assert_eq!(grow_new(&d, &s), [("n".to_owned(), 3)]);
        assert_eq!(shrink_old(&d, &s), [("a".to_owned(), 8)]);
    }

    #[test]
    fn unhealthy_old_pods_go_first_and_availability_is_kept() {
        let d = limited(10, 3, 2);
        let s = sets(Some(set("n", 5, 0, 10, 13)), vec![set("a", 4, 0, 10, 13), set("b", 4, 4, 10, 13)]);
        // 13 in all, at least 8 must stay available, 5 new ones are not: nothing may go.
        assert_eq!(shrink_old(&d, &s), []);
        let s = sets(Some(set("n", 5, 5, 10, 13)), vec![set("a", 4, 0, 10, 13), set("b", 4, 4, 10, 13)]);
        // Four idle ones, and one of the nine available.
        assert_eq!(shrink_old(&d, &s), [("a".to_owned(), 0), ("b".to_owned(), 3)]);
    }

    #[test]
    fn pods_that_a_set_has_to_give_up_are_not_given_twice() {
        let d = limited(6, 2, 1);
        // The old set was told to go from five to three and has not done it yet.
        let s = sets(Some(set("n", 5, 3, 6, 8)), vec![set("a", 3, 5, 6, 8)]);
        assert_eq!(shrink_old(&d, &s), [("a".to_owned(), 2)]);
    }

    #[test]
    fn a_change_in_mid_rollout_is_spread_in_proportion() {
        // The documentation's example: 10 replicas, maxSurge 3, maxUnavailable 2, scaled to 15 while the
        // new set has 5 and the old one 8: 3 of the 5 more go to the old, 2 to the new.
        let d = limited(15, 3, 2);
        let s = sets(Some(set("n", 5, 0, 10, 13)), vec![set("a", 8, 8, 10, 13)]);
        assert!(is_scaling(&d, &s));
        assert_eq!(spread(&d, &s), [("a".to_owned(), 11), ("n".to_owned(), 7)]);
    }

    #[test]
    fn one_active_set_takes_it_all() {
        let d = limited(4, 1, 0);
        let s = sets(Some(set("n", 10, 10, 10, 11)), vec![set("a", 0, 0, 10, 11)]);
        assert_eq!(spread(&d, &s), [("n".to_owned(), 4)]);
        let d = limited(0, 1, 0);
        let s = sets(Some(set("n", 5, 0, 10, 13)), vec![set("a", 8, 8, 10, 13)]);
        let total: i32 = spread(&d, &s).iter().map(|(_, n)| n).sum();
        assert_eq!(total, 0);
    }
}
