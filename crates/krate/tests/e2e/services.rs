//! Services between real pods on two nodes: every type, both policies, names, ports of nodes, the API's proxy.

use crate::cluster::Cluster;

/// A web server that answers with its own name, pinned to a node.
fn server(name: &str, node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "mkdir -p /www; hostname > /www/index.html; exec busybox httpd -f -p 8080 -h /www"]
    ports: [{{name: http, containerPort: 8080}}]
    readinessProbe: {{httpGet: {{port: 8080, path: /}}, periodSeconds: 1}}
---
"#
    )
}

/// Two servers, one on each node, and a client on the first.
fn start(name: &str) -> Cluster {
    let c = Cluster::start(name, 2);
    c.apply(&(server("one", "node-1") + &server("two", "node-2")));
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: busybox:1, command: [/bin/sh, -c, "sleep 3600"]}]
"#,
    );
    c.kubectl(&["wait", "--for=condition=Ready", "pod/one", "pod/two", "pod/client", "--timeout=60s"]);
    c
}

fn sh(c: &Cluster, pod: &str, line: &str) -> String {
    let said = c.try_kubectl(&["exec", pod, "--", "sh", "-c", line]);
    said.out + &said.err
}

/// Who answered so many requests to an address, one line each.
fn answers(c: &Cluster, pod: &str, to: &str, count: usize) -> Vec<String> {
    let line = format!("for i in $(seq {count}); do wget -qO- http://{to}/ || echo failed; done");
    sh(c, pod, &line).lines().map(str::to_owned).collect()
}

/// Waits until every answer is as wanted.
fn until(c: &Cluster, pod: &str, to: &str, what: &str, wanted: impl Fn(&[String]) -> bool) {
    let line = format!("for i in $(seq 12); do wget -qO- http://{to}/ || echo failed; done");
    c.until(&["exec", pod, "--", "sh", "-c", &line], what, |out| {
        wanted(&out.lines().map(str::to_owned).collect::<Vec<_>>())
    });
}

fn all_of(names: &'static [&'static str]) -> impl Fn(&[String]) -> bool {
    move |seen| {
        names.iter().all(|n| seen.iter().any(|s| s == n)) && seen.iter().all(|s| names.contains(&s.as_str()))
    }
}

fn jsonpath(c: &Cluster, what: &str, path: &str) -> String {
    c.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
}

#[test]
fn every_type_of_service_reaches_its_pods() {
    let c = start("services");
    c.apply(
        r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]
"#,
    );
    for to in ["web", "web.default", "web.default.svc.cluster.local"] {
        until(&c, "client", to, "both pods", all_of(&["one", "two"]));
    }
    // A pod reaches itself, too.
    until(&c, "one", "web", "both pods from one of them", all_of(&["one", "two"]));
    let ips = c.until(
        &["get", "svc", "web", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"],
        "the load balancer's addresses",
        |out| out.split(' ').count() == 2,
    );
    for ip in ips.split(' ') {
        until(&c, "client", ip, "the load balancer", all_of(&["one", "two"]));
        until(&c, "client", &format!("{ip}:30080"), "the node port", all_of(&["one", "two"]));
    }
    c.fetch_until("o");
    let events = c.kubectl(&["get", "events", "--field-selector=involvedObject.name=web"]);
    assert!(events.contains("EnsuredLoadBalancer"), "{events}");
    let table = c.kubectl(&["get", "svc", "web"]);
    assert!(table.contains("LoadBalancer") && table.contains(&ips.replace(' ', ",")), "{table}");
    let described = c.kubectl(&["describe", "svc", "web"]);
    assert!(described.contains("LoadBalancer Ingress:") && described.contains("(VIP)"), "{described}");

    // Through the API server.
    for path in ["services/web:80", "services/web:http", "services/http:web:http", "pods/one:8080"] {
        let path = format!("/api/v1/namespaces/default/{path}/proxy/index.html");
        let page = c.kubectl(&["get", "--raw", &path]);
        assert!(["one\n", "two\n"].contains(&page.as_str()), "{path}: {page}");
    }

    // Clients stay where they are.
    c.kubectl(&["patch", "svc", "web", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]);
    until(&c, "client", "web", "one pod only", |seen| {
        seen.iter().all(|s| *s == seen[0]) && seen[0] != "failed"
    });
    c.kubectl(&["patch", "svc", "web", "-p", r#"{"spec":{"sessionAffinity":"None"}}"#]);
    until(&c, "client", "web", "both pods again", all_of(&["one", "two"]));

    // Only the own node's pods, then only near ones.
    c.kubectl(&["patch", "svc", "web", "-p", r#"{"spec":{"internalTrafficPolicy":"Local"}}"#]);
    until(&c, "client", "web", "the pod of the node", all_of(&["one"]));
    let near = r#"{"spec":{"internalTrafficPolicy":"Cluster","trafficDistribution":"PreferSameNode"}}"#;
    c.kubectl(&["patch", "svc", "web", "-p", near]);
    until(&c, "two", "web", "the pod of the other node", all_of(&["two"]));
    c.kubectl(&["delete", "pod", "two", "--wait=false"]);
    until(&c, "client", "web", "the pod that is left", all_of(&["one"]));
    let local = r#"{"spec":{"trafficDistribution":null,"externalTrafficPolicy":"Local"}}"#;
    c.kubectl(&["patch", "svc", "web", "-p", local]);
    let node = jsonpath(&c, "node/node-1", "{.status.addresses[0].address}");
    c.until(
        &["get", "svc", "web", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"],
        "only the node with a pod",
        |out| out == node,
    );
    let port = jsonpath(&c, "svc/web", "{.spec.healthCheckNodePort}");
    let health = sh(&c, "client", &format!("wget -qO- http://{node}:{port}/"));
    assert!(health.contains(r#""localEndpoints": 1"#), "{health}");
    let other = jsonpath(&c, "node/node-2", "{.status.addresses[0].address}");
    let health = sh(&c, "client", &format!("wget -qO- http://{other}:{port}/"));
    assert!(health.contains("503"), "{health}");
}

#[test]
fn names_change_with_their_services() {
    let c = start("dns");
    c.apply(
        r#"
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: peer}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: peer, labels: {app: peer}}
spec:
  hostname: first
  subdomain: peers
  dnsConfig: {options: [{name: ndots, value: "3"}], searches: [peers.default.svc.cluster.local]}
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: busybox:1, command: [/bin/sh, -c, "sleep 3600"]}]
"#,
    );
    c.kubectl(&["wait", "--for=condition=Ready", "pod/peer", "--timeout=60s"]);
    until(&c, "client", "alias", "the name that it stands for", all_of(&["one", "two"]));
    let ip = jsonpath(&c, "pod/peer", "{.status.podIP}");
    c.until(
        &["exec", "client", "--", "nslookup", "first.peers.default.svc.cluster.local"],
        "the pod's own name",
        |out| out.contains(&ip),
    );
    assert_eq!(sh(&c, "peer", "hostname -f").trim(), "first.peers.default.svc.cluster.local");
    let conf = sh(&c, "peer", "cat /etc/resolv.conf");
    assert!(conf.contains("ndots:3") && conf.contains(" peers.default.svc.cluster.local"), "{conf}");
    let reverse = sh(&c, "client", &format!("nslookup {ip}"));
    assert!(reverse.contains("first.peers.default.svc.cluster.local"), "{reverse}");
    let alias = r#"{"spec":{"type":"ClusterIP","externalName":null,"selector":{"app":"web"},"ports":[{"port":80,"targetPort":8080}]}}"#;
    c.kubectl(&["patch", "svc", "alias", "-p", alias]);
    let cluster_ip = jsonpath(&c, "svc/alias", "{.spec.clusterIP}");
    let found = c.until(
        &["exec", "client", "--", "nslookup", "alias.default.svc.cluster.local"],
        "an address",
        |o| o.contains(&cluster_ip),
    );
    assert!(!found.contains("web.default"), "{found}");
    until(&c, "client", "alias", "its own address", all_of(&["one", "two"]));
}

#[test]
fn services_without_selector_and_ports_of_nodes() {
    let c = start("hostports");
    let ip = jsonpath(&c, "pod/two", "{.status.podIP}");
    c.apply(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: manual}}
spec: {{ports: [{{name: a, port: 80}}, {{name: b, port: 81}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: manual-a, labels: {{kubernetes.io/service-name: manual}}}}
addressType: IPv4
ports: [{{name: a, port: 8080}}]
endpoints: [{{addresses: [{ip}]}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: manual-b, labels: {{kubernetes.io/service-name: manual}}}}
addressType: IPv4
ports: [{{name: b, port: 8080}}]
endpoints: [{{addresses: [{ip}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: mirrored}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: mirrored}}
subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{port: 8080}}]}}]
"#
    ));
    for to in ["manual:80", "manual:81", "mirrored"] {
        until(&c, "client", to, "the pod behind the address", all_of(&["two"]));
    }
    let slices = c.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=mirrored"]);
    assert!(slices.contains(&ip), "{slices}");
    c.kubectl(&["delete", "endpoints", "mirrored"]);
    c.until(
        &["get", "endpointslices", "-l", "kubernetes.io/service-name=mirrored", "-o", "name"],
        "the mirror to go",
        |out| out.trim().is_empty(),
    );

    // Three pods with one port of one node: they differ in address or protocol.
    let node = jsonpath(&c, "node/node-2", "{.status.addresses[0].address}");
    let pod = |name: &str, host_ip: &str, protocol: &str| {
        let serve = match protocol {
            "UDP" => "while true; do echo udp | nc -u -l -p 8080 -w 1; done",
            _ => "mkdir /www; hostname > /www/index.html; exec busybox httpd -f -p 8080 -h /www",
        };
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node-2}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    command: [/bin/sh, -c, "{serve}"]
    ports: [{{containerPort: 8080, hostPort: 5432, hostIP: {host_ip}, protocol: {protocol}}}]
---
"#
        )
    };
    c.apply(&(pod("loop", "127.0.0.1", "TCP") + &pod("wide", &node, "TCP") + &pod("datagram", &node, "UDP")));
    c.kubectl(&["wait", "--for=condition=Ready", "pod/loop", "pod/wide", "pod/datagram", "--timeout=60s"]);
    until(&c, "client", &format!("{node}:5432"), "the pod at the node's address", all_of(&["wide"]));
    c.apply(&pod("late", &node, "TCP"));
    c.until(&["describe", "pod", "late"], "the reason", |out| {
        out.contains("didn't have free ports for the requested pod ports")
    });
    assert_eq!(answers(&c, "one", &format!("{node}:5432"), 1), ["wide"]);

    // A load balancer leaves such a port alone, and says so.
    c.apply(
        r#"
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 5432, targetPort: 8080}]}
"#,
    );
    let first = jsonpath(&c, "node/node-1", "{.status.addresses[0].address}");
    c.until(
        &["get", "svc", "balanced", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"],
        "the other node's address",
        |out| out == first,
    );
    let described = c.kubectl(&["describe", "svc", "balanced"]);
    assert!(described.contains("port TCP/5432 of node-2 is in use by Pod default/wide"), "{described}");
}
