//! Addresses and ports of Services, taken and given back in the transaction of the Service's own write.
//!
//! An address is an `IPAddress` object, a port a key of its own; both exist once, so two Services can never
//! have the same, and nothing is lost in a crash.

use super::ranges::{Cidr, ports};
use crate::admission::{cast, cast_mut};
use crate::call::Call;
use crate::codec::Rows;
use crate::error::from_store;
use crate::rest::hook::Hook;
use crate::server::Inner;
use async_trait::async_trait;
use bytes::Bytes;
use krate_api::field::{Error, Path};
use krate_api::meta::Time;
use krate_api::types::core::v1::{Service, ServiceSpec};
use krate_api::types::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use krate_api::{Kind as _, Object, Status};
use krate_store::{Check, Key, Op, Txn, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const PORT_SPACE: &str = "ranges/nodeports";

pub(crate) struct Services;

#[async_trait]
impl Hook for Services {
    async fn create(
        &self,
        server: &Inner,
        call: &Call,
        object: &mut dyn Object,
        txn: &mut Txn,
    ) -> Result<(), Status> {
        let Some(service) = cast_mut::<Service>(object) else { return Ok(()) };
        Allocation { server, call, old: None }.settle(service, txn).await
    }

    async fn update(
        &self,
        server: &Inner,
        call: &Call,
        new: &mut dyn Object,
        old: &dyn Object,
        txn: &mut Txn,
    ) -> Result<(), Status> {
        let (Some(service), Some(old)) = (cast_mut::<Service>(new), cast::<Service>(old)) else {
            return Ok(());
        };
        Allocation { server, call, old: old.spec.as_ref() }.settle(service, txn).await
    }

    async fn delete(&self, server: &Inner, old: &dyn Object, txn: &mut Txn) -> Result<(), Status> {
        let Some(spec) = cast::<Service>(old).and_then(|s| s.spec.as_ref()) else { return Ok(()) };
        for address in addresses(spec) {
            release(server, address_key(&address), txn).await?;
        }
        for port in taken_ports(spec) {
            release(server, port_key(port), txn).await?;
        }
        Ok(())
    }
}

fn address_key(address: &str) -> Key {
    Key::new(krate_api::status::qualified(IPAddress::GROUP, IPAddress::PLURAL), address)
}

fn port_key(port: i32) -> Key {
    Key::new(PORT_SPACE, port.to_string())
}

/// Gives a key back, if it is there.
async fn release(server: &Inner, key: Key, txn: &mut Txn) -> Result<(), Status> {
    let found = server.store.get(&key, None).await.map_err(from_store)?.0;
    if let Some(entry) = found {
        txn.ops.push(crate::rest::update::removal(&entry));
        txn.checks.push(Check::At(key, entry.modified));
    }
    Ok(())
}

fn kind(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.as_ref().is_some_and(|ips| ips.first().is_some_and(|ip| ip == "None"))
}

/// The addresses that a Service holds.
fn addresses(spec: &ServiceSpec) -> BTreeSet<String> {
    if kind(spec) == "ExternalName" || is_headless(spec) {
        return BTreeSet::new();
    }
    spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter(|ip| !ip.is_empty()).cloned().collect()
}

/// The node ports that a Service holds.
fn taken_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    if !has_node_ports(spec) {
        return BTreeSet::new();
    }
    let ports = spec.ports.iter().flatten().filter_map(|p| p.node_port);
    ports.chain(spec.health_check_node_port).filter(|p| *p != 0).collect()
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

fn wants_node_ports(spec: &ServiceSpec) -> bool {
    kind(spec) == "NodePort"
        || (kind(spec) == "LoadBalancer" && spec.allocate_load_balancer_node_ports.unwrap_or(true))
}

/// One decision about one Service.
struct Allocation<'a> {
    server: &'a Inner,
    call: &'a Call,
    old: Option<&'a ServiceSpec>,
}

impl Allocation<'_> {
    async fn settle(&self, service: &mut Service, txn: &mut Txn) -> Result<(), Status> {
        let name = service.metadata.name.clone().unwrap_or_default();
        let spec = service.spec.get_or_insert_default();
        let mut faults = Vec::new();
        if kind(spec) == "ExternalName" {
            if self.old.is_some_and(|old| kind(old) != "ExternalName") {
                (spec.cluster_ip, spec.cluster_ips) = (None, None);
                (spec.ip_families, spec.ip_family_policy) = (None, None);
            }
        } else {
            faults.extend(krate_api::behaviour::service::family_faults(&Path::new("spec"), spec));
            if faults.is_empty() {
                self.families(spec, &mut faults);
            }
            if faults.is_empty() {
                self.fill_addresses(spec, txn, &name, &mut faults).await?;
            }
        }
        if faults.is_empty() {
            self.fill_ports(spec, txn, &name, &mut faults).await?;
        }
        if !faults.is_empty() {
            return Err(self.call.invalid(&name, &faults));
        }
        let (held, holds) = (self.old.map(addresses).unwrap_or_default(), addresses(spec));
        for address in held.difference(&holds) {
            release(self.server, address_key(address), txn).await?;
        }
        let (held, holds) = (self.old.map(taken_ports).unwrap_or_default(), taken_ports(spec));
        for port in held.difference(&holds) {
            release(self.server, port_key(*port), txn).await?;
        }
        Ok(())
    }

    /// Defaults of `ipFamilies` and `ipFamilyPolicy`, and what this cluster cannot do.
    fn families(&self, spec: &mut ServiceSpec, faults: &mut Vec<Error>) {
        let path = Path::new("spec");
        let configured: Vec<&str> = self.server.services.cidrs.iter().map(Cidr::family).collect();
        let primary = configured[0].to_owned();
        let other = if primary == "IPv4" { "IPv6" } else { "IPv4" }.to_owned();
        let selectorless = spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
        let headless = is_headless(spec);
        let mut families = spec.ip_families.clone().unwrap_or_default();
        if !headless {
            for (i, ip) in spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).take(2).enumerate() {
                let family = ip.parse().ok().map(|a: IpAddr| if a.is_ipv6() { "IPv6" } else { "IPv4" });
                if let Some(family) =
                    family.filter(|f| families.len() <= i && !families.iter().any(|h| h == f))
                {
                    families.push(family.to_owned());
                }
            }
        }
        if headless && selectorless {
            let policy = spec.ip_family_policy.get_or_insert_with(|| "RequireDualStack".to_owned());
            if families.is_empty() {
                families.push(primary.clone());
            }
            if families.len() < 2 && policy != "SingleStack" {
                let second = if families[0] == primary { other } else { primary };
                families.push(second);
            }
            spec.ip_families = Some(families);
            return;
        }
        let two = families.len() > 1 || spec.cluster_ips.as_ref().is_some_and(|i| i.len() > 1);
        let default = if two { "RequireDualStack" } else { "SingleStack" };
        let policy = spec.ip_family_policy.get_or_insert_with(|| default.to_owned()).clone();
        if policy == "RequireDualStack" && configured.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            faults.push(Error::invalid(&path.child("ipFamilyPolicy"), &policy, why));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, f)| !configured.contains(&f.as_str())) {
            let why = "not configured on this cluster";
            faults.push(Error::invalid(&path.child("ipFamilies").index(i), family, why));
        }
        if families.is_empty() {
            families.push(primary);
        }
        if policy != "SingleStack" && families.len() < 2 && configured.len() > 1 {
            let second = configured.iter().find(|c| **c != families[0]);
            families.extend(second.map(|s| (*s).to_owned()));
        }
        if policy == "SingleStack" && self.old.is_some() {
            families.truncate(1);
            if let Some(ips) = &mut spec.cluster_ips {
                ips.truncate(1);
            }
        }
        spec.ip_families = Some(families);
    }

    /// An address for each family that has none; the given ones are taken.
    async fn fill_addresses(
        &self,
        spec: &mut ServiceSpec,
        txn: &mut Txn,
        name: &str,
        faults: &mut Vec<Error>,
    ) -> Result<(), Status> {
        if is_headless(spec) {
            spec.cluster_ip = Some("None".to_owned());
            spec.cluster_ips = Some(vec!["None".to_owned()]);
            return Ok(());
        }
        let mut ips: Vec<String> = spec.cluster_ips.clone().unwrap_or_default();
        ips.retain(|ip| !ip.is_empty());
        if let (true, Some(ip)) = (ips.is_empty(), spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty())) {
            ips.push(ip.clone());
        }
        let held = self.old.map(addresses).unwrap_or_default();
        for ip in ips.iter().filter(|ip| !held.contains(*ip)) {
            if let Err(why) = self.take_address(ip, txn, name).await? {
                let detail = format!("failed to allocate IP {ip}: {why}");
                faults.push(Error::invalid(&Path::new("spec").child("clusterIPs"), &ips, detail));
                return Ok(());
            }
        }
        for family in spec.ip_families.iter().flatten().skip(ips.len()) {
            let range = self.server.services.of_family(family);
            let mut found = None;
            for address in range.into_iter().flat_map(|r| r.candidates(&self.server.rng)) {
                let text = address.to_string();
                if self.take_address(&text, txn, name).await?.is_ok() {
                    found = Some(text);
                    break;
                }
            }
            if found.is_none() {
                found = self.further_address(family, txn, name).await?;
            }
            match found {
                Some(address) => ips.push(address),
                None => {
                    return Err(Status::internal("failed to allocate a serviceIP: range is full"));
                }
            }
        }
        spec.cluster_ip = ips.first().cloned();
        spec.cluster_ips = Some(ips);
        Ok(())
    }

    /// An address of a ServiceCIDR that users added, once the configured range is full.
    async fn further_address(
        &self,
        family: &str,
        txn: &mut Txn,
        name: &str,
    ) -> Result<Option<String>, Status> {
        for (range, held) in self.further_ranges().await?.iter().filter(|(r, _)| r.family() == family) {
            for address in range.candidates(&self.server.rng) {
                let text = address.to_string();
                if self.is_free(address).await? {
                    self.put_address(address, txn, name)?;
                    txn.checks.push(held.clone());
                    return Ok(Some(text));
                }
            }
        }
        Ok(None)
    }

    /// The ranges of all ServiceCIDRs that are ready and stay, each with the check that it still does.
    async fn further_ranges(&self) -> Result<Vec<(Cidr, Check)>, Status> {
        let mut ranges = Vec::new();
        for object in self.server.read_all::<ServiceCIDR>("").await? {
            let cidr = object.typed::<ServiceCIDR>().map_err(Status::internal)?;
            let conditions = cidr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if !is_ready || cidr.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let key = Key::new(
                krate_api::status::qualified(ServiceCIDR::GROUP, ServiceCIDR::PLURAL),
                cidr.metadata.name.clone().unwrap_or_default(),
            );
            let Some(entry) = self.server.store.get(&key, None).await.map_err(from_store)?.0 else {
                continue;
            };
            let texts = cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
            let parsed = texts.filter_map(|t| Cidr::parse(t));
            ranges.extend(parsed.map(|range| (range, Check::At(key.clone(), entry.modified))));
        }
        Ok(ranges)
    }

    /// Adds the taking of an address to the transaction, or says why it cannot be had.
    async fn take_address(&self, ip: &str, txn: &mut Txn, name: &str) -> Result<Result<(), String>, Status> {
        let Ok(address) = ip.parse::<IpAddr>() else { return Ok(Ok(())) };
        let ranges = &self.server.services.cidrs;
        let within = ranges.iter().any(|r| r.contains(address));
        let further = if within { vec![] } else { self.further_ranges().await? };
        let holder = further.into_iter().find(|(r, _)| r.contains(address));
        if !within && holder.is_none() {
            let family: Vec<&str> =
                ranges.iter().filter(|r| r.is_v6() == address.is_ipv6()).map(Cidr::text).collect();
            return Ok(Err(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
                family.join(",")
            )));
        }
        if !self.is_free(address).await? {
            return Ok(Err("provided IP is already allocated".to_owned()));
        }
        txn.checks.extend(holder.map(|(_, check)| check));
        self.put_address(address, txn, name)?;
        Ok(Ok(()))
    }

    async fn is_free(&self, address: IpAddr) -> Result<bool, Status> {
        let key = address_key(&address.to_string());
        Ok(self.server.store.get(&key, None).await.map_err(from_store)?.0.is_none())
    }

    fn put_address(&self, address: IpAddr, txn: &mut Txn, name: &str) -> Result<(), Status> {
        let key = address_key(&address.to_string());
        let value = self.address_object(address, name)?;
        txn.checks.push(Check::Absent(key.clone()));
        txn.ops.push(Op::Put { key, value, ttl: None });
        Ok(())
    }

    fn address_object(&self, address: IpAddr, name: &str) -> Result<Value, Status> {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        let labels = [
            ("ipaddress.kubernetes.io/ip-family".to_owned(), family.to_owned()),
            ("ipaddress.kubernetes.io/managed-by".to_owned(), "ipallocator.k8s.io".to_owned()),
        ];
        let parent = ParentReference {
            resource: "services".to_owned(),
            namespace: Some(self.call.namespace.clone()),
            name: name.to_owned(),
            group: None,
        };
        let mut object = IPAddress { spec: IPAddressSpec { parent_ref: parent }, ..IPAddress::default() };
        object.metadata.name = Some(address.to_string());
        object.metadata.uid = Some(self.server.rng.uuid());
        object.metadata.creation_timestamp = Some(Time(self.server.clock.now_seconds()));
        object.metadata.labels = Some(labels.into());
        let catalogue = self.server.catalogue();
        let row = catalogue
            .get(IPAddress::GROUP, IPAddress::VERSION, IPAddress::PLURAL)
            .ok_or_else(|| Status::internal("addresses are not served"))?;
        Ok(self.server.encoder.value(&Rows::of(&catalogue, row), Box::new(object)))
    }

    /// A node port for each port that needs one; the given ones are taken.
    async fn fill_ports(
        &self,
        spec: &mut ServiceSpec,
        txn: &mut Txn,
        name: &str,
        faults: &mut Vec<Error>,
    ) -> Result<(), Status> {
        let held = self.old.map(taken_ports).unwrap_or_default();
        if !has_node_ports(spec) {
            for port in spec.ports.iter_mut().flatten() {
                // What a change of type leaves behind; given by hand it is validation's to refuse.
                if port.node_port.is_some_and(|p| held.contains(&p)) {
                    port.node_port = None;
                }
            }
            spec.health_check_node_port = spec.health_check_node_port.filter(|p| !held.contains(p));
            return Ok(());
        }
        let mut mine: BTreeSet<i32> = held;
        let path = Path::new("spec").child("ports");
        let wants = wants_node_ports(spec);
        for (i, port) in spec.ports.iter().flatten().enumerate() {
            let Some(wanted) = port.node_port.filter(|p| *p != 0 && !mine.contains(p)) else { continue };
            match self.take_port(wanted, txn, name).await? {
                Ok(()) => {
                    mine.insert(wanted);
                }
                Err(why) => faults.push(Error::invalid(&path.index(i).child("nodePort"), &wanted, why)),
            }
        }
        if !faults.is_empty() {
            return Ok(());
        }
        // One port for both protocols of the same service port.
        let mut paired: BTreeMap<i32, Vec<(String, i32)>> = BTreeMap::new();
        for port in spec.ports.iter().flatten() {
            if let Some(node) = port.node_port.filter(|p| *p != 0) {
                let protocol = port.protocol.clone().unwrap_or_default();
                paired.entry(port.port).or_default().push((protocol, node));
            }
        }
        for port in spec.ports.iter_mut().flatten().filter(|p| wants && p.node_port.unwrap_or(0) == 0) {
            let protocol = port.protocol.clone().unwrap_or_default();
            let others = paired.entry(port.port).or_default();
            let shared = others.iter().find(|(_, n)| !others.iter().any(|(p, m)| m == n && *p == protocol));
            let node = match shared {
                Some((_, node)) => *node,
                None => self.any_port(txn, name, &mut mine).await?,
            };
            others.push((protocol, node));
            port.node_port = Some(node);
        }
        self.health_port(spec, txn, name, &mut mine, faults).await
    }

    async fn health_port(
        &self,
        spec: &mut ServiceSpec,
        txn: &mut Txn,
        name: &str,
        mine: &mut BTreeSet<i32>,
        faults: &mut Vec<Error>,
    ) -> Result<(), Status> {
        let needs = kind(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local");
        let given = spec.health_check_node_port.filter(|p| *p != 0);
        match given {
            _ if !needs => spec.health_check_node_port = given.filter(|p| !mine.contains(p)),
            Some(port) if mine.contains(&port) => {}
            Some(port) => {
                if let Err(why) = self.take_port(port, txn, name).await? {
                    let path = Path::new("spec").child("healthCheckNodePort");
                    faults.push(Error::invalid(&path, &port, why));
                }
            }
            None => spec.health_check_node_port = Some(self.any_port(txn, name, mine).await?),
        }
        Ok(())
    }

    async fn any_port(&self, txn: &mut Txn, name: &str, mine: &mut BTreeSet<i32>) -> Result<i32, Status> {
        for port in ports(&self.server.services.node_ports, &self.server.rng) {
            let port = i32::from(port);
            if !mine.contains(&port) && self.take_port(port, txn, name).await?.is_ok() {
                mine.insert(port);
                return Ok(port);
            }
        }
        Err(Status::internal("failed to allocate a nodePort: range is full"))
    }

    async fn take_port(&self, port: i32, txn: &mut Txn, name: &str) -> Result<Result<(), String>, Status> {
        let range = &self.server.services.node_ports;
        if !u16::try_from(port).is_ok_and(|p| range.contains(&p)) {
            return Ok(Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            )));
        }
        let key = port_key(port);
        if self.server.store.get(&key, None).await.map_err(from_store)?.0.is_some() {
            return Ok(Err("provided port is already allocated".to_owned()));
        }
        let owner = krate_api::object::key(&self.call.namespace, name);
        let value = Value { bytes: Bytes::from(owner), stamp_at: None, note: None };
        txn.checks.push(Check::Absent(key.clone()));
        txn.ops.push(Op::Put { key, value, ttl: None });
        Ok(Ok(()))
    }
}
