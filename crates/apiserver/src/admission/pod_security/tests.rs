//! What each check finds, in the original's words.

use super::checks::find;
use super::policy::{Level, Version};
use super::{existing, told};
use krate_api::Kind as _;
use krate_api::types::core::v1::Pod;
use serde_json::{Value, json};

fn found_in(level: Level, version: Version, spec: Value) -> String {
    let pod = Pod::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    told(&find(level, version, &pod.metadata, pod.spec.as_ref().unwrap()))
}

fn baseline(spec: Value) -> String {
    found_in(Level::Baseline, Version::Latest, spec)
}

fn restricted(spec: Value) -> String {
    found_in(Level::Restricted, Version::Latest, spec)
}

/// Containers `a`, `b`, ... with these security contexts.
fn with(contexts: &[Value]) -> Value {
    let names = "abcdef".chars();
    let list: Value =
        names.zip(contexts).map(|(n, c)| json!({"name": n.to_string(), "securityContext": c})).collect();
    json!({"containers": list})
}

/// What `restricted` asks of a container.
fn good() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn good_but(change: Value) -> Value {
    let mut context = good();
    for (key, value) in change.as_object().unwrap() {
        context[key] = value.clone();
    }
    with(&[context])
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    assert_eq!(baseline(with(&[json!({})])), "");
    assert_eq!(
        restricted(with(&[json!({})])),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod \
         or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(restricted(with(&[good(), good()])), "");
}

#[test]
fn what_baseline_forbids() {
    let cases = [
        (
            json!({"hostNetwork": true, "hostIPC": true, "containers": []}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            json!({"containers": [], "volumes": [{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volumes \"x\", \"y\")",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 9}]}]}),
            "hostPort (container \"a\" uses hostPorts 80, 9)",
        ),
        (
            with(&[json!({"privileged": true}), json!({"privileged": true})]),
            "privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
        ),
        (
            with(&[json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}})]),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            with(&[json!({"procMount": "Unmasked"})]),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [{"name": "a"}]}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"},
                {"name": "net.ipv4.tcp_rmem", "value": "1"}]}, "containers": []}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            with(&[json!({"seLinuxOptions": {"type": "foo", "user": "u", "role": "r"}})]),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"foo\"; user may not \
             be set; role may not be set)",
        ),
        (
            with(&[json!({"appArmorProfile": {"type": "Unconfined"}})]),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            with(&[json!({"windowsOptions": {"hostProcess": true}})]),
            "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 80, "host": "h"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
    ];
    for (spec, wanted) in cases {
        assert_eq!(baseline(spec.clone()), wanted, "{spec}");
    }
}

#[test]
fn what_restricted_forbids_beside() {
    let cases = [
        (json!({"runAsUser": 0}), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (
            json!({"runAsNonRoot": false}),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
    ];
    for (change, wanted) in cases {
        assert_eq!(restricted(good_but(change.clone())), wanted, "{change}");
    }
    let mut spec = with(&[good()]);
    spec["volumes"] =
        json!([{"name": "n", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}]);
    assert_eq!(
        restricted(spec),
        "restricted volume types (volume \"n\" uses restricted volume type \"nfs\")"
    );
}

#[test]
fn a_version_has_the_checks_of_its_time() {
    let probe =
        json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 80, "host": "h"}}}]});
    assert_eq!(found_in(Level::Baseline, Version::Minor(33), probe), "");
    let mut windows = with(&[json!({"runAsNonRoot": true})]);
    windows["os"] = json!({"name": "windows"});
    assert_eq!(restricted(windows.clone()), "");
    assert!(found_in(Level::Restricted, Version::Minor(24), windows).contains("allowPrivilegeEscalation"));
}

#[test]
fn pods_that_are_there_are_told_by_what_they_share() {
    let rule = super::Rule { level: Level::Baseline, version: Version::Latest };
    let groups =
        vec![("privileged".to_owned(), "b".to_owned(), 3), ("hostPort".to_owned(), "a".to_owned(), 1)];
    assert_eq!(
        existing("kube-system", rule, groups),
        [
            "existing pods in namespace \"kube-system\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a: hostPort",
            "b (and 2 other pods): privileged",
        ]
    );
}
