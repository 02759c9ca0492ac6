//! The names of the cluster: what a question is answered with. Pure.
//!
//! Comparisons ignore case; answers carry the question's name as it was asked. A name that does not exist
//! is told apart from one that has nothing of the type asked for.

use crate::views::{EndpointView, ServicePort, ServiceView, SliceView};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// How long answers may be kept, in seconds; also those about what does not exist.
pub const TTL: u32 = 30;
/// The version of the specification, for `dns-version`.
const SCHEMA_VERSION: &str = "1.1.0";
/// Longest chain of ExternalName Services that is followed.
const MAX_ALIASES: usize = 8;

/// Where the answers come from.
pub trait Records {
    fn namespace(&self, name: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceView>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceView>>;
    /// The Services with this cluster address.
    fn services_at(&self, address: IpAddr) -> Vec<Arc<ServiceView>>;
    /// The slices that have an endpoint with this address.
    fn slices_with(&self, address: IpAddr) -> Vec<Arc<SliceView>>;
}

/// What a question is answered with.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Ours.
    Here(Here),
    /// Not a name of the cluster.
    Elsewhere,
    /// An address of nobody in the cluster: others may know it, else it does not exist.
    UnknownAddress,
}

#[derive(Debug, PartialEq)]
pub struct Here {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub additionals: Vec<Record>,
    /// An alias leads out of the cluster to this name, which is still to be resolved.
    pub follow: Option<Name>,
}

/// The cluster's domain.
pub struct Zone {
    domain: Name,
    labels: Vec<String>,
    dns: Vec<IpAddr>,
    serial: u32,
}

/// The dnsSEC-less outcome of one lookup: records, or that the name does not exist.
type Found = Option<Vec<RData>>;

impl Zone {
    /// `dns` are the addresses of the name server itself; `now` (seconds) makes the zone's serial number.
    #[must_use]
    pub fn new(domain: &Name, dns: &[IpAddr], now: i64) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Self {
            labels: labels(&domain),
            domain,
            dns: dns.to_vec(),
            serial: u32::try_from(now.rem_euclid(1 << 32)).unwrap_or(0),
        }
    }

    /// Answers a question. `turn` rotates lists of addresses, so that clients share the load.
    pub fn answer(&self, name: &Name, kind: RecordType, records: &dyn Records, turn: u64) -> Answer {
        let labels = labels(name);
        let Some(relative) = labels.strip_suffix(self.labels.as_slice()) else {
            return match address_of(name) {
                Some(address) => self.reverse(name, kind, address, records),
                None => Answer::Elsewhere,
            };
        };
        Answer::Here(self.forward(name, relative, kind, records, turn))
    }

    /// The record that negative answers carry.
    #[must_use]
    pub fn soa(&self) -> Record {
        let (server, contact) = (self.under(&["ns", "dns"]), self.under(&["hostmaster"]));
        let soa = SOA::new(server, contact, self.serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(soa))
    }

    fn forward(
        &self,
        name: &Name,
        relative: &[String],
        kind: RecordType,
        records: &dyn Records,
        turn: u64,
    ) -> Here {
        let mut here =
            Here { code: ResponseCode::NoError, answers: vec![], additionals: vec![], follow: None };
        let (mut owner, mut relative) = (name.clone(), relative.to_vec());
        for _ in 0..MAX_ALIASES {
            if let Some(target) = alias(&relative, records) {
                here.answers.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
                if kind == RecordType::CNAME {
                    return here;
                }
                match labels(&target).strip_suffix(self.labels.as_slice()) {
                    Some(next) => relative = next.to_vec(),
                    None => {
                        here.follow = Some(target);
                        return here;
                    }
                }
                owner = target;
                continue;
            }
            let words: Vec<&str> = relative.iter().map(String::as_str).collect();
            match self.lookup(&words, kind, records) {
                Some(found) => self.complete(&mut here, &owner, rotated(found, turn), records),
                None => here.code = ResponseCode::NXDomain,
            }
            return here;
        }
        here.code = ResponseCode::ServFail;
        here
    }

    /// Adds what was found, and the addresses of SRV targets.
    fn complete(&self, here: &mut Here, owner: &Name, found: Vec<RData>, records: &dyn Records) {
        let mut targets: Vec<&Name> = found
            .iter()
            .filter_map(|data| match data {
                RData::SRV(srv) => Some(&srv.target),
                _ => None,
            })
            .collect();
        targets.dedup();
        for target in targets {
            let labels = labels(target);
            let Some(relative) = labels.strip_suffix(self.labels.as_slice()) else { continue };
            let words: Vec<&str> = relative.iter().map(String::as_str).collect();
            for kind in [RecordType::A, RecordType::AAAA] {
                let found = self.lookup(&words, kind, records).unwrap_or_default();
                here.additionals
                    .extend(found.into_iter().map(|d| Record::from_rdata(target.clone(), TTL, d)));
            }
        }
        here.answers.extend(found.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL, data)));
    }

    /// What there is under a name relative to the domain, of one type.
    fn lookup(&self, words: &[&str], kind: RecordType, records: &dyn Records) -> Found {
        match words {
            [] => Some(match kind {
                RecordType::SOA => vec![self.soa().data],
                RecordType::NS => vec![RData::NS(NS(self.under(&["ns", "dns"])))],
                _ => vec![],
            }),
            ["dns-version"] => Some(match kind {
                RecordType::TXT => vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))],
                _ => vec![],
            }),
            ["dns"] | ["svc"] | ["pod"] => Some(vec![]),
            ["ns", "dns"] => Some(of_type(self.dns.iter().copied(), kind)),
            [namespace, "svc" | "pod"] => records.namespace(namespace).then(Vec::new),
            [dashed, namespace, "pod"] => {
                let address = undash(dashed).filter(|_| records.namespace(namespace))?;
                Some(of_type([address], kind))
            }
            [service, namespace, "svc"] => self.service(namespace, service, kind, records),
            [proto, service, namespace, "svc"] if proto.starts_with('_') => {
                records.service(namespace, service).map(|_| vec![])
            }
            [host, service, namespace, "svc"] => {
                records.service(namespace, service)?;
                let slices = records.slices(namespace, service);
                let named = ready(&slices).filter(|(e, ip)| hostname(e, *ip) == *host).map(|(_, ip)| ip);
                let addresses: BTreeSet<IpAddr> = named.collect();
                (!addresses.is_empty()).then(|| of_type(addresses, kind))
            }
            [port, proto, service, namespace, "svc"] => {
                let (port, proto) = (port.strip_prefix('_')?, proto.strip_prefix('_')?);
                let view = records.service(namespace, service)?;
                let wanted = |p: &ServicePort| p.name == port && p.protocol.label() == proto;
                let found = self.srv(&view, wanted, records);
                (!found.is_empty()).then(|| if kind == RecordType::SRV { found } else { vec![] })
            }
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str, kind: RecordType, records: &dyn Records) -> Found {
        let service = records.service(namespace, name)?;
        let addresses: BTreeSet<IpAddr> = if service.headless {
            ready(&records.slices(namespace, name)).map(|(_, ip)| ip).collect()
        } else {
            service.cluster_ips.iter().copied().collect()
        };
        if service.headless && addresses.is_empty() {
            return None;
        }
        match kind {
            RecordType::SRV => Some(self.srv(&service, |_| true, records)),
            _ => Some(of_type(addresses, kind)),
        }
    }

    /// The SRV records of the ports that are wanted.
    fn srv(
        &self,
        service: &ServiceView,
        wanted: impl Fn(&ServicePort) -> bool,
        records: &dyn Records,
    ) -> Vec<RData> {
        let base = [service.name.as_str(), service.namespace.as_str(), "svc"];
        let mut targets: BTreeSet<(u16, Vec<String>)> = BTreeSet::new();
        for port in service.ports.iter().filter(|p| wanted(p)) {
            if !service.headless {
                targets.insert((port.port, base.map(str::to_owned).to_vec()));
                continue;
            }
            for slice in records.slices(&service.namespace, &service.name) {
                let same = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
                for found in same {
                    for (endpoint, ip) in ready(std::slice::from_ref(&slice)) {
                        let mut words = vec![hostname(endpoint, ip)];
                        words.extend(base.map(str::to_owned));
                        targets.insert((found.port, words));
                    }
                }
            }
        }
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(0).max(1);
        let record = |(port, words): (u16, Vec<String>)| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            RData::SRV(SRV::new(0, weight, port, self.under(&words)))
        };
        targets.into_iter().map(record).collect()
    }

    fn reverse(&self, name: &Name, kind: RecordType, address: IpAddr, records: &dyn Records) -> Answer {
        let mut names: BTreeSet<Name> = records
            .services_at(address)
            .iter()
            .map(|s| self.under(&[s.name.as_str(), s.namespace.as_str(), "svc"]))
            .collect();
        if names.is_empty() {
            for slice in records.slices_with(address) {
                let service = records.service(&slice.namespace, &slice.service);
                if !service.is_some_and(|s| s.headless) {
                    continue;
                }
                let here = ready(std::slice::from_ref(&slice)).filter(|(_, ip)| *ip == address);
                names.extend(here.map(|(endpoint, ip)| {
                    self.under(&[&hostname(endpoint, ip), &slice.service, &slice.namespace, "svc"])
                }));
            }
        }
        if names.is_empty() {
            return Answer::UnknownAddress;
        }
        let names = names.into_iter().filter(|_| kind == RecordType::PTR);
        let answers = names.map(|n| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(n)))).collect();
        Answer::Here(Here { code: ResponseCode::NoError, answers, additionals: vec![], follow: None })
    }

    /// The name of these labels under the domain.
    fn under(&self, words: &[&str]) -> Name {
        let labels = words.iter().map(|w| w.as_bytes()).chain(self.domain.iter());
        // Labels come from validated names: what does not fit a name was never stored.
        let mut name = Name::from_labels(labels).unwrap_or_else(|_| self.domain.clone());
        name.set_fqdn(true);
        name
    }
}

/// Where an ExternalName Service leads.
fn alias(relative: &[String], records: &dyn Records) -> Option<Name> {
    let [service, namespace, svc] = relative else { return None };
    let service = (svc == "svc").then(|| records.service(namespace, service))??;
    let mut target = Name::from_ascii(service.external_name.as_ref()?).ok()?;
    target.set_fqdn(true);
    Some(target)
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect()
}

/// The ready endpoints of slices, with each of their addresses.
fn ready(slices: &[Arc<SliceView>]) -> impl Iterator<Item = (&EndpointView, IpAddr)> {
    let endpoints = slices.iter().flat_map(|s| &s.endpoints).filter(|e| e.ready);
    endpoints.flat_map(|e| e.addresses.iter().map(move |ip| (e, *ip)))
}

/// The name of an endpoint within its Service.
fn hostname(endpoint: &EndpointView, address: IpAddr) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => address.to_string().replace(['.', ':'], "-"),
    }
}

/// The address in a pod's name: `10-1-0-2`, `fd00--2`.
fn undash(text: &str) -> Option<IpAddr> {
    text.replace('-', ".").parse().or_else(|_| text.replace('-', ":").parse()).ok()
}

/// The whole address that a reverse name stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let range = name.parse_arpa_name().ok()?;
    (range.prefix_len() == range.max_prefix_len()).then(|| range.addr())
}

fn of_type(addresses: impl IntoIterator<Item = IpAddr>, kind: RecordType) -> Vec<RData> {
    let record = |ip| match ip {
        IpAddr::V4(ip) => (RecordType::A, RData::A(A(ip))),
        IpAddr::V6(ip) => (RecordType::AAAA, RData::AAAA(AAAA(ip))),
    };
    let all = addresses.into_iter().map(record);
    all.filter(|(t, _)| kind == *t || kind == RecordType::ANY).map(|(_, data)| data).collect()
}

fn rotated(mut found: Vec<RData>, turn: u64) -> Vec<RData> {
    if let Ok(len @ 2..) = u64::try_from(found.len()) {
        found.rotate_left(usize::try_from(turn % len).unwrap_or(0));
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::views::{Protocol, SlicePort};

    /// A small cluster: Services of every kind.
    pub struct World(Vec<Arc<ServiceView>>, Vec<Arc<SliceView>>);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn port(name: &str, port: u16) -> ServicePort {
        ServicePort { name: name.into(), protocol: Protocol::Tcp, port, node_port: None }
    }

    fn service(name: &str) -> ServiceView {
        ServiceView { namespace: "default".into(), name: name.into(), ..ServiceView::default() }
    }

    fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> EndpointView {
        EndpointView {
            addresses: vec![ip(address)],
            ready,
            serving: ready,
            hostname: hostname.map(Into::into),
            ..EndpointView::default()
        }
    }

    pub fn world() -> World {
        let alias = |name: &str, to: &str| ServiceView { external_name: Some(to.into()), ..service(name) };
        let services = vec![
            ServiceView {
                cluster_ips: vec![ip("10.96.0.7"), ip("fd00::7")],
                ports: vec![port("http", 80)],
                ..service("web")
            },
            ServiceView { headless: true, ports: vec![port("peer", 7000)], ..service("db") },
            ServiceView { headless: true, ..service("empty") },
            alias("inside", "web.default.svc.cluster.local"),
            alias("outside", "example.com"),
            alias("loop", "loop.default.svc.cluster.local"),
        ];
        let slice = SliceView {
            namespace: "default".into(),
            name: "db-1".into(),
            service: "db".into(),
            ports: vec![SlicePort { name: "peer".into(), protocol: Protocol::Tcp, port: 7001 }],
            endpoints: vec![
                endpoint("10.1.0.2", Some("db-0"), true),
                endpoint("10.1.0.3", None, true),
                endpoint("10.1.0.4", Some("db-2"), false),
            ],
        };
        World(services.into_iter().map(Arc::new).collect(), vec![Arc::new(slice)])
    }

    impl Records for World {
        fn namespace(&self, name: &str) -> bool {
            name == "default"
        }
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceView>> {
            self.0.iter().find(|s| s.namespace == namespace && s.name == name).cloned()
        }
        fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceView>> {
            self.1.iter().filter(|s| s.namespace == namespace && s.service == service).cloned().collect()
        }
        fn services_at(&self, address: IpAddr) -> Vec<Arc<ServiceView>> {
            self.0.iter().filter(|s| s.cluster_ips.contains(&address)).cloned().collect()
        }
        fn slices_with(&self, address: IpAddr) -> Vec<Arc<SliceView>> {
            let has = |s: &SliceView| s.endpoints.iter().any(|e| e.addresses.contains(&address));
            self.1.iter().filter(|s| has(s)).cloned().collect()
        }
    }

    pub fn zone() -> Zone {
        Zone::new(&Name::from_ascii("cluster.local").unwrap(), &[ip("10.96.0.10")], 1)
    }

    /// The answer as text: records, or the code, or where it is.
    fn ask(name: &str, kind: RecordType) -> String {
        let name = Name::from_ascii(name).unwrap();
        match zone().answer(&name, kind, &world(), 0) {
            Answer::Here(here) => {
                let show = |records: &[Record]| {
                    records
                        .iter()
                        .map(|r| format!("{} {}", r.record_type(), r.data))
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let mut text = match (here.code, here.answers.is_empty()) {
                    (ResponseCode::NoError, true) => "nothing".to_owned(),
                    (ResponseCode::NoError, false) => show(&here.answers),
                    (code, true) => format!("{code:?}"),
                    (code, false) => format!("{code:?}: {}", show(&here.answers)),
                };
                if !here.additionals.is_empty() {
                    text += &format!("; {}", show(&here.additionals));
                }
                here.follow.into_iter().fold(text, |t, n| format!("{t}; then {n}"))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_and_answers() {
        use RecordType as T;
        let table: &[(&str, T, &str)] = &[
            ("web.default.svc.cluster.local.", T::A, "A 10.96.0.7"),
            ("WEB.Default.SVC.cluster.LOCAL.", T::A, "A 10.96.0.7"),
            ("web.default.svc.cluster.local.", T::AAAA, "AAAA fd00::7"),
            ("web.default.svc.cluster.local.", T::MX, "nothing"),
            ("nope.default.svc.cluster.local.", T::A, "NXDomain"),
            ("web.nope.svc.cluster.local.", T::A, "NXDomain"),
            ("web.default.cluster.local.", T::A, "NXDomain"),
            // headless
            ("db.default.svc.cluster.local.", T::A, "A 10.1.0.2, A 10.1.0.3"),
            ("db.default.svc.cluster.local.", T::AAAA, "nothing"),
            ("empty.default.svc.cluster.local.", T::A, "NXDomain"),
            ("db-0.db.default.svc.cluster.local.", T::A, "A 10.1.0.2"),
            ("10-1-0-3.db.default.svc.cluster.local.", T::A, "A 10.1.0.3"),
            ("db-2.db.default.svc.cluster.local.", T::A, "NXDomain"),
            ("db-9.db.default.svc.cluster.local.", T::A, "NXDomain"),
            // ports
            (
                "_http._tcp.web.default.svc.cluster.local.",
                T::SRV,
                "SRV 0 100 80 web.default.svc.cluster.local.; A 10.96.0.7, AAAA fd00::7",
            ),
            ("_http._udp.web.default.svc.cluster.local.", T::SRV, "NXDomain"),
            ("_http._tcp.web.default.svc.cluster.local.", T::A, "nothing"),
            ("_tcp.web.default.svc.cluster.local.", T::A, "nothing"),
            (
                "_peer._tcp.db.default.svc.cluster.local.",
                T::SRV,
                "SRV 0 50 7001 10-1-0-3.db.default.svc.cluster.local., \
                 SRV 0 50 7001 db-0.db.default.svc.cluster.local.; A 10.1.0.3, A 10.1.0.2",
            ),
            // aliases
            ("inside.default.svc.cluster.local.", T::A, "CNAME web.default.svc.cluster.local., A 10.96.0.7"),
            ("inside.default.svc.cluster.local.", T::CNAME, "CNAME web.default.svc.cluster.local."),
            ("outside.default.svc.cluster.local.", T::A, "CNAME example.com.; then example.com."),
            // pods
            ("10-1-0-9.default.pod.cluster.local.", T::A, "A 10.1.0.9"),
            ("fd00--9.default.pod.cluster.local.", T::AAAA, "AAAA fd00::9"),
            ("10-1-0-9.nope.pod.cluster.local.", T::A, "NXDomain"),
            ("not-an-ip.default.pod.cluster.local.", T::A, "NXDomain"),
            // reverse
            ("7.0.96.10.in-addr.arpa.", T::PTR, "PTR web.default.svc.cluster.local."),
            ("2.0.1.10.in-addr.arpa.", T::PTR, "PTR db-0.db.default.svc.cluster.local."),
            ("9.9.9.10.in-addr.arpa.", T::PTR, "UnknownAddress"),
            // the domain itself
            ("dns-version.cluster.local.", T::TXT, "TXT 1.1.0"),
            ("ns.dns.cluster.local.", T::A, "A 10.96.0.10"),
            ("cluster.local.", T::NS, "NS ns.dns.cluster.local."),
            ("svc.cluster.local.", T::A, "nothing"),
            ("default.svc.cluster.local.", T::A, "nothing"),
            ("nope.svc.cluster.local.", T::A, "NXDomain"),
            ("example.com.", T::A, "Elsewhere"),
            ("local.", T::A, "Elsewhere"),
        ];
        for (name, kind, expected) in table {
            assert_eq!(ask(name, *kind), *expected, "{name} {kind}");
        }
        assert!(ask("loop.default.svc.cluster.local.", T::A).starts_with("ServFail"));
    }

    #[test]
    fn lists_are_rotated() {
        let name = Name::from_ascii("db.default.svc.cluster.local.").unwrap();
        let first = |turn| match zone().answer(&name, RecordType::A, &world(), turn) {
            Answer::Here(here) => here.answers[0].data.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!([first(0), first(1), first(2)], ["10.1.0.2", "10.1.0.3", "10.1.0.2"]);
    }
}
