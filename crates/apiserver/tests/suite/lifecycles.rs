//! Kinds of the network through their whole life, with the calls that clients make one after another: create, list and
//! watch by label, patch, update, status, delete, delete what is left.

use crate::common::{connect, get, remote, send, serve, server};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use krate_apiserver::pki::Pair;
use krate_client::remote::Remote;
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A kind: its group's path and plural, whether it is namespaced, an object of it and a status.
struct Row {
    api: &'static str,
    plural: &'static str,
    namespaced: bool,
    object: Value,
    status: Value,
}

fn rows() -> Vec<Row> {
    let row = |api, plural, namespaced, object| Row { api, plural, namespaced, object, status: Value::Null };
    let networking = "/apis/networking.k8s.io/v1";
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress =
        json!({"spec": {"defaultBackend": backend, "rules": [{"host": "a.b", "http": {"paths": paths}}]}});
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}, {"addresses": ["2.2.3.4"]}]});
    let endpoints =
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80}]}]});
    let policy = json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"from": [{"podSelector": {}}]}]}});
    let service = json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/vip", "ports": [{"port": 80}]}});
    let address = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    vec![
        row("/apis/discovery.k8s.io/v1", "endpointslices", true, slice),
        row("/api/v1", "endpoints", true, endpoints),
        Row { status: address.clone(), ..row("/api/v1", "services", true, service) },
        Row { status: address, ..row(networking, "ingresses", true, ingress) },
        row(networking, "networkpolicies", true, policy),
        row(networking, "ingressclasses", false, json!({"spec": {"controller": "example.com/controller"}})),
    ]
}

struct Client {
    remote: Remote,
    served: crate::common::Served,
    pair: Pair,
}

impl Client {
    async fn ok(&self, method: &str, path: &str, kind: &str, body: Value) -> Value {
        let (code, answer) = send(&self.remote, method, path, kind, body).await;
        assert!((200..300).contains(&code), "{method} {path}: {code} {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        let (code, answer) = get(&self.remote, path).await;
        assert_eq!(code, 200, "{path}: {answer}");
        answer
    }

    async fn delete(&self, path: &str) {
        let (code, answer) = self.remote.raw(http::Method::DELETE, path, None, Bytes::new()).await.unwrap();
        assert_eq!(code, 200, "{path}: {answer:?}");
    }

    /// The first event of a watch.
    async fn event(&self, path: String) -> Value {
        let mut sender = connect(&self.served, &self.pair).await;
        let request = http::Request::get(path).header("host", "localhost");
        let response = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            line.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        serde_json::from_slice(line.split(|b| *b == b'\n').next().unwrap()).unwrap()
    }
}

async fn live(client: &Client, row: &Row) {
    let Row { api, plural, .. } = row;
    let place = if row.namespaced { "/namespaces/default" } else { "" };
    let (base, selector) = (format!("{api}{place}/{plural}"), "labelSelector=special%3Dyes");
    let mut name = String::new();
    for _ in 0..3 {
        let mut object = row.object.clone();
        object["metadata"] = json!({"generateName": "e2e-", "labels": {"special": "yes"}});
        let made = client.ok("POST", &base, "application/json", object).await;
        name = made["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(client.get(&format!("{base}/{name}")).await["metadata"]["uid"], made["metadata"]["uid"]);
    }
    let list = client.get(&format!("{base}?{selector}")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "{plural}");
    let all = client.get(&format!("{api}/{plural}?{selector}")).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3, "{plural} of all namespaces");
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();

    let one = format!("{base}/{name}");
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let mut patched = client.ok("PATCH", &one, MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    patched["metadata"]["annotations"]["updated"] = json!("true");
    let updated = client.ok("PUT", &one, "application/json", patched).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    for watched in [&base, &format!("{api}/{plural}")] {
        let path = format!("{watched}?watch=true&resourceVersion={revision}&{selector}");
        let event = client.event(path).await;
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("MODIFIED"), &json!(name))
        );
        assert_eq!(event["object"]["metadata"]["annotations"], json!({"patched": "true"}));
    }
    if !row.status.is_null() {
        write_status(client, &format!("{one}/status"), &row.status).await;
    }
    let label = json!({"metadata": {"labels": {"more": "yes"}}});
    assert_eq!(client.ok("PATCH", &one, STRATEGIC, label).await["metadata"]["labels"]["more"], "yes");

    let last = client.get(&one).await["metadata"]["resourceVersion"].clone();
    client.delete(&one).await;
    assert_eq!(get(&client.remote, &one).await.0, 404);
    let path = format!("{base}?watch=true&resourceVersion={}&{selector}", last.as_str().unwrap());
    assert_eq!(client.event(path).await["type"], "DELETED");
    client.delete(&format!("{base}?{selector}")).await;
    assert_eq!(client.get(&format!("{base}?{selector}")).await["items"], json!([]), "{plural}");
}

/// A patch of the status takes annotations along; a condition needs no time.
async fn write_status(client: &Client, path: &str, status: &Value) {
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status});
    let mut patched = client.ok("PATCH", path, MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");
    patched["status"]["loadBalancer"]["ingress"][0]["ip"] = json!("203.0.113.2");
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "", "lastTransitionTime": null});
    let has_conditions = patched["kind"] == "Service";
    if has_conditions {
        patched["status"]["conditions"] = json!([condition]);
    }
    client.ok("PUT", path, "application/json", patched).await;
    let read = client.get(path).await;
    assert_eq!(read["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.2");
    if has_conditions {
        assert_eq!(read["status"]["conditions"], json!([condition]));
    }
}

#[tokio::test]
async fn kinds_of_the_network_live_from_create_to_delete_collection() {
    let server = server().await;
    let served = serve(&server).await;
    let remote = remote(&served, &server, "admin", "system:masters");
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let client = Client { remote, served, pair };
    for row in rows() {
        live(&client, &row).await;
    }
}

#[tokio::test]
async fn addresses_of_services_are_objects_with_fixed_names() {
    let server = server().await;
    let served = serve(&server).await;
    let remote = remote(&served, &server, "admin", "system:masters");
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let client = Client { remote, served, pair };
    let base = "/apis/networking.k8s.io/v1/ipaddresses";
    for (name, kind) in [("255.255.255.255", "broadcast"), ("fe80::42:1dff:fe84:f9e2", "link-local")] {
        let parent =
            json!({"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"});
        let address =
            json!({"metadata": {"name": name, "labels": {"type": kind}}, "spec": {"parentRef": parent}});
        client.ok("POST", base, "application/json", address).await;
        let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
        let patched = client.ok("PATCH", &format!("{base}/{name}"), MERGE, patch).await;
        client.ok("PUT", &format!("{base}/{name}"), "application/json", patched).await;
    }
    client.delete(&format!("{base}/255.255.255.255")).await;
    let selector = "labelSelector=type%3Dlink-local";
    client.delete(&format!("{base}?{selector}")).await;
    let left = client.get(&format!("{base}?labelSelector=type")).await;
    assert_eq!(left["items"], json!([]));
    let range = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = client.ok("PATCH", range, MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    client.ok("PUT", range, "application/json", patched).await;
}
