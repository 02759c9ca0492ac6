//! Services, endpoints, policies and ingresses.

use crate::behaviour::testing::Sample;
use crate::types::core::v1::Service;
use serde_json::{Value, json};

fn service() -> Sample {
    Sample::new("v1", "Service", json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}))
}

fn allocated() -> Value {
    json!({"spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack"}})
}

#[test]
fn services() {
    service().creates(&[
        (json!({"spec": {"ports": null}}), &["spec.ports: Required value"]),
        (json!({"spec": {"ports": null, "clusterIP": "None"}}), &[]),
        (
            json!({"spec": {"ports": [{"port": 0}, {"port": 80, "name": "a"}]}}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}]}}),
            &[
                "spec.ports[1].name: Duplicate value: \"a\"",
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
                 \"TargetPort\":0,\"NodePort\":0}",
            ],
        ),
        (
            json!({"spec": {"ports": {"0": {"targetPort": "Web"}}}}),
            &["spec.ports[0].targetPort: Invalid value: \"Web\": must contain only alpha-numeric characters (a-z, 0-9), \
               and hyphens (-)"],
        ),
        (
            json!({"spec": {"type": "X", "sessionAffinity": "Y"}}),
            &[
                "spec.sessionAffinity: Unsupported value: \"Y\": supported values: \"ClientIP\", \"None\"",
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\"",
                "spec.internalTrafficPolicy: Required value",
            ],
        ),
        (
            json!({"spec": {"ports": {"0": {"nodePort": 30000}}}}),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            json!({"spec": {"type": "ExternalName", "clusterIP": "10.0.0.1"}}),
            &[
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                "spec.externalName: Required value",
            ],
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            json!({"spec": {"externalIPs": ["127.0.0.1", "x"], "externalTrafficPolicy": "Local"}}),
            &[
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
                "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
            ],
        ),
        (
            json!({"spec": {"externalTrafficPolicy": "Local"}}),
            &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
        ),
        (
            json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}}),
            &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less \
               than 86400"],
        ),
        (
            json!({"metadata": {"name": "1web"}}), // digits may come first since names of services are labels
            &[],
        ),
    ]);
}

#[test]
fn addresses_of_services_stay() {
    assert_eq!(
        service().change_errors("", &allocated(), &json!({"spec": {"clusterIP": "10.96.0.8"}})),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
    );
    let forgets =
        json!({"spec": {"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null}});
    assert_eq!(service().change_errors("", &allocated(), &forgets), Vec::<String>::new());
}

fn update(from: &Value, patch: &Value) -> Service {
    let sample = service();
    let old = sample.stored(from);
    let mut both = from.clone();
    crate::behaviour::testing::merge(&mut both, patch);
    let mut new = sample.with(&both);
    sample.behaviour().prepare_update(&mut *new, &*old);
    new.as_any().downcast_ref::<Service>().expect("a service").clone()
}

#[test]
fn what_was_allocated_is_kept() {
    let mut from = allocated();
    crate::behaviour::testing::merge(
        &mut from,
        &json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}),
    );
    let kept =
        update(&from, &json!({"spec": {"clusterIP": null, "ports": [{"port": 80}]}})).spec.expect("a spec");
    assert_eq!(kept.cluster_ip.as_deref(), Some("10.96.0.7"));
    assert_eq!(kept.ports.as_ref().map(|p| p[0].node_port), Some(Some(30080)));
    let inner = update(&from, &json!({"spec": {"type": "ClusterIP"}})).spec.expect("a spec");
    assert_eq!(inner.ports.as_ref().map(|p| p[0].node_port), Some(None), "no node port without the type");
    assert_eq!(inner.external_traffic_policy, None);
    let named = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "ports": [{"port": 80, "nodePort": 30080}]}});
    let outer = update(&from, &named).spec.expect("a spec");
    assert_eq!((outer.cluster_ip, outer.cluster_ips, outer.ip_families), (None, None, None));
}

#[test]
fn endpoints() {
    let subsets = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]);
    Sample::new("v1", "Endpoints", json!({"subsets": subsets})).creates(&[
        (
            json!({"subsets": [{}]}),
            &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        ),
        (
            json!({"subsets": {"0": {"addresses": [{"ip": "0.0.0.0"}]}}}),
            &["subsets[0].addresses[0].ip: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)"],
        ),
    ]);
}

#[test]
fn endpoint_slices() {
    let slice =
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
    let sample = Sample::new("discovery.k8s.io/v1", "EndpointSlice", slice);
    sample.creates(&[
        (json!({"addressType": ""}), &["addressType: Required value"]),
        (
            json!({"endpoints": [{"addresses": []}, {"addresses": ["::2"]}]}),
            &[
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                "endpoints[1].addresses[0]: Invalid value: \"::2\": must be a valid IPv4 address",
            ],
        ),
        (json!({"ports": [{"port": 80}, {"port": 81}]}), &["ports[1].name: Duplicate value: \"\""]),
    ]);
    sample.updates(&[(
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}),
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    )]);
}

#[test]
fn network_policies() {
    let policy = json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}});
    Sample::new("networking.k8s.io/v1", "NetworkPolicy", policy).creates(&[
        (
            json!({"spec": {"ingress": [{"from": [{}]}]}}),
            &["spec.ingress[0].from[0]: Required value: must specify a peer"],
        ),
        (
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9", "10.0.0.0/8"]}}]}]}}),
            &[
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/9\": must be a strict subset of \
                 `cidr`",
                "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of \
                 `cidr`",
            ],
        ),
        (json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "::/0", "except": ["2001::/16"]}}]}]}}), &[]),
        (
            json!({"spec": {"ingress": [{"ports": [{"port": 80, "endPort": 70}]}]}}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
        ),
    ]);
}

#[test]
fn ingresses() {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let ingress = json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}});
    Sample::new("networking.k8s.io/v1", "Ingress", ingress).creates(&[
        (
            json!({"spec": {"rules": null, "defaultBackend": {"resource": {"kind": "", "name": ""}}}}),
            &[
                "spec.defaultBackend.resource.kind: Required value: kind is required",
                "spec.defaultBackend.resource.name: Required value: name is required",
            ],
        ),
        (
            json!({"spec": {"rules": null}}),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            json!({"spec": {"rules": {"0": {"host": "1.2.3.4", "http": {"paths": {"0": {"pathType": null}}}}}}}),
            &[
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ],
        ),
        (
            json!({"spec": {"rules": {"0": {"http": {"paths": {"0": {"path": "a//b", "backend": {"service": {"port": null}}}}}}}}}),
            &[
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ],
        ),
    ]);
}

#[test]
fn ingress_classes() {
    let sample =
        Sample::new("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "example.com/a"}}));
    sample.creates(&[
        (json!({"spec": {"controller": ""}}), &["spec.controller: Required value"]),
        (
            json!({"spec": {"controller": "a"}}),
            &["spec.controller: Invalid value: \"a\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        ),
    ]);
    sample.updates(&[(
        json!({"spec": {"controller": "example.com/b"}}),
        &["spec.controller: Invalid value: \"example.com/b\": field is immutable"],
    )]);
}

#[test]
fn service_networks() {
    let sample =
        Sample::new("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.0/16"]}}));
    let cidrs = |list: Value| json!({"spec": {"cidrs": list}});
    sample.creates(&[
        (cidrs(json!(null)), &["spec.cidrs: Required value: at least one CIDR required"]),
        (
            cidrs(json!(["10.0.0.0/16", "10.1.0.0/16"])),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each \
               IP family, i.e 192.168.0.0/24 and 2001:db8::/64"],
        ),
        (
            cidrs(json!(["a", "b", "c"])),
            &["spec.cidrs: Invalid value: {\"CIDRs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values"],
        ),
    ]);
    sample.updates(&[
        (cidrs(json!(["10.0.0.0/16", "2001:db8::/64"])), &[]),
        (
            cidrs(json!(["10.1.0.0/16"])),
            &["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"],
        ),
        (
            cidrs(json!(["10.0.0.0/16", "a", "b"])),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"a\",\"b\"]: field is immutable"],
        ),
    ]);
}

#[test]
fn addresses_of_services() {
    let parent = json!({"group": "", "resource": "services", "name": "web", "namespace": "a"});
    let sample = Sample::new(
        "networking.k8s.io/v1",
        "IPAddress",
        json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}),
    );
    sample.creates(&[(
        json!({"spec": {"parentRef": {"resource": ""}}}),
        &["spec.parentRef.resource: Required value"],
    )]);
    sample.updates(&[(
        json!({"spec": {"parentRef": {"name": "other"}}}),
        &["spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"a\",\
           \"Name\":\"other\"}: field is immutable"],
    )]);
}

/// What is said about an object that is created.
fn told(api_version: &str, kind: &str, object: Value) -> Vec<String> {
    let sample = Sample::new(api_version, kind, object);
    sample.behaviour().warnings(&*sample.with(&json!({})), None)
}

#[test]
fn odd_addresses_are_told() {
    let endpoints = json!([{"addresses": ["2001:DB8::1"]}]);
    let slice = json!({"addressType": "IPv6", "endpoints": endpoints});
    let text = "IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")";
    let version = "discovery.k8s.io/v1";
    assert_eq!(told(version, "EndpointSlice", slice.clone()), [format!("endpoints[0].addresses[0]: {text}")]);
    let mut careful = slice;
    careful["metadata"] =
        json!({"labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}});
    assert_eq!(told(version, "EndpointSlice", careful), Vec::<String>::new());
    let named = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]});
    assert_eq!(told(version, "EndpointSlice", named), ["spec.addressType: FQDN endpoints are deprecated"]);
    let policy = json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
    assert_eq!(
        told("networking.k8s.io/v1", "NetworkPolicy", policy),
        [
            "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \
          \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
        ]
    );
}
