//! What a node does for a Service: pure, from views to [`Plan`]s by frontend.
//!
//! A frontend is an address (or any address of the node), a protocol and a port. Which endpoints serve it,
//! and whose source address is kept, follow the Service's traffic policies:
//! <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

use crate::addr::Cidr;
use crate::nft::Family;
use crate::views::{EndpointView, Protocol, ServicePort, ServiceView, SliceView};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub family: Family,
    /// `None` for a node port: every address of the node.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

/// An endpoint's address and port.
pub type Backend = (IpAddr, u16);

/// What happens to new connections to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing serves it: say so at once.
    Reject,
    /// Others would serve it, but not for this node: another node's business.
    Drop,
    Serve(Serve),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    pub reach: Reach,
    /// The Service's port, whose endpoints these are.
    pub port: String,
    /// Whether endpoints of this node are among what is chosen from, where the reach asks for them.
    pub near: bool,
    /// Who may connect, if not everyone; disjoint.
    pub sources: Vec<Cidr>,
}

impl Serve {
    /// What clients of this frontend are sent to: first those who may go anywhere, then, if there are any, those
    /// who must stay on the node.
    #[must_use]
    pub fn scopes(&self) -> (Scope, Option<Scope>) {
        match self.reach {
            Reach::Inside | Reach::Outside => (Scope::Cluster, None),
            Reach::InsideLocal => (Scope::Local, None),
            Reach::Preserve => (Scope::Cluster, self.near.then_some(Scope::Local)),
        }
    }

    /// The names of the groups that it chooses from.
    pub fn groups(&self, family: Family) -> impl Iterator<Item = GroupKey> {
        let (first, second) = self.scopes();
        let port = self.port.clone();
        std::iter::once(first).chain(second).map(move |scope| GroupKey { port: port.clone(), family, scope })
    }
}

/// Endpoints of a Service that are chosen from: all of the cluster that this node may use, or its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Cluster,
    Local,
}

/// Names a group of endpoints among those of its Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub port: String,
    pub family: Family,
    pub scope: Scope,
}

/// Endpoints from which one is chosen for each connection; every frontend of a port shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Sorted; never empty.
    pub backends: Vec<Backend>,
    /// For how many seconds a client stays with its endpoint.
    pub sticky: Option<u32>,
}

/// Which endpoints are used, and whose source address is replaced by the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A cluster address, any endpoint: sources outside of the pods' range are replaced.
    Inside,
    /// A cluster address, endpoints of this node.
    InsideLocal,
    /// From outside to any endpoint: every source is replaced, so that replies come back this way.
    Outside,
    /// From outside to endpoints of this node with the source kept; from inside the cluster to any.
    Preserve,
}

/// The node that plans.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub name: String,
    /// Its zone, if it is in one.
    pub zone: Option<String>,
    /// Addresses at which the node itself answers (the cluster's DNS): without endpoints they are left to
    /// it, not refused.
    pub answered_here: Vec<IpAddr>,
}

/// All that a node does for one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    pub frontends: BTreeMap<Frontend, Plan>,
    /// The endpoints that the frontends choose from.
    pub groups: BTreeMap<GroupKey, Group>,
    /// Endpoints of this node, which may reach themselves through the Service.
    pub hairpins: BTreeSet<IpAddr>,
    /// The port at which load balancers ask for health, and how many endpoints are on this node.
    pub health: Option<(u16, usize)>,
}

impl ServicePlan {
    /// Adds those of a port's endpoints that its frontends use.
    fn add_groups(&mut self, port: &ServicePort, family: Family, endpoints: Endpoints, sticky: Option<u32>) {
        let serves = self.frontends.iter().filter(|(f, _)| f.family == family).filter_map(|(_, p)| match p {
            Plan::Serve(serve) if serve.port == port.name => Some(serve),
            _ => None,
        });
        let used: BTreeSet<GroupKey> = serves.flat_map(|serve| serve.groups(family)).collect();
        let Endpoints { mut cluster, mut local } = endpoints;
        for key in used {
            let backends = match key.scope {
                Scope::Cluster => std::mem::take(&mut cluster),
                Scope::Local => std::mem::take(&mut local),
            };
            self.groups.insert(key, Group { backends, sticky });
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.hairpins.is_empty()
    }

    /// Every endpoint that a frontend may send to.
    #[must_use]
    pub fn backends(&self, frontend: &Frontend) -> BTreeSet<Backend> {
        let Some(Plan::Serve(serve)) = self.frontends.get(frontend) else { return BTreeSet::new() };
        let groups = serve.groups(frontend.family).filter_map(|key| self.groups.get(&key));
        groups.flat_map(|g| g.backends.iter().copied()).collect()
    }
}

/// Plans one Service from its slices.
pub fn plan<'a>(
    service: &ServiceView,
    slices: impl IntoIterator<Item = &'a SliceView> + Clone,
    node: &Node,
) -> ServicePlan {
    let mut planned = ServicePlan::default();
    if service.foreign || service.headless || service.cluster_ips.is_empty() {
        return planned;
    }
    for port in &service.ports {
        let mut families: Vec<Family> = service.cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
        families.dedup();
        for family in families {
            let endpoints = Endpoints::of(port, family, slices.clone(), node);
            planned.hairpins.extend(endpoints.local.iter().map(|(ip, _)| *ip));
            planned.frontends.extend(frontends(service, port, family, &endpoints));
            planned.add_groups(port, family, endpoints, service.affinity_seconds);
        }
    }
    // A balancer is to turn away from a node before its last endpoint is gone: only ready ones count.
    let health_port = service.health_check_port.filter(|_| service.external_local);
    planned.health = health_port.map(|port| (port, ready_here(slices, node)));
    planned.frontends.retain(|f, p| {
        !matches!(p, Plan::Reject | Plan::Drop) || !f.address.is_some_and(|a| node.answered_here.contains(&a))
    });
    planned
}

/// The frontends of one port in one family.
fn frontends(
    service: &ServiceView,
    port: &ServicePort,
    family: Family,
    endpoints: &Endpoints,
) -> Vec<(Frontend, Plan)> {
    let of_family =
        |ips: &[IpAddr]| ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect::<Vec<_>>();
    let inside = if service.internal_local { Reach::InsideLocal } else { Reach::Inside };
    let outside = if service.external_local { Reach::Preserve } else { Reach::Outside };
    let serve = |reach, sources: &[Cidr]| endpoints.serve(reach, &port.name, sources);
    let protocol = port.protocol;
    let frontend = |address, port| Frontend { family, address, protocol, port };
    let mut found = Vec::new();
    for ip in of_family(&service.balancer_ips) {
        found.push((frontend(Some(ip), port.port), serve(outside, &service.source_ranges)));
    }
    for ip in of_family(&service.external_ips) {
        found.push((frontend(Some(ip), port.port), serve(outside, &[])));
    }
    if let Some(node_port) = port.node_port {
        found.push((frontend(None, node_port), serve(outside, &[])));
    }
    for ip in of_family(&service.cluster_ips) {
        found.push((frontend(Some(ip), port.port), serve(inside, &[])));
    }
    found
}

/// The endpoints of one port in one family.
struct Endpoints {
    cluster: Vec<Backend>,
    local: Vec<Backend>,
}

impl Endpoints {
    /// Ready endpoints; if there are none, those that terminate but still serve. Judged for the cluster
    /// and for the node alone.
    fn of<'a>(
        port: &ServicePort,
        family: Family,
        slices: impl IntoIterator<Item = &'a SliceView>,
        node: &Node,
    ) -> Self {
        let mut all: Vec<(Backend, &EndpointView)> = Vec::new();
        for slice in slices {
            for found in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
                for endpoint in &slice.endpoints {
                    let ips = endpoint.addresses.iter().filter(|ip| Family::of(**ip) == family);
                    all.extend(ips.map(|ip| ((*ip, found.port), endpoint)));
                }
            }
        }
        let here = |e: &EndpointView| e.node.as_deref() == Some(node.name.as_str());
        Self { cluster: near(&all, node), local: usable(&all, here) }
    }

    fn serve(&self, reach: Reach, port: &str, sources: &[Cidr]) -> Plan {
        if self.cluster.is_empty() {
            return Plan::Reject;
        }
        let near = !self.local.is_empty();
        if reach == Reach::InsideLocal && !near {
            return Plan::Drop;
        }
        let near = near && matches!(reach, Reach::InsideLocal | Reach::Preserve);
        Plan::Serve(Serve { reach, port: port.to_owned(), near, sources: disjoint(sources) })
    }
}

/// The endpoints of the whole cluster, narrowed to those that are meant for this node, or else for its zone, if
/// every ready endpoint says for whom it is meant and one is meant for it.
fn near(all: &[(Backend, &EndpointView)], node: &Node) -> Vec<Backend> {
    let ready = || all.iter().map(|(_, e)| *e).filter(|e| e.ready);
    let narrow = |hints: fn(&EndpointView) -> &[String], own: &str| {
        let meant = |e: &EndpointView| hints(e).iter().any(|h| h == own);
        let applies = ready().all(|e| !hints(e).is_empty()) && ready().any(meant);
        applies.then(|| usable(all, |e| e.ready && meant(e)))
    };
    let of_node = narrow(|e| &e.for_nodes, &node.name);
    let of_zone = || narrow(|e| &e.for_zones, node.zone.as_deref()?);
    of_node.or_else(of_zone).unwrap_or_else(|| usable(all, |_| true))
}

/// How many endpoints of this node are ready.
fn ready_here<'a>(slices: impl IntoIterator<Item = &'a SliceView>, node: &Node) -> usize {
    let endpoints = slices.into_iter().flat_map(|s| &s.endpoints);
    let here = endpoints.filter(|e| e.ready && e.node.as_deref() == Some(node.name.as_str()));
    here.filter_map(|e| e.addresses.first()).collect::<BTreeSet<_>>().len()
}

fn usable(all: &[(Backend, &EndpointView)], whom: impl Fn(&EndpointView) -> bool) -> Vec<Backend> {
    let sorted = |keep: &dyn Fn(&EndpointView) -> bool| {
        let mut kept: Vec<Backend> =
            all.iter().filter(|(_, e)| whom(e) && keep(e)).map(|(b, _)| *b).collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    };
    let ready = sorted(&|e| e.ready);
    if ready.is_empty() { sorted(&|e| e.serving && e.terminating) } else { ready }
}

/// Ranges without those that lie in another one.
fn disjoint(ranges: &[Cidr]) -> Vec<Cidr> {
    let all: BTreeSet<Cidr> = ranges.iter().copied().collect();
    let within = |a: &Cidr, b: &Cidr| b != a && b.prefix_len() <= a.prefix_len() && b.contains(a.base());
    all.iter().filter(|a| !all.iter().any(|b| within(a, b))).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::SlicePort;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn service() -> ServiceView {
        ServiceView {
            namespace: "a".into(),
            name: "web".into(),
            cluster_ips: vec![ip("10.96.0.7")],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
            }],
            ..ServiceView::default()
        }
    }

    /// Endpoints written as `address node state [hint]`, state one of r(eady), s(erving and terminating), t. The
    /// hint `n1` is for the node and for the zone `z1`, the hint `z1` only for the zone.
    fn slice(endpoints: &[&str]) -> SliceView {
        let endpoint = |text: &&str| {
            let words: Vec<&str> = text.split(' ').collect();
            EndpointView {
                addresses: vec![ip(words[0])],
                node: Some(words[1].into()),
                ready: words[2] == "r",
                serving: words[2] != "t",
                terminating: words[2] != "r",
                for_nodes: words
                    .get(3)
                    .filter(|h| h.starts_with('n'))
                    .map(|h| (*h).into())
                    .into_iter()
                    .collect(),
                for_zones: words.get(3).map(|h| h.replace('n', "z")).into_iter().collect(),
                hostname: None,
            }
        };
        SliceView {
            namespace: "a".into(),
            name: "web-1".into(),
            service: "web".into(),
            ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn planned(service: &ServiceView, slice: &SliceView) -> BTreeMap<String, String> {
        let node = Node { name: "n1".into(), zone: Some("z1".into()), ..Node::default() };
        let planned = plan(service, [slice], &node);
        let show = |p: &Plan| match p {
            Plan::Serve(s) => {
                let group = |key: GroupKey| {
                    let ips = planned.groups[&key].backends.iter().map(|(ip, port)| format!("{ip}:{port}"));
                    format!("{:?} {}", key.scope, ips.collect::<Vec<_>>().join(","))
                };
                let groups: Vec<String> = s.groups(Family::Ip).map(group).collect();
                format!("{:?}: {}", s.reach, groups.join("; "))
            }
            other => format!("{other:?}"),
        };
        let name = |f: &Frontend| format!("{}:{}", f.address.map_or("*".into(), |a| a.to_string()), f.port);
        planned.frontends.iter().map(|(f, p)| (name(f), show(p))).collect()
    }

    #[test]
    fn traffic_goes_to_the_target_port_of_ready_endpoints() {
        let found = planned(&service(), &slice(&["10.1.0.3 n1 r", "10.1.0.2 n2 r", "10.1.0.4 n1 s"]));
        assert_eq!(found["10.96.0.7:80"], "Inside: Cluster 10.1.0.2:8080,10.1.0.3:8080");
        assert_eq!(found["*:30080"], "Outside: Cluster 10.1.0.2:8080,10.1.0.3:8080");
    }

    #[test]
    fn terminating_endpoints_serve_when_none_is_ready() {
        let found = planned(&service(), &slice(&["10.1.0.3 n1 t", "10.1.0.4 n1 s"]));
        assert_eq!(found["10.96.0.7:80"], "Inside: Cluster 10.1.0.4:8080");
    }

    #[test]
    fn hints_are_followed_if_all_have_them_and_one_fits() {
        let chosen = |endpoints: &[&str]| planned(&service(), &slice(endpoints))["10.96.0.7:80"].clone();
        let zones = ["10.1.0.1 n1 r z1", "10.1.0.2 n2 r z2", "10.1.0.3 n3 r z1"];
        assert_eq!(chosen(&zones), "Inside: Cluster 10.1.0.1:8080,10.1.0.3:8080");
        assert_eq!(chosen(&["10.1.0.1 n1 r n1", "10.1.0.2 n2 r n2"]), "Inside: Cluster 10.1.0.1:8080");
        let no_node = ["10.1.0.1 n4 r z1", "10.1.0.2 n2 r n2"];
        assert_eq!(
            chosen(&no_node),
            "Inside: Cluster 10.1.0.1:8080",
            "no node hint everywhere: the zones count"
        );
        let one_without = ["10.1.0.1 n1 r z1", "10.1.0.2 n2 r"];
        assert_eq!(chosen(&one_without), "Inside: Cluster 10.1.0.1:8080,10.1.0.2:8080");
        assert_eq!(
            chosen(&["10.1.0.2 n2 r z2"]),
            "Inside: Cluster 10.1.0.2:8080",
            "none is meant for this node"
        );
        let not_ready = ["10.1.0.1 n1 r z1", "10.1.0.2 n2 t", "10.1.0.3 n1 s z1"];
        assert_eq!(chosen(&not_ready), "Inside: Cluster 10.1.0.1:8080", "only ready ones are asked");
    }

    #[test]
    fn without_endpoints_it_rejects() {
        let found = planned(&service(), &slice(&["10.1.0.3 n1 t"]));
        assert_eq!(found["10.96.0.7:80"], "Reject");
        assert_eq!(found["*:30080"], "Reject");
    }

    #[test]
    fn local_policies() {
        let mut service = service();
        service.internal_local = true;
        service.external_local = true;
        let found = planned(&service, &slice(&["10.1.0.3 n1 r", "10.1.0.2 n2 r"]));
        assert_eq!(found["10.96.0.7:80"], "InsideLocal: Local 10.1.0.3:8080");
        assert_eq!(found["*:30080"], "Preserve: Cluster 10.1.0.2:8080,10.1.0.3:8080; Local 10.1.0.3:8080");
        let found = planned(&service, &slice(&["10.1.0.2 n2 r"]));
        assert_eq!(found["10.96.0.7:80"], "Drop");
        assert_eq!(found["*:30080"], "Preserve: Cluster 10.1.0.2:8080");
    }

    #[test]
    fn ports_are_matched_by_name_and_protocol() {
        let mut service = service();
        service.ports[0].name = "other".into();
        assert_eq!(planned(&service, &slice(&["10.1.0.2 n2 r"]))["10.96.0.7:80"], "Reject");
    }

    #[test]
    fn headless_and_foreign_services_are_left_alone() {
        let headless = ServiceView { headless: true, cluster_ips: vec![], ..service() };
        assert!(planned(&headless, &slice(&["10.1.0.2 n2 r"])).is_empty());
        let foreign = ServiceView { foreign: true, ..service() };
        assert!(planned(&foreign, &slice(&["10.1.0.2 n2 r"])).is_empty());
    }

    #[test]
    fn an_address_answered_here_is_refused_to_nobody() {
        let node = Node { name: "n1".into(), answered_here: vec![ip("10.96.0.7")], ..Node::default() };
        let empty = slice(&[]);
        let mut service = service();
        service.ports[0].node_port = None;
        assert!(plan(&service, [&empty], &node).frontends.is_empty());
        let served = slice(&["10.1.0.2 n2 r"]);
        assert_eq!(plan(&service, [&served], &node).frontends.len(), 1);
    }

    #[test]
    fn source_ranges_do_not_overlap() {
        let ranges: Vec<Cidr> =
            ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "10.0.0.0/8"].map(|r| r.parse().unwrap()).into();
        assert_eq!(
            disjoint(&ranges).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "192.168.0.0/16"]
        );
    }
}
