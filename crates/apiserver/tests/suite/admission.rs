//! Admission, access and Services, through the in-process transport.

use crate::common::{admin, config_map, config_maps, pod, pods, server, user};
use krate_api::meta::DeleteOptions;
use krate_api::types::core::v1::{LimitRange, Namespace, Node, Pod, Service};
use krate_api::types::networking::v1::IPAddress;
use krate_api::types::node::v1::RuntimeClass;
use krate_api::types::rbac::v1::{Role, RoleBinding};
use krate_api::{Kind, Reason};
use krate_apiserver::UserInfo;
use krate_client::{Api, Options, PatchKind};
use serde_json::json;

fn of<K: Kind>(value: serde_json::Value) -> K {
    K::from_value(value).unwrap()
}

#[tokio::test]
async fn nothing_is_created_where_no_namespace_is() {
    let server = server().await;
    let error = config_maps(&admin(&server)).create(config_map("nowhere", "a")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn nothing_is_created_in_a_terminating_namespace() {
    let server = server().await;
    let transport = admin(&server);
    let namespaces = Api::<Namespace>::new(transport.clone());
    namespaces.create(of(json!({"metadata": {"name": "going"}}))).await.unwrap();
    namespaces.delete("", "going", DeleteOptions::default()).await.unwrap();
    let held = namespaces.get("", "going").await.unwrap();
    assert_eq!(held.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let error = config_maps(&transport).create(config_map("going", "a")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (
            403,
            "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated"
        )
    );
    let error = namespaces.delete("", "default", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(error.message(), "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn a_pod_gets_its_account_token_tolerations_and_priority() {
    let server = server().await;
    let made = pods(&admin(&server)).create(pod("default", "a")).await.unwrap();
    let spec = made.spec.as_ref().unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert!(volume.name.starts_with("kube-api-access-"));
    assert_eq!(volume.projected.as_ref().unwrap().sources.as_ref().unwrap().len(), 3);
    let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
    assert_eq!(mounts[0].mount_path, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec.tolerations.as_ref().unwrap().len(), 2);
    assert_eq!((spec.priority, spec.preemption_policy.as_deref()), (Some(0), Some("PreemptLowerPriority")));
    let mut critical = pod("default", "b");
    critical.spec.as_mut().unwrap().priority_class_name = Some("system-node-critical".to_owned());
    let made = pods(&admin(&server)).create(critical).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().priority, Some(2_000_001_000));
}

#[tokio::test]
async fn a_pod_without_its_account_or_class_is_refused() {
    let server = server().await;
    let pods = pods(&admin(&server));
    let mut stray = pod("default", "a");
    stray.spec.as_mut().unwrap().service_account_name = Some("ghost".to_owned());
    assert_eq!(
        pods.create(stray).await.unwrap_err().message(),
        "pods \"a\" is forbidden: error looking up service account default/ghost: serviceaccount \"ghost\" not found"
    );
    let mut classy = pod("default", "b");
    classy.spec.as_mut().unwrap().priority_class_name = Some("none".to_owned());
    assert_eq!(
        pods.create(classy).await.unwrap_err().message(),
        "pods \"b\" is forbidden: no PriorityClass with name none was found"
    );
}

#[tokio::test]
async fn runtime_classes_give_pods_their_overhead_and_place() {
    let server = server().await;
    let transport = admin(&server);
    let pods = pods(&transport);
    let of_class = |name: &str| {
        let mut pod = pod("default", name);
        pod.spec.as_mut().unwrap().runtime_class_name = Some("fast".to_owned());
        pod
    };
    assert_eq!(
        pods.create(of_class("a")).await.unwrap_err().message(),
        "pods \"a\" is forbidden: pod rejected: RuntimeClass \"fast\" not found"
    );
    let class: RuntimeClass = of(json!({
        "metadata": {"name": "fast"}, "handler": "fast",
        "overhead": {"podFixed": {"cpu": "0.25"}},
        "scheduling": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "b", "operator": "Exists"}]},
    }));
    Api::new(transport.clone()).create(class).await.unwrap();
    let made = pods.create(of_class("a")).await.unwrap();
    let spec = made.spec.as_ref().unwrap();
    assert_eq!(spec.overhead.as_ref().unwrap()["cpu"].0, "250m");
    assert_eq!(spec.node_selector.as_ref().unwrap()["a"], "1");
    assert!(spec.tolerations.iter().flatten().any(|t| t.key.as_deref() == Some("b")));

    let mut elsewhere = of_class("b");
    elsewhere.spec.as_mut().unwrap().node_selector = Some([("a".to_owned(), "2".to_owned())].into());
    assert_eq!(
        pods.create(elsewhere).await.unwrap_err().message(),
        "pods \"b\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[a] = 1; \
         pod.spec.nodeSelector[a] = 2"
    );
    let mut greedy = pod("default", "c");
    greedy.spec.as_mut().unwrap().overhead = serde_json::from_value(json!({"cpu": "1"})).unwrap();
    assert_eq!(
        pods.create(greedy).await.unwrap_err().message(),
        "pods \"c\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass \
         defined Overhead"
    );
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let server = server().await;
    let transport = admin(&server);
    let range: LimitRange = of(json!({
        "metadata": {"name": "l", "namespace": "default"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]},
    }));
    Api::new(transport.clone()).create(range).await.unwrap();
    let made = pods(&transport).create(pod("default", "a")).await.unwrap();
    let resources = made.spec.as_ref().unwrap().containers[0].resources.clone().unwrap();
    assert_eq!(resources.limits.unwrap()["cpu"].0, "500m");
    assert_eq!(resources.requests.unwrap()["cpu"].0, "100m");
    let mut greedy = pod("default", "b");
    greedy.spec.as_mut().unwrap().containers[0].resources =
        serde_json::from_value(json!({"limits": {"cpu": "2"}})).unwrap();
    assert_eq!(
        pods(&transport).create(greedy).await.unwrap_err().message(),
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[tokio::test]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let server = server().await;
    let transport = admin(&server);
    let services = Api::<Service>::new(transport.clone());
    let kubernetes = services.get("default", "kubernetes").await.unwrap();
    assert_eq!(kubernetes.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let service = |name: &str, spec: serde_json::Value| -> Service {
        of(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    };
    let spec =
        json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30080}]});
    let web = services.create(service("web", spec.clone())).await.unwrap();
    let held = web.spec.as_ref().unwrap();
    let address = held.cluster_ip.clone().unwrap();
    assert!(address.starts_with("10."), "{address}");
    assert_eq!(held.cluster_ips.as_deref(), Some(&[address.clone()][..]));
    assert_eq!(held.ip_families.as_deref(), Some(&["IPv4".to_owned()][..]));
    assert_eq!(held.ip_family_policy.as_deref(), Some("SingleStack"));
    let error = services.create(service("other", spec)).await.unwrap_err();
    assert!(error.is(Reason::Invalid));
    assert_eq!(
        error.message(),
        "Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    let spec = json!({"clusterIP": address, "ports": [{"port": 80}]});
    let error = services.create(service("third", spec)).await.unwrap_err();
    assert!(error.message().ends_with("provided IP is already allocated"), "{}", error.message());
    services.delete("default", "web", DeleteOptions::default()).await.unwrap();
    let spec = json!({"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": 30080}]});
    services.create(service("heir", spec)).await.unwrap();
    let addresses = Api::<IPAddress>::new(transport).list("", Options::default()).await.unwrap();
    assert_eq!(addresses.items.len(), 2);
}

#[tokio::test]
async fn a_service_gives_back_what_its_new_type_does_not_need() {
    let server = server().await;
    let services = Api::<Service>::new(admin(&server));
    let made = services
        .create(of(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30080}]},
        })))
        .await
        .unwrap();
    let mut plain = (*made).clone();
    plain.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    let plain = services.update(plain).await.unwrap();
    assert_eq!(plain.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, None);
    assert_eq!(plain.spec.as_ref().unwrap().cluster_ip, made.spec.as_ref().unwrap().cluster_ip);
    let mut back = (*plain).clone();
    back.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
    let back = services.update(back).await.unwrap();
    assert!(back.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port.is_some());
}

#[tokio::test]
async fn headless_and_external_names_have_no_address() {
    let server = server().await;
    let services = Api::<Service>::new(admin(&server));
    let headless: Service = of(json!({
        "metadata": {"name": "h", "namespace": "default"},
        "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]},
    }));
    let made = services.create(headless).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().cluster_ips.as_deref(), Some(&["None".to_owned()][..]));
    let external: Service = of(json!({
        "metadata": {"name": "e", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.com"},
    }));
    let made = services.create(external).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().cluster_ip.as_deref().unwrap_or(""), "");
}

#[tokio::test]
async fn a_role_binding_lets_in_and_nobody_gives_more_than_they_have() {
    let server = server().await;
    let transport = admin(&server);
    let role: Role = of(json!({
        "metadata": {"name": "reader", "namespace": "default"},
        "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}],
    }));
    Api::new(transport.clone()).create(role).await.unwrap();
    let binding = |name: &str, kind: &str, role: &str, user: &str| -> RoleBinding {
        of(json!({
            "metadata": {"name": name, "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
        }))
    };
    let bindings = Api::<RoleBinding>::new(transport.clone());
    bindings.create(binding("jane", "Role", "reader", "jane")).await.unwrap();
    bindings.create(binding("ed", "ClusterRole", "admin", "ed")).await.unwrap();
    let jane = config_maps(&user(&server, "jane"));
    // The index follows the store; it has the binding within a few wake-ups of the runtime.
    let mut allowed = jane.list("default", Options::default()).await;
    for _ in 0..100 {
        if allowed.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
        allowed = jane.list("default", Options::default()).await;
    }
    allowed.unwrap();
    let refused = jane.create(config_map("default", "x")).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "configmaps is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    let ed = Api::<RoleBinding>::new(user(&server, "ed"));
    ed.create(binding("more", "ClusterRole", "view", "joe")).await.unwrap();
    let refused = ed.create(binding("most", "ClusterRole", "cluster-admin", "ed")).await.unwrap_err();
    assert!(
        refused.message().contains("is attempting to grant RBAC permissions not currently held"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_kubelet_writes_its_own_node_only() {
    let server = server().await;
    let kubelet = server.transport(UserInfo::new("system:node:n1", &["system:nodes"]));
    let nodes = Api::<Node>::new(kubelet.clone());
    let made = nodes.create(of(json!({"metadata": {"name": "n1"}}))).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().taints.as_ref().unwrap()[0].key, "node.kubernetes.io/not-ready");
    let refused = nodes.create(of(json!({"metadata": {"name": "n2"}}))).await.unwrap_err();
    assert_eq!(refused.code(), 403);
    assert!(nodes.get("", "n1").await.is_ok());
    let mine = Options { field_selector: "spec.nodeName=n1".to_owned(), ..Default::default() };
    assert!(pods(&kubelet).list("", mine).await.is_ok());
    assert!(pods(&kubelet).list("", Options::default()).await.unwrap_err().is(Reason::Forbidden));
}

#[tokio::test]
async fn a_kubelet_reads_what_its_pod_needs_as_soon_as_it_hears_of_the_pod() {
    let server = server().await;
    let (kubelet, admin) =
        (server.transport(UserInfo::new("system:node:n1", &["system:nodes"])), admin(&server));
    config_maps(&admin).create(config_map("default", "of-nobody")).await.unwrap();
    for n in 0..20 {
        let name = format!("settings-{n}");
        config_maps(&admin).create(config_map("default", &name)).await.unwrap();
        let mut needs = pod("default", &format!("p-{n}"));
        let spec = needs.spec.as_mut().unwrap();
        spec.node_name = Some("n1".to_owned());
        spec.volumes =
            Some(vec![serde_json::from_value(json!({"name": "v", "configMap": {"name": name}})).unwrap()]);
        pods(&admin).create(needs).await.unwrap();
        config_maps(&kubelet).get("default", &name).await.unwrap();
    }
    let refused = config_maps(&kubelet).get("default", "of-nobody").await.unwrap_err();
    assert!(
        refused.message().contains("no relationship found between node 'n1' and this object"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_pod_with_a_sidecar_is_bounded_by_both_together() {
    let server = server().await;
    let admin = admin(&server);
    let range: LimitRange = of(json!({
        "metadata": {"name": "bounds", "namespace": "default"},
        "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]},
    }));
    Api::<LimitRange>::new(admin.clone()).create(range).await.unwrap();
    let with = |name: &str, restart: Option<&str>| {
        let resources = json!({"limits": {"cpu": "600m"}, "requests": {"cpu": "600m"}});
        let container = |name: &str, restart: Option<&str>| json!({"name": name, "image": "i", "resources": resources, "restartPolicy": restart});
        let spec =
            json!({"containers": [container("main", None)], "initContainers": [container("first", restart)]});
        of::<Pod>(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    };
    pods(&admin).create(with("in-turn", None)).await.unwrap();
    let refused = pods(&admin).create(with("together", Some("Always"))).await.unwrap_err();
    assert!(refused.message().contains("maximum cpu usage per Pod is 1, but limit is 1200m"), "{refused}");
}

#[tokio::test]
async fn bootstrap_is_idempotent() {
    let server = server().await;
    let before = Api::<Role>::new(admin(&server)).list("", Options::default()).await.unwrap();
    server.bootstrap().await.unwrap();
    let after = Api::<Role>::new(admin(&server)).list("", Options::default()).await.unwrap();
    assert_eq!((before.revision, before.items.len()), (after.revision, after.items.len()));
    assert!(!before.items.is_empty());
}

#[tokio::test]
async fn a_pod_carries_the_zone_of_its_node() {
    const ZONE: &str = "topology.kubernetes.io/zone";
    const REGION: &str = "topology.kubernetes.io/region";
    let server = server().await;
    let transport = admin(&server);
    let node = json!({"metadata": {"name": "n1", "labels": {ZONE: "a", REGION: "r", "other": "x"}}});
    Api::<Node>::new(transport.clone()).create(of(node)).await.unwrap();
    let pods = pods(&transport);
    let mut marked = pod("default", "bound");
    marked.metadata.labels = Some([(REGION.to_owned(), "mine".to_owned())].into());
    pods.create(marked).await.unwrap();
    pods.bind("default", "bound", "", "n1").await.unwrap();
    let label = |pod: &Pod, key: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let bound = pods.get("default", "bound").await.unwrap();
    assert_eq!(label(&bound, ZONE).as_deref(), Some("a"));
    assert_eq!(label(&bound, REGION).as_deref(), Some("mine"), "what the pod has stays");
    assert_eq!(label(&bound, "other"), None);
    let mut placed = pod("default", "placed");
    placed.spec.get_or_insert_default().node_name = Some("n1".to_owned());
    let placed = pods.create(placed).await.unwrap();
    assert_eq!(label(&placed, ZONE).as_deref(), Some("a"));
    let mut early = pod("default", "early");
    early.spec.get_or_insert_default().node_name = Some("none".to_owned());
    assert_eq!(label(&pods.create(early).await.unwrap(), ZONE), None, "a node that is not there");
}

#[tokio::test]
async fn a_pod_is_not_resized_beyond_its_node() {
    let server = server().await;
    let transport = admin(&server);
    let amounts = json!({"cpu": "2", "memory": "1Gi"});
    let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": amounts, "capacity": amounts}});
    Api::<Node>::new(transport.clone()).create(of(node)).await.unwrap();
    let pods = pods(&transport);
    let mut small = pod("default", "a");
    let spec = small.spec.get_or_insert_default();
    spec.node_name = Some("n1".to_owned());
    spec.containers[0].resources =
        serde_json::from_value(json!({"requests": {"cpu": "1", "memory": "1Mi"}})).unwrap();
    let small = pods.create(small).await.unwrap();
    let resize = |cpu: &str, memory: &str| {
        let requests = json!({"cpu": cpu, "memory": memory});
        let containers = json!([{"name": small.spec.as_ref().unwrap().containers[0].name,
            "resources": {"requests": requests}}]);
        let patch = json!({"spec": {"containers": containers}}).to_string();
        let pods = &pods;
        async move { pods.patch_at("default", "a", "resize", PatchKind::StrategicMerge, patch).await }
    };
    let refused = resize("3", "2Gi").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (
            403,
            "pods \"a\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: \
             2000; memory, requested: 2147483648, allocatable: 1073741824"
        )
    );
    let causes = refused.0.details.as_ref().and_then(|d| d.causes.clone()).unwrap();
    assert_eq!(causes[0].reason.as_deref(), Some("NodeCapacity"));
    resize("2", "1Gi").await.unwrap();
}
