//! Subresources, reviews and patches.

use crate::common::{admin, bearer, get, pod, pods, remote, send, serve, server, user};
use krate_api::meta::DeleteOptions;
use krate_api::types::apps::v1::Deployment;
use krate_api::types::authentication::v1::{TokenRequest, TokenReview};
use krate_api::types::authorization::v1::SelfSubjectAccessReview;
use krate_api::types::coordination::v1::Lease;
use krate_api::types::core::v1::{ComponentStatus, Namespace, Secret, ServiceAccount};
use krate_api::types::policy::v1::PodDisruptionBudget;
use krate_api::{Kind, Reason};
use krate_client::{Api, PatchKind, Request, Verb};
use serde_json::json;

fn of<K: Kind>(value: serde_json::Value) -> K {
    K::from_value(value).unwrap()
}

fn deployment(name: &str) -> Deployment {
    of(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}},
    }))
}

#[tokio::test]
async fn a_workload_is_scaled() {
    let server = server().await;
    let api = Api::<Deployment>::new(admin(&server));
    api.create(deployment("web")).await.unwrap();
    let mut scale = (*api.scale("default", "web").await.unwrap()).clone();
    assert_eq!(scale.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(scale.status.as_ref().unwrap().selector.as_deref(), Some("app=web"));
    scale.spec.as_mut().unwrap().replicas = Some(4);
    let after = api.update_scale("default", "web", scale.clone()).await.unwrap();
    assert_eq!(after.spec.as_ref().unwrap().replicas, Some(4));
    let whole = api.get("default", "web").await.unwrap();
    assert_eq!((whole.spec.as_ref().unwrap().replicas, whole.metadata.generation), (Some(4), Some(2)));
    assert!(api.update_scale("default", "web", scale.clone()).await.unwrap_err().is_conflict());
    scale.metadata.resource_version = None;
    scale.spec.as_mut().unwrap().replicas = Some(-1);
    assert_eq!(
        api.update_scale("default", "web", scale).await.unwrap_err().message(),
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn patches_of_every_kind() {
    let server = server().await;
    let api = Api::<Deployment>::new(admin(&server));
    api.create(deployment("web")).await.unwrap();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "k"}]}}}});
    let after = api.patch("default", "web", PatchKind::StrategicMerge, image.to_string()).await.unwrap();
    let containers = &after.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
    assert_eq!(containers.len(), 2);
    assert!(containers.iter().any(|c| c.name == "b" && c.image.as_deref() == Some("k")));
    let replicas = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let after = api.patch("default", "web", PatchKind::Json, replicas.to_string()).await.unwrap();
    assert_eq!(after.spec.as_ref().unwrap().replicas, Some(3));
    let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 9}]);
    let error = api.patch("default", "web", PatchKind::Json, failing.to_string()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (422, "the server rejected our request due to an error in our request")
    );
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 7}});
    let error = api.patch("default", "web", PatchKind::Merge, stale.to_string()).await.unwrap_err();
    assert!(error.is_conflict());
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = server().await;
    let pods = pods(&admin(&server));
    pods.create(pod("default", "a")).await.unwrap();
    let nominated = json!({"status": {"nominatedNodeName": "n1"}}).to_string();
    pods.patch_status("default", "a", PatchKind::Merge, nominated).await.unwrap();
    pods.bind("default", "a", "", "n1").await.unwrap();
    let bound = pods.get("default", "a").await.unwrap();
    assert_eq!(bound.spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(bound.status.as_ref().unwrap().nominated_node_name, None);
    let conditions = bound.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert!(conditions.iter().any(|c| c.type_ == "PodScheduled" && c.status == "True"));
    let error = pods.bind("default", "a", "", "n2").await.unwrap_err();
    assert!(error.is_conflict());
    assert_eq!(
        error.message(),
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
}

#[tokio::test]
async fn a_budget_puts_off_an_eviction() {
    let server = server().await;
    let transport = admin(&server);
    let pods = pods(&transport);
    let mut running = pod("default", "a");
    running.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    let made = pods.create(running).await.unwrap();
    let mut running = (*made).clone();
    running.status = serde_json::from_value(json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
    }))
    .unwrap();
    pods.update_status(running).await.unwrap();
    let budgets = Api::<PodDisruptionBudget>::new(transport);
    let made = budgets
        .create(of(json!({
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
        })))
        .await
        .unwrap();
    let mut counted = (*made).clone();
    counted.status = Some(krate_api::types::policy::v1::PodDisruptionBudgetStatus {
        observed_generation: Some(1),
        desired_healthy: Some(1),
        current_healthy: Some(1),
        expected_pods: Some(1),
        disruptions_allowed: Some(0),
        ..Default::default()
    });
    let counted = budgets.update_status(counted).await.unwrap();
    let error = pods.evict("default", "a", None).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    let mut free = (*counted).clone();
    free.status.as_mut().unwrap().disruptions_allowed = Some(1);
    budgets.update_status(free).await.unwrap();
    pods.evict("default", "a", None).await.unwrap();
    assert!(pods.get("default", "a").await.unwrap_err().is_not_found());
    let spent = budgets.get("default", "b").await.unwrap();
    assert_eq!(spent.status.as_ref().unwrap().disruptions_allowed, Some(0));
}

#[tokio::test]
async fn a_token_is_good_until_its_pod_is_gone() {
    let server = server().await;
    let transport = admin(&server);
    let made = pods(&transport).create(pod("default", "a")).await.unwrap();
    let request: TokenRequest = of(json!({"spec": {
        "audiences": [],
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made.metadata.uid},
    }}));
    let accounts = Api::<ServiceAccount>::new(transport.clone());
    let answer = accounts.request_token("default", "default", request).await.unwrap();
    let token = answer.status.as_ref().unwrap().token.clone().unwrap();
    let served = serve(&server).await;
    let client = bearer(&served, &token);
    let body = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, who) = send(&client, "POST", path, "application/json", body).await;
    assert_eq!(code, 201, "{who}");
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    assert_eq!(who["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"][0], "a");
    let review: TokenReview = of(json!({"spec": {"token": token}}));
    let mut ask = Request::of::<TokenReview>(Verb::Create, "", "");
    ask.body = Some(krate_client::Body::Object(Box::new(review)));
    let krate_client::Reply::Object(answer) = transport.send(ask).await.unwrap() else { panic!("an object") };
    assert_eq!(answer.typed::<TokenReview>().unwrap().status.as_ref().unwrap().authenticated, Some(true));
    pods(&transport).delete("default", "a", DeleteOptions::default()).await.unwrap();
    assert_eq!(get(&client, "/api").await.0, 401);
}

#[tokio::test(start_paused = true)]
async fn a_token_expires() {
    let clock = krate_base::Clock::starting_at(krate_base::Timestamp::from_second(1_800_000_000).unwrap());
    let server = crate::common::server_at(clock).await;
    let transport = admin(&server);
    let request: TokenRequest = of(json!({"spec": {"audiences": [], "expirationSeconds": 600}}));
    let accounts = Api::<ServiceAccount>::new(transport.clone());
    let answer = accounts.request_token("default", "default", request).await.unwrap();
    let token = answer.status.as_ref().unwrap().token.clone().unwrap();
    let review = || {
        let mut ask = Request::of::<TokenReview>(Verb::Create, "", "");
        let review: TokenReview = of(json!({"spec": {"token": token}}));
        ask.body = Some(krate_client::Body::Object(Box::new(review)));
        ask
    };
    let good = |reply| match reply {
        krate_client::Reply::Object(o) => {
            o.typed::<TokenReview>().unwrap().status.clone().and_then(|s| s.authenticated).unwrap_or(false)
        }
        _ => false,
    };
    assert!(good(transport.send(review()).await.unwrap()));
    tokio::time::advance(std::time::Duration::from_secs(601)).await;
    assert!(!good(transport.send(review()).await.unwrap()));
    let short: TokenRequest = of(json!({"spec": {"audiences": [], "expirationSeconds": 10}}));
    let error = accounts.request_token("default", "default", short).await.unwrap_err();
    assert!(error.is(Reason::Invalid));
}

#[tokio::test]
async fn everybody_may_ask_what_they_may() {
    let server = server().await;
    let jane = user(&server, "jane");
    let ask = |verb: &str| {
        let review: SelfSubjectAccessReview = of(
            json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}}),
        );
        let mut ask = Request::of::<SelfSubjectAccessReview>(Verb::Create, "", "");
        ask.body = Some(krate_client::Body::Object(Box::new(review)));
        ask
    };
    let krate_client::Reply::Object(answer) = jane.send(ask("get")).await.unwrap() else {
        panic!("an object")
    };
    assert!(!answer.typed::<SelfSubjectAccessReview>().unwrap().status.as_ref().unwrap().allowed);
    let krate_client::Reply::Object(answer) = admin(&server).send(ask("get")).await.unwrap() else {
        panic!()
    };
    assert!(answer.typed::<SelfSubjectAccessReview>().unwrap().status.as_ref().unwrap().allowed);
}

#[tokio::test]
async fn a_finalized_namespace_is_gone() {
    let server = server().await;
    let transport = admin(&server);
    let namespaces = Api::<Namespace>::new(transport.clone());
    namespaces.create(of(json!({"metadata": {"name": "going"}}))).await.unwrap();
    namespaces.delete("", "going", DeleteOptions::default()).await.unwrap();
    let mut held = (*namespaces.get("", "going").await.unwrap()).clone();
    assert_eq!(held.spec.as_ref().unwrap().finalizers.as_deref(), Some(&["kubernetes".to_owned()][..]));
    held.spec.as_mut().unwrap().finalizers = None;
    let mut request = Request::of::<Namespace>(Verb::Update, "", "going");
    request.subresource = "finalize".to_owned();
    request.body = Some(krate_client::Body::Object(Box::new(held)));
    transport.send(request).await.unwrap();
    assert!(namespaces.get("", "going").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn field_validation_refuses_warns_or_ignores() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let base = "/api/v1/namespaces/default/configmaps";
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "dota": {}});
    let strict = format!("{base}?fieldValidation=Strict");
    let (code, status) = send(&admin, "POST", &strict, "application/json", body.clone()).await;
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dota\""
    );
    let response = admin
        .open(http::Method::POST, base, Some("application/json"), body.to_string().into())
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"dota\\\"\"");
    let wrong = json!({"metadata": {"name": "b"}, "data": 5});
    let (code, status) = send(&admin, "POST", base, "application/json", wrong).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("json: cannot unmarshal number"), "{status}");
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "b"}});
    let (_, status) = send(&admin, "POST", base, "application/json", pod).await;
    assert_eq!(
        status["message"],
        "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"
    );
}

#[tokio::test(start_paused = true)]
async fn components_are_healthy_while_their_leases_are_held() {
    let clock = krate_base::Clock::starting_at(krate_base::Timestamp::from_second(1_800_000_000).unwrap());
    let server = crate::common::server_at(clock).await;
    let transport = admin(&server);
    let lease: Lease = of(json!({
        "metadata": {"name": "kube-scheduler", "namespace": "kube-system"},
        "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 15, "renewTime": "2027-01-15T08:00:00.000000Z"}}));
    Api::new(transport.clone()).create(lease).await.unwrap();
    let statuses = Api::<ComponentStatus>::new(transport.clone());
    let shown = || async {
        let list = statuses.list("", Default::default()).await.unwrap();
        let line = |status: &ComponentStatus| {
            let condition = &status.conditions.as_ref().unwrap()[0];
            let name = status.metadata.name.clone().unwrap();
            format!("{name} {} {}", condition.status, condition.message.as_deref().unwrap())
        };
        list.items.iter().map(|status| line(status)).collect::<Vec<_>>()
    };
    let nobody = |name| format!("{name} False the lease kube-system/kube-{name} is held by nobody");
    let store = "etcd-0 True ok".to_owned();
    let expected = ["scheduler True ok".to_owned(), nobody("controller-manager"), store.clone()];
    assert_eq!(shown().await, expected);
    tokio::time::advance(std::time::Duration::from_secs(16)).await;
    assert_eq!(shown().await, [nobody("scheduler"), nobody("controller-manager"), store]);
    let one = statuses.get("", "etcd-0").await.unwrap();
    assert_eq!(one.conditions.as_ref().unwrap()[0].type_, "Healthy");
    let absent = statuses.get("", "etcd-1").await.unwrap_err();
    assert_eq!(absent.message(), "Component not found: etcd-1");
}

#[tokio::test]
async fn an_eviction_of_the_version_before_is_taken() {
    let server = server().await;
    let served = serve(&server).await;
    let client = remote(&served, &server, "admin", "system:masters");
    let pods = pods(&admin(&server));
    pods.create(pod("default", "a")).await.unwrap();
    let path = "/api/v1/namespaces/default/pods/a/eviction";
    let body = |version: &str| json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "a", "namespace": "default"}});
    let (code, refused) = send(&client, "POST", path, "application/json", body("policy/v2")).await;
    assert_eq!(code, 400, "{refused}");
    let (code, done) = send(&client, "POST", path, "application/json", body("policy/v1beta1")).await;
    assert_eq!((code, done["status"].as_str()), (201, Some("Success")));
    assert!(pods.get("default", "a").await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_secret_holds_while_the_secret_does() {
    let clock = krate_base::Clock::starting_at(krate_base::Timestamp::from_second(1_800_000_000).unwrap());
    let server = crate::common::server_at(clock).await;
    let transport = admin(&server);
    let account = Api::<ServiceAccount>::new(transport.clone()).get("default", "default").await.unwrap();
    let uid = account.metadata.uid.clone().unwrap();
    let token = server.sign_secret_token("default", ("default", &uid), "long-lived");
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let said = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:default",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "long-lived",
        "kubernetes.io/serviceaccount/service-account.name": "default",
        "kubernetes.io/serviceaccount/service-account.uid": uid});
    assert_eq!(claims, said);
    let secrets = Api::<Secret>::new(transport.clone());
    let review = |audiences: &[&str]| {
        let mut ask = Request::of::<TokenReview>(Verb::Create, "", "");
        let review: TokenReview = of(json!({"spec": {"token": token, "audiences": audiences}}));
        ask.body = Some(krate_client::Body::Object(Box::new(review)));
        let transport = transport.clone();
        async move {
            let krate_client::Reply::Object(answer) = transport.send(ask).await.unwrap() else {
                panic!("an object")
            };
            answer.typed::<TokenReview>().unwrap().status.clone().unwrap()
        }
    };
    let error =
        |status: krate_api::types::authentication::v1::TokenReviewStatus| status.error.unwrap_or_default();
    assert_eq!(error(review(&[]).await), "[invalid bearer token, Token has been invalidated]");
    let secret = |token: &str| {
        of::<Secret>(json!({
            "metadata": {"name": "long-lived", "namespace": "default",
                "annotations": {"kubernetes.io/service-account.name": "default"}},
            "type": "kubernetes.io/service-account-token", "stringData": {"token": token}}))
    };
    secrets.create(secret("another")).await.unwrap();
    assert_eq!(error(review(&[]).await), "[invalid bearer token, Token does not match server's copy]");
    secrets.delete("default", "long-lived", DeleteOptions::default()).await.unwrap();
    secrets.create(secret(&token)).await.unwrap();
    let good = review(&[]).await;
    let user = good.user.unwrap();
    assert_eq!(
        (good.authenticated, user.username.as_deref()),
        (Some(true), Some("system:serviceaccount:default:default"))
    );
    assert_eq!(user.extra, None);
    assert!(error(review(&["elsewhere"]).await).contains("is invalid for the target audiences"));
    // No time ends it, and its use is noted by the day.
    let last_used = || async {
        let secret = secrets.get("default", "long-lived").await.unwrap();
        secret.metadata.labels.clone().unwrap()["kubernetes.io/legacy-token-last-used"].clone()
    };
    assert_eq!(last_used().await, "2027-01-15");
    let version = secrets.get("default", "long-lived").await.unwrap().metadata.resource_version.clone();
    assert_eq!(review(&[]).await.authenticated, Some(true));
    assert_eq!(secrets.get("default", "long-lived").await.unwrap().metadata.resource_version, version);
    tokio::time::advance(std::time::Duration::from_secs(400 * 24 * 3_600)).await;
    assert_eq!(review(&[]).await.authenticated, Some(true));
    assert_eq!(last_used().await, "2028-02-19");
    secrets.delete("default", "long-lived", DeleteOptions::default()).await.unwrap();
    assert_eq!(error(review(&[]).await), "[invalid bearer token, Token has been invalidated]");
}
