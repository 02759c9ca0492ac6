//! The life of a web application: deployed, exposed, updated, rolled back, scaled.

use crate::cluster::Cluster;

#[test]
fn a_deployment_is_rolled_out_exposed_updated_undone_and_scaled() {
    let c = Cluster::start("app", 2);
    let manifest =
        c.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--dry-run=client", "-o", "yaml"]);
    c.apply(&manifest);
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let wide = c.kubectl(&["get", "deploy,rs,pods", "-o", "wide"]);
    assert!(wide.contains("deployment.apps/web") && wide.contains("replicaset.apps/web-"), "{wide}");
    assert!(wide.contains("1/1") && wide.contains("Running") && wide.contains("nginx:1"), "{wide}");

    let service = c.kubectl(&[
        "expose", "deployment", "web", "--port=80", "--target-port=80", "--type=NodePort", "--name=web1",
        "--overrides={\"spec\":{\"ports\":[{\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80,\"nodePort\":30080}]}}",
        "--dry-run=client", "-o", "yaml",
    ]);
    c.apply(&service);
    let services = c.kubectl(&["get", "pods,svc"]);
    assert!(services.contains("service/web1") && services.contains("80:30080/TCP"), "{services}");
    c.fetch_until("welcome to nginx:1");

    c.kubectl(&["set", "image", "deployment", "web", "nginx=nginx:2"]);
    let status = c.kubectl(&["rollout", "status", "deployment", "web", "--timeout=60s"]);
    assert!(status.contains("deployment \"web\" successfully rolled out"), "{status}");
    c.fetch_until("welcome to nginx:2");
    let history = c.kubectl(&["rollout", "history", "deployment", "web"]);
    assert!(
        history.contains("REVISION") && history.contains("\n1 ") && history.contains("\n2 "),
        "{history}"
    );
    c.kubectl(&["rollout", "undo", "deployment", "web"]);
    c.kubectl(&["rollout", "status", "deployment", "web", "--timeout=60s"]);
    c.fetch_until("welcome to nginx:1");
    c.kubectl(&["rollout", "undo", "deployment", "web", "--to-revision=2"]);
    c.kubectl(&["rollout", "status", "deployment", "web", "--timeout=60s"]);
    c.fetch_until("welcome to nginx:2");

    c.kubectl(&["scale", "deployment", "web", "--replicas=10"]);
    c.kubectl(&["rollout", "status", "deployment", "web", "--timeout=60s"]);
    let deployment = c.kubectl(&["get", "deployment", "web"]);
    assert!(deployment.contains("10/10"), "{deployment}");
    let nodes = c.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{\"\\n\"}{end}"]);
    assert!(nodes.contains("node-1") && nodes.contains("node-2"), "both nodes run pods: {nodes}");
    for _ in 0..20 {
        assert!(c.fetch().unwrap().contains("welcome to nginx:2"));
    }
    c.kubectl(&["delete", "deployment", "web", "--wait"]);
    c.until(&["get", "pods", "-o", "name"], "the pods to be gone", |out| out.trim().is_empty());
}

#[test]
fn every_verb_of_kubectl_works_on_an_object() {
    let c = Cluster::start("verbs", 1);
    c.kubectl(&["create", "deployment", "web", "--image=nginx:1"]);
    c.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    c.kubectl(&["label", "deployment", "web", "tier=front"]);
    c.kubectl(&["annotate", "deployment", "web", "note=hello"]);
    let found = c.kubectl(&[
        "get",
        "deployment",
        "-l",
        "tier=front",
        "-o",
        "jsonpath={.items[0].metadata.annotations.note}",
    ]);
    assert_eq!(found, "hello");
    c.kubectl(&["patch", "deployment", "web", "-p", "{\"spec\":{\"replicas\":2}}"]);
    c.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        "[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":3}]",
    ]);
    c.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=merge",
        "-p",
        "{\"metadata\":{\"annotations\":{\"note\":null}}}",
    ]);
    assert_eq!(
        c.kubectl(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.spec.replicas}{.metadata.annotations.note}"
        ]),
        "3"
    );
    let yaml = c.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    let said = c.kubectl_in(&["diff", "-f", "-"], &yaml.replace("replicas: 3", "replicas: 4"));
    assert!(said.out.contains("+  replicas: 4"), "{}{}", said.out, said.err);
    let said = c.kubectl_in(&["replace", "-f", "-"], &yaml.replace("replicas: 3", "replicas: 1"));
    assert!(said.ok || said.err.contains("the object has been modified"), "{}", said.err);

    let explain = c.kubectl(&["explain", "pod.spec", "--recursive"]);
    assert!(explain.contains("containers") && explain.contains("imagePullPolicy"), "{explain}");
    let resources = c.kubectl(&["api-resources"]);
    assert!(
        resources.contains("deployments") && resources.contains("apps/v1") && resources.contains("deploy"),
        "{resources}"
    );
    assert_eq!(c.kubectl(&["auth", "can-i", "create", "pods"]).trim(), "yes");
    assert!(c.try_kubectl(&["auth", "can-i", "create", "pods", "--as=jane"]).out.starts_with("no"));
    let node = c.kubectl(&["describe", "node", "node-1"]);
    assert!(node.contains("KubeletReady") && node.contains("Allocatable"), "{node}");
    let service = c.kubectl(&["describe", "svc", "kubernetes"]);
    assert!(service.contains("ClusterIP") && service.contains("6443"), "{service}");
    let pod = c.kubectl(&["describe", "pod", "-l", "app=web"]);
    assert!(pod.contains("Successfully assigned default/web-") && pod.contains("Container started"), "{pod}");
    let events = c.kubectl(&["get", "events"]);
    assert!(events.contains("ScalingReplicaSet") && events.contains("SuccessfulCreate"), "{events}");
    let mut watch = c.kubectl_background(&["get", "pods", "-w", "-o", "name"]);
    watch.read_until("pod/web-");
    c.kubectl(&["delete", "deployment", "web"]);
}
