//! How wanted endpoints are laid out in slices: with as few writes as possible. Pure.
//!
//! Endpoints stay in the slice that they are in. New ones fill the slices that change anyway, then one
//! slice that has room, then new slices of [`MAX_ENDPOINTS`]. Slices that are left empty go, but the last.

use super::members::Family;
use krate_api::meta::OwnerReference;
use krate_api::types::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Endpoints in one slice.
pub const MAX_ENDPOINTS: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What all endpoints of a slice share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub family: Family,
    /// Name, protocol, number, application protocol; sorted.
    ports: Vec<(String, String, Option<i32>, Option<String>)>,
}

impl Group {
    #[must_use]
    pub fn new(family: Family, ports: &[EndpointPort]) -> Self {
        let port = |p: &EndpointPort| {
            let text = |t: &Option<String>, or: &str| t.clone().unwrap_or_else(|| or.to_owned());
            (text(&p.name, ""), text(&p.protocol, "TCP"), p.port, p.app_protocol.clone())
        };
        let mut ports: Vec<_> = ports.iter().map(port).collect();
        ports.sort();
        Self { family, ports }
    }

    fn of(slice: &EndpointSlice) -> Self {
        let family = if slice.address_type == Family::V6.as_str() { Family::V6 } else { Family::V4 };
        Self::new(family, slice.ports.as_deref().unwrap_or_default())
    }

    fn endpoint_ports(&self) -> Vec<EndpointPort> {
        let port =
            |(name, protocol, port, app): &(String, String, Option<i32>, Option<String>)| EndpointPort {
                name: Some(name.clone()),
                protocol: Some(protocol.clone()),
                port: *port,
                app_protocol: app.clone(),
            };
        self.ports.iter().map(port).collect()
    }
}

/// Whose slices they are: the parts that all of them have alike.
#[derive(Clone, Debug)]
pub struct Owner {
    pub namespace: String,
    /// Generated names begin with it.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub reference: OwnerReference,
}

/// Wanted endpoints by group, in the order in which they are to fill slices.
pub type Wanted = BTreeMap<Group, Vec<Endpoint>>;

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Lays out `wanted`. Families in `families` keep at least one slice, even an empty one.
#[must_use]
pub fn plan(owner: &Owner, families: &[Family], mut wanted: Wanted, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut groups: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        groups.entry(Group::of(slice)).or_default().push(slice);
    }
    wanted.retain(|_, endpoints| !endpoints.is_empty());
    for family in families {
        if !wanted.keys().any(|group| group.family == *family) {
            wanted.entry(Group::new(*family, &[])).or_default();
        }
    }
    let mut plan = Plan::default();
    for (group, slices) in &groups {
        if !wanted.contains_key(group) {
            plan.delete.extend(slices.iter().map(|s| (*s).clone()));
        }
    }
    for (group, endpoints) in wanted {
        let slices = groups.remove(&group).unwrap_or_default();
        lay_out(owner, &group, endpoints, &slices, &mut plan);
    }
    plan
}

/// One existing slice while it is being laid out anew.
struct Page<'a> {
    slice: &'a Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn lay_out(
    owner: &Owner,
    group: &Group,
    endpoints: Vec<Endpoint>,
    slices: &[&Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let placeholder = endpoints.is_empty();
    let (mut pages, mut fresh) = keep(owner, endpoints, slices);
    fill(&mut pages, &mut fresh);
    let mut kept = 0;
    for page in pages {
        if page.endpoints.is_empty() && !(placeholder && kept == 0) {
            plan.delete.push(page.slice.clone());
            continue;
        }
        kept += 1;
        if page.changed {
            plan.update.push(dress(owner, group, (**page.slice).clone(), page.endpoints));
        }
    }
    while !fresh.is_empty() {
        let rest = fresh.split_off(fresh.len().min(MAX_ENDPOINTS));
        plan.create.push(create(owner, group, fresh));
        fresh = rest;
        kept += 1;
    }
    if placeholder && kept == 0 {
        plan.create.push(create(owner, group, vec![]));
    }
}

/// Leaves in each slice what is still wanted, in its present state; returns what is in none.
fn keep<'a>(
    owner: &Owner,
    endpoints: Vec<Endpoint>,
    slices: &[&'a Arc<EndpointSlice>],
) -> (Vec<Page<'a>>, Vec<Endpoint>) {
    let mut order = BTreeMap::new();
    for (at, endpoint) in endpoints.into_iter().enumerate() {
        order.insert(identity(&endpoint), (at, endpoint));
    }
    let page = |slice: &&'a Arc<EndpointSlice>| {
        let old = slice.endpoints.as_deref().unwrap_or_default();
        let kept: Vec<_> = old.iter().filter_map(|e| order.remove(&identity(e)).map(|(_, e)| e)).collect();
        let changed = kept != old || differs(owner, slice);
        Page { slice, endpoints: kept, changed }
    };
    let pages = slices.iter().map(page).collect();
    let mut fresh: Vec<_> = order.into_values().collect();
    fresh.sort_by_key(|(at, _)| *at);
    (pages, fresh.into_iter().map(|(_, e)| e).collect())
}

/// An endpoint is the same for as long as its pod (or its host) and its address are.
fn identity(endpoint: &Endpoint) -> (String, Vec<String>) {
    let target = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
    (target, endpoint.addresses.clone())
}

fn fill(pages: &mut [Page], fresh: &mut Vec<Endpoint>) {
    let mut changing: Vec<&mut Page> =
        pages.iter_mut().filter(|p| p.changed && !p.endpoints.is_empty()).collect();
    // The fullest first: the others may run empty.
    changing.sort_by_key(|p| std::cmp::Reverse(p.endpoints.len()));
    for page in changing {
        let room = MAX_ENDPOINTS.saturating_sub(page.endpoints.len());
        page.endpoints.extend(fresh.drain(..room.min(fresh.len())));
    }
    let left = fresh.len() % MAX_ENDPOINTS;
    if left > 0 {
        let room = |p: &&mut Page| p.endpoints.len() + left <= MAX_ENDPOINTS;
        let fullest = pages.iter_mut().filter(room).max_by_key(|p| p.endpoints.len());
        if let Some(page) = fullest {
            page.endpoints.extend(fresh.drain(fresh.len() - left..));
            page.changed = true;
        }
    }
}

/// Whether a slice lacks labels, annotations or the owner that it should have.
fn differs(owner: &Owner, slice: &EndpointSlice) -> bool {
    let meta = &slice.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    meta.labels.as_ref() != Some(&owner.labels)
        || owner.annotations.iter().any(|(k, v)| annotations.get(k) != Some(v))
        || !meta.owner_references.iter().flatten().any(|o| o.uid == owner.reference.uid)
}

fn create(owner: &Owner, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut slice = EndpointSlice::default();
    slice.metadata.namespace = Some(owner.namespace.clone());
    slice.metadata.generate_name = Some(format!("{}-", owner.name));
    group.family.as_str().clone_into(&mut slice.address_type);
    dress(owner, group, slice, endpoints)
}

fn dress(owner: &Owner, group: &Group, mut slice: EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
    slice.metadata.labels = Some(owner.labels.clone());
    for (key, value) in &owner.annotations {
        slice.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    let owners = slice.metadata.owner_references.get_or_insert_default();
    if !owners.iter().any(|o| o.uid == owner.reference.uid) {
        *owners = vec![owner.reference.clone()];
    }
    slice.endpoints = Some(endpoints);
    slice.ports = Some(group.endpoint_ports());
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            labels: [(SERVICE_NAME.to_owned(), "web".to_owned())].into(),
            annotations: BTreeMap::new(),
            reference: OwnerReference { uid: "u".to_owned(), ..OwnerReference::default() },
        }
    }

    fn endpoints(range: std::ops::Range<usize>) -> Vec<Endpoint> {
        range
            .map(|n| Endpoint {
                addresses: vec![format!("10.0.{}.{}", n / 250, n % 250)],
                ..Endpoint::default()
            })
            .collect()
    }

    fn group() -> Group {
        Group::new(Family::V4, &[EndpointPort { port: Some(80), ..EndpointPort::default() }])
    }

    /// Carries a plan out.
    fn apply(plan: Plan, mut slices: Vec<Arc<EndpointSlice>>) -> Vec<Arc<EndpointSlice>> {
        for gone in plan.delete {
            slices.retain(|s| !Arc::ptr_eq(s, &gone));
        }
        for update in plan.update {
            let at = slices.iter().position(|s| s.metadata.name == update.metadata.name).unwrap();
            slices[at] = Arc::new(update);
        }
        let taken = slices.iter().filter_map(|s| s.metadata.name.as_ref()?.parse::<usize>().ok()).max();
        for (n, mut new) in plan.create.into_iter().enumerate() {
            new.metadata.name = Some((taken.map_or(0, |t| t + 1) + n).to_string());
            slices.push(Arc::new(new));
        }
        slices
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect()
    }

    fn run(range: std::ops::Range<usize>, slices: Vec<Arc<EndpointSlice>>) -> Vec<Arc<EndpointSlice>> {
        let wanted = Wanted::from([(group(), endpoints(range))]);
        apply(plan(&owner(), &[Family::V4], wanted, &slices), slices)
    }

    #[test]
    fn slices_hold_a_hundred_and_small_changes_touch_one() {
        let slices = run(0..250, vec![]);
        assert_eq!(sizes(&slices), [100, 100, 50]);
        let wanted = Wanted::from([(group(), endpoints(0..251))]);
        let small = plan(&owner(), &[Family::V4], wanted, &slices);
        assert_eq!((small.create.len(), small.update.len(), small.delete.len()), (0, 1, 0));
        let none = plan(&owner(), &[Family::V4], Wanted::from([(group(), endpoints(0..250))]), &slices);
        assert_eq!((none.create.len(), none.update.len(), none.delete.len()), (0, 0, 0));
    }

    #[test]
    fn a_slice_left_empty_goes_but_a_service_keeps_one() {
        let slices = run(0..150, vec![]);
        let slices = run(0..100, slices);
        assert_eq!(sizes(&slices), [100]);
        let slices = run(0..0, slices);
        assert_eq!(sizes(&slices), [0]);
        assert_eq!(slices[0].ports, Some(vec![]), "the placeholder has no ports");
        let slices = run(0..3, slices);
        assert_eq!(sizes(&slices), [3]);
    }

    proptest::proptest! {
        #[test]
        fn any_history_ends_with_exactly_the_wanted(ranges in proptest::collection::vec((0usize..300, 0usize..300), 1..6)) {
            let mut slices = vec![];
            let mut last = 0..0;
            for (from, length) in ranges {
                last = from..from + length;
                slices = run(last.clone(), slices);
            }
            let mut have: Vec<String> =
                slices.iter().flat_map(|s| s.endpoints.clone().unwrap()).map(|e| e.addresses[0].clone()).collect();
            let mut want: Vec<String> = endpoints(last).iter().map(|e| e.addresses[0].clone()).collect();
            have.sort();
            want.sort();
            proptest::prop_assert_eq!(have, want);
            proptest::prop_assert!(sizes(&slices).iter().all(|n| *n <= MAX_ENDPOINTS));
        }
    }
}
