//! The variables by which a container finds services (`WEB_SERVICE_HOST` and the older link form).

use krate_api::types::core::v1::{Service, ServicePort};
use std::collections::BTreeMap;

/// The service by which every container finds the API.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod in `namespace`: of the API's service always, of its own namespace's services if
/// the pod wants links.
pub fn variables<'a>(
    namespace: &str,
    links: bool,
    services: impl IntoIterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let within = service.metadata.namespace.as_deref().unwrap_or_default();
        if !has_cluster_ip(service) {
            continue;
        }
        if links && within == namespace {
            chosen.insert(name, service);
        } else if (within, name) == API_SERVICE {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut out = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut out, name, service);
    }
    out
}

fn has_cluster_ip(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.cluster_ip.as_deref()).is_some_and(|ip| !ip.is_empty() && ip != "None")
}

fn add(out: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let (ip, ports) =
        (spec.cluster_ip.as_deref().unwrap_or_default(), spec.ports.as_deref().unwrap_or_default());
    let name = variable(name);
    out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in ports.iter().enumerate() {
        if index == 0 {
            out.insert(format!("{name}_SERVICE_PORT"), port.port.to_string());
            out.insert(format!("{name}_PORT"), url(ip, port));
        }
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.insert(format!("{name}_SERVICE_PORT_{}", variable(port_name)), port.port.to_string());
        }
        let protocol = protocol(port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.insert(prefix.clone(), url(ip, port));
        out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{prefix}_PORT"), port.port.to_string());
        out.insert(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP")
}

fn url(ip: &str, port: &ServicePort) -> String {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::types::core::v1::ServiceSpec;

    fn service(namespace: &str, name: &str, ip: &str, ports: &[(&str, i32)]) -> Service {
        let ports = ports.iter().map(|(name, port)| ServicePort {
            name: Some((*name).to_owned()),
            port: *port,
            ..Default::default()
        });
        let mut service = Service {
            spec: Some(ServiceSpec {
                cluster_ip: Some(ip.to_owned()),
                ports: Some(ports.collect()),
                ..Default::default()
            }),
            ..Default::default()
        };
        service.metadata.name = Some(name.to_owned());
        service.metadata.namespace = Some(namespace.to_owned());
        service
    }

    #[test]
    fn both_forms_for_each_port() {
        let all = [
            service("default", "kubernetes", "10.96.0.1", &[("https", 443)]),
            service("shop", "redis-master", "10.96.0.9", &[("redis", 6379), ("", 80)]),
            service("shop", "headless", "None", &[("x", 1)]),
            service("other", "web", "10.96.0.8", &[("", 80)]),
        ];
        let env = variables("shop", true, &all);
        let get = |key: &str| env.get(key).map(String::as_str);
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
        assert_eq!(get("REDIS_MASTER_SERVICE_PORT_REDIS"), Some("6379"));
        assert_eq!(get("REDIS_MASTER_PORT"), Some("tcp://10.96.0.9:6379"));
        assert_eq!(get("REDIS_MASTER_PORT_80_TCP_ADDR"), Some("10.96.0.9"));
        assert_eq!(get("WEB_SERVICE_HOST"), None);
        assert_eq!(get("HEADLESS_SERVICE_HOST"), None);
        assert!(variables("shop", false, &all).keys().all(|k| k.starts_with("KUBERNETES_")));
    }
}
